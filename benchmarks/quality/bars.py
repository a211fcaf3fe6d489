"""What the pipeline promises of its results, and whether a report keeps it."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.report import field


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A figure of the report, and the range it must lie in; ``is_absolute``: its size, whatever its sign."""

    name: str
    path: str
    low: float = -inf
    high: float = inf
    factor: float = 1.0
    digits: int = 3
    elsewhere: str = ""
    """The best published elsewhere, where there is any (docs/quality.md)."""
    is_absolute: bool = False

    def measured(self, report: Mapping[str, Any]) -> float | None:
        """The figure in the bar's unit, None where the report has none."""
        value = field(report, self.path)
        if value is None:
            return None
        scaled = self.factor * float(value)
        return abs(scaled) if self.is_absolute else scaled

    def is_kept(self, report: Mapping[str, Any]) -> bool:
        """Whether the figure is there and in the range."""
        value = self.measured(report)
        return value is not None and self.low <= value <= self.high

    def asked(self) -> str:
        """The range in words."""
        if self.low == -inf:
            return f"<= {self.high:g}"
        return f">= {self.low:g}" if self.high == inf else f"{self.low:g} - {self.high:g}"


_Q: Final = "quality."
BARS: Final[tuple[Bar, ...]] = (
    Bar(name="detector-visits", path="detector_visits", low=20, digits=0),
    Bar(name="injections", path=_Q + "injected", low=5000, digits=0),
    Bar(name="completeness, SNR 6-100, claimed", path=_Q + "completeness_snr6", low=0.985, digits=4, elsewhere="0.99"),
    Bar(name="completeness, SNR 10-100, claimed", path=_Q + "completeness_snr10", low=0.995, digits=4),
    Bar(name="completeness, SNR 6-100, all active area", path=_Q + "completeness_all_area", low=0.955, digits=4),
    Bar(name="masked [%]", path=_Q + "masked_fraction", high=3, factor=100, digits=2),
    Bar(name="snr50", path=_Q + "snr50", low=4.75, high=5.05, digits=2, elsewhere="5.07; theory 4.84"),
    Bar(name="S/N map sd", path=_Q + "snr_map_sd", low=0.98, high=1.02),
    Bar(name="false positives beyond noise", path=_Q + "false_positives.excess", high=20, digits=1, elsewhere="10-174"),
    Bar(name="false positives over 6 sigma", path=_Q + "false_positives.snr6", high=12, digits=1),
    Bar(name="bogus passing [%]", path=_Q + "reliability.bogus_pass", high=3, factor=100, digits=1, elsewhere="5"),
    *(
        Bar(name=f"recall, {kind}", path=f"{_Q}reliability.recall.{kind}", low=0.97, elsewhere="0.934")
        for kind in ("transient", "variable_positive", "variable_negative", "mover")
    ),
    Bar(name="false positives left", path=_Q + "reliability.false_positives_snr6", high=1.5, digits=2),
    Bar(name="astrometry, SNR 18-22, over CRLB", path=_Q + "astrometry.ratio_to_crlb", high=1.10, digits=2),
    Bar(name="astrometry floor [mas]", path=_Q + "astrometry.floor_mas", high=6, digits=1),
    Bar(name="astrometry offset [mas]", path=_Q + "astrometry.offset_mas", high=2, digits=1),
    Bar(
        name="flux bias, bright [mmag]",
        path=_Q + "flux.bias_mag",
        high=2,
        factor=1000,
        digits=1,
        elsewhere="2",
        is_absolute=True,
    ),
    Bar(name="zero point rms [mmag]", path=_Q + "flux.zero_point_rms_mag", high=5, factor=1000, digits=1),
    Bar(
        name="excess scatter, bright [mmag]",
        path=_Q + "flux.excess_scatter_mag",
        high=5,
        factor=1000,
        digits=1,
        elsewhere="20",
    ),
    Bar(name="pull mean", path=_Q + "pull.mean", high=0.05, is_absolute=True),
    Bar(name="pull sd, hostless", path=_Q + "pull.hostless.sd", low=0.97, high=1.05, elsewhere="1.15"),
    Bar(name="pull sd, hosted", path=_Q + "pull.hosted.sd", high=1.10, elsewhere="1.2"),
    Bar(name="cosmic rays removed [%]", path=_Q + "cosmic_rays.removed", low=95, factor=100, digits=1),
    Bar(name="centers lost [%]", path=_Q + "cosmic_rays.centers_lost", high=0.1, factor=100),
    Bar(
        name="centers lost at the best seeing [%]", path=_Q + "cosmic_rays.centers_lost_sharpest", high=0.1, factor=100
    ),
    Bar(name="snr50, ESO pair", path=_Q + "real_frames.eso_pair.snr50", low=4.5, high=5.15, digits=2),
    Bar(name="snr50, SDSS frame", path=_Q + "real_frames.sdss_frame.snr50", low=4.75, high=5.15, digits=2),
    Bar(name="CPU to DIASources over R", path="dia_cpu_ratio", high=32, digits=1, elsewhere="387"),
    Bar(name="wall over R's", path="wall_ratio", high=22, digits=1),
)


def show(report: Mapping[str, Any], console: Console) -> None:
    """A row a bar: what is asked, what was measured, whether it is kept."""
    table = Table(title="bars", title_justify="left")
    for column in ("figure", "best elsewhere", "asked", "got", ""):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for bar in BARS:
        value = bar.measured(report)
        got = "not measured" if value is None else f"{value:.{bar.digits}f}"
        table.add_row(escape(bar.name), bar.elsewhere, bar.asked(), got, "kept" if bar.is_kept(report) else "NOT KEPT")
    console.print(table)


def broken(report: Mapping[str, Any]) -> list[str]:
    """Names of the bars that are not kept."""
    return [bar.name for bar in BARS if not bar.is_kept(report)]
