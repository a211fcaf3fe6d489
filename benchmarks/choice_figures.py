"""A choice against the default on the same detector-visits: figures, differences, and errors of the differences."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from statistics import median
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.evaluate import DetectorQuality, Injections
from benchmarks.quality.summary import summarize
from benchmarks.report import field

Float64 = NDArray[np.float64]

FIGURES: Final[Mapping[str, str]] = {
    "completeness_snr6": "completeness_snr6",
    "snr50": "snr50",
    "false_positives": "false_positives.total",
    "false_positives_snr6": "false_positives.snr6",
    "mas_snr20": "astrometry.mas_snr20",
    "flux_bias_mag": "flux.bias_mag",
    "pull_sd": "pull.sd",
    "snr_map_sd": "snr_map_sd",
}
"""Name in the table and place in the report's ``quality`` section."""

OF_DETECTORS: Final[Mapping[str, Callable[[DetectorQuality], float]]] = {
    "false_positives": lambda part: float(part.n_false),
    "false_positives_snr6": lambda part: float(part.n_false_snr6),
    "snr_map_sd": lambda part: part.snr_map_sd,
}
"""Figures that a detector-visit has as a whole; the others are of its injections."""

N_RESAMPLES: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One detector-visit under one choice; ``quality`` None where it gave no difference."""

    visit: int
    detector: int
    outcome: str
    quality: DetectorQuality | None
    dia_cpu_s: float
    """CPU from segments to the DIASource catalog."""
    stage_cpu_s: Mapping[str, float]
    reference_cpu_s: float | None
    """R beside it; None where there was no image to measure it on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Choice minus default and its standard error; None where too few sources or detector-visits give one."""

    value: float | None
    error: float | None


def speeds(
    runs: Sequence[Run], default: Sequence[Run], reference_cpu_s: Sequence[float], stage: str
) -> dict[str, float | None]:
    """CPU over R, medians of the detector-visits; differences are medians of paired ones, with the mean's error.

    Parameters
    ----------
    runs, default : the choice's and the default's runs of the same detector-visits, in one order.
    reference_cpu_s : R of each of these detector-visits.
    stage : the stage that the choice changes; empty for all.
    """
    rows = [
        (run, usual, r)
        for run, usual, r in zip(runs, default, reference_cpu_s, strict=True)
        if run.quality is not None and usual.quality is not None
    ]
    of_stage = [(run.stage_cpu_s[stage], usual.stage_cpu_s[stage], r) for run, usual, r in rows] if stage else []
    to_dia = [(run.dia_cpu_s, usual.dia_cpu_s, r) for run, usual, r in rows]
    found: dict[str, float | None] = {}
    for name, pairs in (("cpu_ratio", to_dia), ("stage_cpu_ratio", of_stage)):
        changes = [(own - usual) / r for own, usual, r in pairs]
        found[name] = _median(own / r for own, _, r in pairs)
        found[f"{name}_difference"] = _median(changes)
        found[f"{name}_difference_error"] = _standard_error(changes)
    return found


def references(runs_of_choices: Sequence[Sequence[Run]]) -> list[float]:
    """R of each detector-visit: the median of those measured beside each of its runs, NaN for none."""
    beside = [[run.reference_cpu_s for run in runs] for runs in zip(*runs_of_choices, strict=True)]
    return [median([r for r in measured if r is not None] or [float("nan")]) for measured in beside]


def figures(parts: Sequence[DetectorQuality], paths: Mapping[str, str] = FIGURES) -> dict[str, float | None]:
    """The :data:`FIGURES` of pooled detector-visits, or others."""
    if not parts:
        return dict.fromkeys(paths)
    summary = summarize(parts)
    return {name: field(summary, path) for name, path in paths.items()}


def resampled(
    parts: Sequence[DetectorQuality],
    n_resamples: int = N_RESAMPLES,
    seed: int = 1,
    paths: Mapping[str, str] = FIGURES,
) -> list[dict[str, float | None]]:
    """:func:`figures` of ``n_resamples`` bootstraps over the injections and variables of each detector-visit.

    Which rows are drawn depends on the seed and on the numbers of rows only: two choices' resamples pair.
    Reference: Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 6.
    """
    rng = np.random.default_rng(seed)
    return [figures([_redrawn(part, rng) for part in parts], paths) for _ in range(n_resamples)]


def differences(
    parts: Sequence[DetectorQuality],
    default: Sequence[DetectorQuality],
    redrawn: Sequence[Mapping[str, float | None]],
    default_redrawn: Sequence[Mapping[str, float | None]],
) -> dict[str, Difference]:
    """Choice minus default of every figure, with paired errors.

    Figures of injections: spread over the resamples. Figures of detector-visits: scatter of their differences over
    root n.

    Parameters
    ----------
    parts, default : qualities of the same detector-visits, in one order; their injections are the same rows.
    redrawn, default_redrawn : :func:`resampled` of both.
    """
    for one, other in zip(parts, default, strict=True):
        if one.injections.snr.size != other.injections.snr.size or one.variables.snr.size != other.variables.snr.size:
            raise ValueError(f"injections of visit {one.visit}, detector {one.detector} are not the same rows")
    ours, usual = figures(parts), figures(default)
    result = {}
    for name in FIGURES:
        if (of_detector := OF_DETECTORS.get(name)) is not None:
            error = _standard_error([of_detector(a) - of_detector(b) for a, b in zip(parts, default, strict=True)])
        else:
            error = _spread([_minus(a[name], b[name]) for a, b in zip(redrawn, default_redrawn, strict=True)])
        result[name] = Difference(value=_minus(ours[name], usual[name]), error=error)
    return result


def _redrawn(part: DetectorQuality, rng: np.random.Generator) -> DetectorQuality:
    """With injections and variables drawn with replacement."""
    changes: dict[str, Any] = {}
    for name in ("injections", "variables"):
        whole: Injections = getattr(part, name)
        rows = rng.integers(0, max(whole.snr.size, 1), whole.snr.size)
        changes[name] = Injections(**{n: getattr(whole, n)[rows] for n in Injections.__dataclass_fields__})
    return replace(part, **changes)


def _median(values: Iterable[float]) -> float | None:
    known = list(values)
    return median(known) if known else None


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _spread(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.std(known, ddof=1)) if len(known) > max(len(values) // 2, 1) else None


def _standard_error(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1) / sqrt(len(values))) if len(values) > 1 else None
