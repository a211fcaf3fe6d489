"""The measured tables of README and docs/choices.md, written from a report file and never by hand."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click

from benchmarks.choices_table import markdown
from benchmarks.report import field, read_report

BEGIN: Final = "<!-- measured: begin -->"
END: Final = "<!-- measured: end -->"


def _seconds(value: float) -> str:
    return f"{value:.2f} s"


def _ratio(value: float) -> str:
    return f"{value:.1f}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _mas(value: float) -> str:
    return f"{value:.1f} mas"


def _mmag(value: float) -> str:
    return f"{1000 * value:+.1f} mmag"


def _number(value: float) -> str:
    return f"{value:.2f}"


def _count(value: float) -> str:
    return f"{value:,.0f}"


ROWS: Final[tuple[tuple[str, str, Callable[[float], str]], ...]] = (
    ("detector-visits", "detector_visits", _count),
    ("alerts, unique", "alerts.unique", _count),
    ("alert latency, p50", "latency_s.p50", _seconds),
    ("alert latency, p95", "latency_s.p95", _seconds),
    ("CPU of a detector, raw to serialized alerts, p50", "detector_cpu_s.p50", _seconds),
    ("… in units of R (`cpu_ratio`)", "cpu_ratio", _ratio),
    ("… wall over wall (`wall_ratio`)", "wall_ratio", _ratio),
    ("R: CPU of `sep.Background(bw=128, bh=128)`", "reference_cpu_s", lambda value: f"{value:.3f} s"),
    ("completeness, SNR_true 6-100, claimed area", "quality.completeness_snr6", _percent),
    ("masked fraction", "quality.masked_fraction", _percent),
    ("SNR at which half are found (perfect: 4.84)", "quality.snr50", _number),
    ("false positives a detector", "quality.false_positives.total", _ratio),
    ("… of which noise alone makes", "quality.false_positives.noise_expected", _ratio),
    ("astrometry per axis, SNR_true 20-100", "quality.astrometry.mas_snr20_100", _mas),
    ("… over the Cramér-Rao bound, at SNR 20", "quality.astrometry.ratio_to_crlb", _number),
    ("flux bias, SNR_true > 200", "quality.flux.bias_mag", _mmag),
    ("flux bias, SNR_true > 50", "quality.flux.bias_mag_snr50", _mmag),
    ("pull of forced fluxes, sd", "quality.pull.sd", _number),
)


def table(report: Mapping[str, Any]) -> str:
    """Markdown of what the report measured, and how."""
    if (choices := report.get("choices")) is not None:
        return f"{markdown(choices)}\n\n{how(report, 'reports.md')}"
    counts = [field(report, f"alerts.{name}") for name in ("lost", "duplicates", "invalid")]
    lines = ["| measured | |", "|---|---|"]
    if None not in counts:
        lines.append(f"| alerts lost / duplicated / invalid | {' / '.join(str(count) for count in counts)} |")
    for label, path, form in ROWS:
        value = field(report, path)
        if value is not None:
            lines.append(f"| {label} | {form(value)} |")
    return "\n".join([*lines, "", how(report)])


def how(report: Mapping[str, Any], definitions: str = "docs/reports.md") -> str:
    """One paragraph: what ran, where."""
    environment = report["environment"]
    simulated = "" if field(report, "quality") is None else "detectors simulated on the spot, "
    return (
        f"`{report['command']}` at `{environment['commit'][:12]}` on {environment['cores']} cores of "
        f"{environment['cpu']}, Python {environment['versions']['python']}; {simulated}"
        f"definitions in [docs/reports.md]({definitions})."
    )


def rewrite(readme: str, measured: str) -> str:
    """The README with the text between the markers replaced."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the README has no markers for the measured table")
    return f"{before}{BEGIN}\n{measured}\n{END}{after}"


@click.command("report-table")
@click.argument("report", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--readme", type=click.Path(dir_okay=False, path_type=Path), help="Rewrite this file's measured table.")
def command(report: Path, readme: Path | None) -> None:
    """Print a report's table, or write it into a README.

    \b
    sub60 report-table build/demo-redis.json --readme README.md
    """
    read_report(report)
    measured = table(json.loads(report.read_text(encoding="utf-8")))
    if readme is None:
        click.echo(measured)
        return
    readme.write_text(rewrite(readme.read_text(encoding="utf-8"), measured), encoding="utf-8")
    click.echo(f"wrote the measured table of {readme}")
