"""The one JSON document every measurement writes (docs/reports.md): its model, and its parts from records."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.records import Committed, Manifest

DIA_STAGES_END: Final = "measure"
"""The stage that ends with the DIASource catalog."""

Seconds = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    """More keys may be added, none renamed."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)


class Environment(_Section):
    """Where it ran."""

    cpu: str
    cores: int
    versions: dict[str, str]
    commit: str


class AlertCounts(_Section):
    """Counted by an independent reader of the alerts topic."""

    published: int
    consumed: int
    unique: int
    duplicates: int
    lost: int
    invalid: int
    bytes_mean: float


class Quantiles(_Section):
    """Nearest-rank percentiles [s]."""

    p50: Seconds
    p95: Seconds
    p99: Seconds | None = None
    max: Seconds | None = None


class StageTimes(_Section):
    """Wall and CPU of one stage."""

    wall_s: Quantiles
    cpu_s: Quantiles


class FalsePositives(_Section):
    """Means per detector-visit."""

    total: float
    noise_expected: float
    snr6: float
    by_cause: dict[str, float]


class AstrometryFigures(_Section):
    """Per axis, robust [mas]."""

    mas_snr20: float | None
    mas_snr20_100: float | None
    ratio_to_crlb: float | None
    floor_mas: float | None
    offset_mas: float | None


class FluxFigures(_Section):
    """Measured minus true [mag]."""

    bias_mag: float | None
    zero_point_rms_mag: float | None
    excess_scatter_mag: float | None


class Pull(_Section):
    """Of N(0, 1) values."""

    mean: float | None
    sd: float | None


class ReliabilityFigures(_Section):
    """Of DIASources over six sigma, at one threshold."""

    recall: dict[str, Fraction | None]
    bogus_pass: Fraction | None
    false_positives_snr6: float


class Quality(_Section):
    """Against truth (docs/reports.md)."""

    injected: int
    completeness: dict[str, Fraction]
    completeness_snr6: Fraction | None
    completeness_snr10: Fraction | None
    completeness_all_area: Fraction | None
    masked_fraction: Fraction
    snr50: float | None
    false_positives: FalsePositives
    reliability: ReliabilityFigures | None = None
    astrometry: AstrometryFigures
    flux: FluxFigures
    pull: Pull
    sky_pull: Pull
    snr_map_sd: float | None


class Peer(_Section):
    """One tool, or ours, or a sum of tools, on one full frame (docs/peers.md)."""

    cpu_s: Seconds
    wall_s: Seconds
    cpu_ratio_to_ours: float | None
    x_r: float
    quality: dict[str, float | None]


class HistoryTimes(_Section):
    """After the pixels, or before them, with a history of one depth."""

    post_pixel_wall_s: Seconds | None = None
    load_wall_s: Seconds | None = None


class Report(_Section):
    """What a target does not measure it leaves out."""

    schema_: Literal[1] = Field(alias="schema")
    environment: Environment
    command: str
    seeds: list[int] | None = None
    visits: int | None = None
    detector_visits: int | None = None
    outcomes: dict[str, int] | None = None
    alerts: AlertCounts | None = None
    latency_s: Quantiles | None = None
    commit_s: Quantiles | None = None
    stages: dict[str, StageTimes] | None = None
    detector_cpu_s: Quantiles | None = None
    dia_cpu_s: Quantiles | None = None
    reference_cpu_s: Seconds | None = None
    cpu_ratio: float | None = None
    dia_cpu_ratio: float | None = None
    wall_ratio: float | None = None
    bundle: dict[str, dict[str, int]] | None = None
    quality: Quality | None = None
    peers: dict[str, Peer] | None = None
    history: dict[str, HistoryTimes] | None = None
    not_simulated: list[str] | None = None

    def write(self, path: Path) -> None:
        """As JSON, without what was not measured."""
        path.parent.mkdir(parents=True, exist_ok=True)
        text = self.model_dump_json(by_alias=True, exclude_unset=True, indent=1)
        path.write_text(text + "\n", encoding="utf-8")


def read_report(path: Path) -> Report:
    """Read and check a report file."""
    return Report.model_validate_json(path.read_bytes())


def nearest_rank(values: Sequence[float], percent: float) -> float:
    """Smallest of the values that at least ``percent`` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(ceil(percent / 100 * len(ordered)), 1) - 1]


def quantiles(values: Sequence[float], *percents: int, with_max: bool = False) -> dict[str, float] | None:
    """``{"p50": …}`` by nearest rank, None for no values."""
    if not values:
        return None
    result = {f"p{percent}": nearest_rank(values, percent) for percent in percents}
    return result | {"max": max(values)} if with_max else result


def service_section(manifests: Sequence[Manifest], committed: Sequence[Committed]) -> dict[str, Any]:
    """Outcomes, latencies, times and bundles of the detector-visits that were processed."""
    worked = [manifest for manifest in manifests if manifest.timings]
    in_clock = [record for record in committed if not record.is_clock_suspect]
    section: dict[str, Any] = {
        "visits": len({manifest.visit for manifest in manifests}),
        "detector_visits": len({(manifest.visit, manifest.detector) for manifest in manifests}),
        "outcomes": dict(sorted(Counter(manifest.outcome.value for manifest in manifests).items())),
        "latency_s": quantiles([record.latency_s for record in in_clock], 50, 95, 99, with_max=True),
        "shutter_latency_s": quantiles([record.shutter_latency_s for record in in_clock], 50, 95, 99, with_max=True),
        "commit_s": quantiles([record.commit_s for record in committed], 50, 95, 99),
        "stages": stage_times(worked),
        "detector_cpu_s": quantiles([manifest.cpu_s for manifest in worked], 50, 95),
        "detector_wall_s": quantiles([manifest.wall_s for manifest in worked], 50, 95),
        "dia_cpu_s": quantiles([dia_cpu_s(manifest) for manifest in worked], 50, 95),
        "bundle": bundle_sources(worked),
        "clock_suspect": sum(record.is_clock_suspect for record in committed),
        "n_dropped": sum(manifest.n_dropped for manifest in manifests),
        "redis_skipped": dict(Counter(name for manifest in manifests for name in manifest.redis_skipped)),
        **_ratios(worked, committed),
    }
    return {name: value for name, value in section.items() if value is not None}


def stage_times(manifests: Iterable[Manifest]) -> dict[str, Any]:
    """Percentiles of each stage, in the order in which they run."""
    wall: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    for manifest in manifests:
        for name, wall_s, cpu_s in manifest.timings:
            wall.setdefault(name, []).append(wall_s)
            cpu.setdefault(name, []).append(cpu_s)
    return {
        name: {"wall_s": quantiles(wall[name], 50, 95, 99), "cpu_s": quantiles(cpu[name], 50, 95, 99)} for name in wall
    }


def dia_cpu_s(manifest: Manifest) -> float:
    """CPU seconds to the DIASource catalog; of all stages where the visit did not get that far."""
    total = 0.0
    for name, _, cpu_s in manifest.timings:
        total += cpu_s
        if name == DIA_STAGES_END:
            break
    return total


def _ratios(manifests: Sequence[Manifest], committed: Sequence[Committed]) -> dict[str, float | None]:
    """Medians over the pairs of work and reference measured on the same detector."""
    measured = {(record.visit, record.detector): record for record in committed}
    pairs = [(m, r) for m in manifests if (r := measured.get((m.visit, m.detector))) is not None]
    cpu = [(m, r.reference_cpu_s) for m, r in pairs if r.reference_cpu_s]
    wall = [(m, r.reference_wall_s) for m, r in pairs if r.reference_wall_s]
    return {
        "reference_cpu_s": median(reference for _, reference in cpu) if cpu else None,
        "cpu_ratio": median(m.cpu_s / reference for m, reference in cpu) if cpu else None,
        "dia_cpu_ratio": median(dia_cpu_s(m) / reference for m, reference in cpu) if cpu else None,
        "wall_ratio": median(m.wall_s / reference for m, reference in wall) if wall else None,
    }


def bundle_sources(manifests: Iterable[Manifest]) -> dict[str, dict[str, int]]:
    """How often each kind of part came from memory, Redis or the store (cold)."""
    counts: dict[str, Counter[str]] = {}
    for manifest in manifests:
        for kind, source, *_ in manifest.bundle:
            counts.setdefault(kind, Counter())[source] += 1
    return {kind: dict(sources) for kind, sources in counts.items()}


def field(report: Mapping[str, Any], path: str) -> Any:
    """Value at a dotted path, None where it was not measured."""
    value: Any = report
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
