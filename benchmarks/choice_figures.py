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

N_RESAMPLES: Final = 200


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


def speeds(runs: Sequence[Run], default: Sequence[Run], reference_cpu_s: Sequence[float], stage: str) -> dict[str, Any]:
    """CPU over R, medians of the detector-visits; the difference is the median of the paired differences.

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
    return {
        "cpu_ratio": _median(run.dia_cpu_s / r for run, _, r in rows),
        "cpu_ratio_difference": _median((run.dia_cpu_s - usual.dia_cpu_s) / r for run, usual, r in rows),
        "stage_cpu_ratio": _median(own / r for own, _, r in of_stage),
        "stage_cpu_ratio_difference": _median((own - usual) / r for own, usual, r in of_stage),
    }


def references(runs_of_choices: Sequence[Sequence[Run]]) -> list[float]:
    """R of each detector-visit: the median of those measured beside each of its runs, NaN for none."""
    beside = [[run.reference_cpu_s for run in runs] for runs in zip(*runs_of_choices, strict=True)]
    return [median([r for r in measured if r is not None] or [float("nan")]) for measured in beside]


def figures(parts: Sequence[DetectorQuality]) -> dict[str, float | None]:
    """The :data:`FIGURES` of pooled detector-visits."""
    if not parts:
        return dict.fromkeys(FIGURES)
    summary = summarize(parts)
    return {name: field(summary, path) for name, path in FIGURES.items()}


def differences(
    parts: Sequence[DetectorQuality], default: Sequence[DetectorQuality], n_resamples: int = N_RESAMPLES, seed: int = 1
) -> dict[str, Difference]:
    """Choice minus default of every figure, with paired errors.

    Figures of injections: bootstrap over the injections of each detector-visit, the same ones drawn for both sides
    (Efron & Tibshirani 1993, chapter 6). Figures of detector-visits: scatter of their differences over root n.

    Parameters
    ----------
    parts, default : qualities of the same detector-visits, in one order; their injections are the same rows.
    """
    ours, usual = figures(parts), figures(default)
    resampled = _resampled_differences(parts, default, n_resamples, seed) if parts else []
    result = {}
    for name in FIGURES:
        of_detector = OF_DETECTORS.get(name)
        error = (
            _standard_error([of_detector(a) - of_detector(b) for a, b in zip(parts, default, strict=True)])
            if of_detector
            else _spread([row[name] for row in resampled])
        )
        result[name] = Difference(value=_minus(ours[name], usual[name]), error=error)
    return result


def _resampled_differences(
    parts: Sequence[DetectorQuality], default: Sequence[DetectorQuality], n_resamples: int, seed: int
) -> list[dict[str, float | None]]:
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n_resamples):
        pairs = [_redrawn(a, b, rng) for a, b in zip(parts, default, strict=True)]
        ours, usual = figures([a for a, _ in pairs]), figures([b for _, b in pairs])
        rows.append({name: _minus(ours[name], usual[name]) for name in FIGURES})
    return rows


def _redrawn(
    part: DetectorQuality, default: DetectorQuality, rng: np.random.Generator
) -> tuple[DetectorQuality, DetectorQuality]:
    """Both sides with the same injections and variables, drawn with replacement."""
    changes: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for name in ("injections", "variables"):
        one, other = getattr(part, name), getattr(default, name)
        if one.snr.size != other.snr.size:
            raise ValueError(f"{name} of visit {part.visit}, detector {part.detector} are not the same rows")
        rows = rng.integers(0, max(one.snr.size, 1), one.snr.size)
        for side, whole in zip(changes, (one, other), strict=True):
            side[name] = Injections(**{n: getattr(whole, n)[rows] for n in Injections.__dataclass_fields__})
    return replace(part, **changes[0]), replace(default, **changes[1])


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
