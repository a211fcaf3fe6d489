"""Many detector-visits pooled into the report's ``quality`` section."""

from collections.abc import Sequence
from math import isfinite
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.completeness import by_bin, fraction, snr50
from benchmarks.quality.cosmic_rays import STAR_SNR
from benchmarks.quality.evaluate import DetectorQuality, Injections
from benchmarks.quality.photometry import robust_sd
from benchmarks.quality.reliability import summarize_reliability

Float64 = NDArray[np.float64]

MAG: Final = 2.5 / np.log(10)
BRIGHT_SNR: Final = 200.0
_MIN_ROWS: Final = 5
_OUTLIER: Final = 5.0


def summarize(parts: Sequence[DetectorQuality]) -> dict[str, Any]:
    """The ``quality`` section (docs/reports.md); a figure that too few sources allow is None."""
    injections = _pool([part.injections for part in parts])
    variables = _pool([part.variables for part in parts])
    everything = _pool([injections, variables])
    claimed = injections.is_claimed
    snr, found = injections.snr[claimed], injections.is_found[claimed]
    summary: dict[str, Any] = {
        "injected": int(injections.snr.size),
        "completeness": by_bin(found, snr),
        "completeness_snr6": fraction(found, snr, 6, 100.0001),
        "completeness_snr10": fraction(found, snr, 10, 100.0001),
        "completeness_all_area": fraction(injections.is_found, injections.snr, 6, 100.0001),
        "masked_fraction": 1 - float(np.mean([part.claimed_fraction for part in parts])),
        "snr50": snr50(found, snr),
        "false_positives": _false_positives(parts),
        "astrometry": {**_astrometry(injections), "variables": _astrometry(variables)},
        "reliability": summarize_reliability([part.reliability for part in parts]),
        "flux": _flux(everything, parts),
        "pull": _pull(injections),
        "sky_pull": _moments(np.concatenate([part.sky_pull for part in parts])),
        "snr_map_sd": float(np.median([part.snr_map_sd for part in parts])),
        "cosmic_rays": _cosmic_rays(parts),
        "detectors": [_row(part) for part in parts],
    }
    return {name: without_nan(value) for name, value in summary.items()}


def _pool(parts: Sequence[Injections]) -> Injections:
    names = Injections.__dataclass_fields__
    return Injections(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def _false_positives(parts: Sequence[DetectorQuality]) -> dict[str, Any]:
    """Means per detector-visit."""
    n = len(parts)
    total, noise = (sum(values) / n for values in zip(*((p.n_false, p.noise_expected) for p in parts), strict=True))
    return {
        "total": total,
        "noise_expected": noise,
        "excess": total - noise,
        "snr6": sum(part.n_false_snr6 for part in parts) / n,
        "by_cause": {name: sum(part.causes[name] for part in parts) / n for name in parts[0].causes},
    }


def _astrometry(sources: Injections) -> dict[str, Any]:
    ok = sources.is_found & sources.is_claimed
    at_20 = ok & (sources.snr >= 18) & (sources.snr <= 22)
    bright = ok & (sources.snr >= 20) & (sources.snr <= 100)
    floor = ok & (sources.snr > BRIGHT_SNR)
    offsets = [float(np.median(axis[bright])) for axis in (sources.east_mas, sources.north_mas)] if bright.any() else []
    return {
        "mas_snr20": _per_axis(sources, at_20),
        "mas_snr20_100": _per_axis(sources, bright),
        "ratio_to_crlb": _per_axis(sources, at_20, sources.bound_mas),
        "floor_mas": _per_axis(sources, floor),
        "offset_mas": float(np.linalg.norm(offsets)) if offsets else None,
        "n_snr20": int(at_20.sum()),
        "n_snr20_100": int(bright.sum()),
        "n_floor": int(floor.sum()),
    }


def _per_axis(sources: Injections, rows: NDArray[np.bool_], unit: Float64 | None = None) -> float | None:
    """Robust standard deviation of both axes' errors, each about its median [mas, or in units of ``unit``]."""
    if rows.sum() < _MIN_ROWS:
        return None
    scale = 1.0 if unit is None else unit[rows]
    errors = [axis[rows] / scale for axis in (sources.east_mas, sources.north_mas)]
    return robust_sd(np.concatenate([axis - np.median(axis) for axis in errors]))


def _flux(sources: Injections, parts: Sequence[DetectorQuality]) -> dict[str, Any]:
    ok = sources.is_found & sources.is_claimed & (sources.ratio > 0)
    bright = ok & (sources.snr > BRIGHT_SNR)
    middle = ok & (sources.snr > 50)
    errors = np.array([part.zero_point_error_mag for part in parts])
    errors = errors[np.isfinite(errors)]
    return {
        "bias_mag": _bias(sources, bright),
        "zero_point_rms_mag": float(np.sqrt(np.mean(errors**2))) if errors.size else None,
        "excess_scatter_mag": _excess(sources, bright),
        "bias_mag_snr50": _bias(sources, middle),
        "excess_scatter_mag_snr50": _excess(sources, middle),
        "n_bright": int(bright.sum()),
        "n_snr50": int(middle.sum()),
    }


def _bias(sources: Injections, rows: NDArray[np.bool_]) -> float | None:
    """Median measured minus true magnitude."""
    return float(np.median(-MAG * np.log(sources.ratio[rows]))) if rows.sum() >= _MIN_ROWS else None


def _excess(sources: Injections, rows: NDArray[np.bool_]) -> float | None:
    """Robust scatter of the magnitudes beyond what noise explains: the frame's and their own photons'."""
    if rows.sum() < _MIN_ROWS:
        return None
    scatter = robust_sd(-MAG * np.log(sources.ratio[rows]))
    expected = MAG * float(np.median(sources.ratio_error[rows]))
    return float(np.sqrt(max(scatter**2 - expected**2, 0.0)))


def _pull(injections: Injections) -> dict[str, Any]:
    rows = injections.is_claimed & (injections.snr >= 5) & (injections.snr <= 50) & np.isfinite(injections.pull)
    hosted = injections.is_hosted
    return {
        **_moments(injections.pull[rows]),
        "hostless": _moments(injections.pull[rows & ~hosted]),
        "hosted": _moments(injections.pull[rows & hosted]),
    }


def _cosmic_rays(parts: Sequence[DetectorQuality]) -> dict[str, Any]:
    """Particles over 5 sigma without a DIASource; bright stars and injections whose center the search masked."""
    counts = [part.cosmic_rays for part in parts]
    events, left = sum(count.n_events for count in counts), sum(count.n_left for count in counts)
    return {
        "events": events,
        "removed": 1 - left / events if events else None,
        "centers": _centers(parts)[0],
        "centers_lost": _centers(parts)[1],
        "centers_lost_sharpest": _centers(_sharpest(parts))[1],
        "sharpest_arcsec": min(part.fwhm_arcsec for part in parts),
    }


def _sharpest(parts: Sequence[DetectorQuality]) -> list[DetectorQuality]:
    """Detector-visits within a tenth of the best seeing."""
    best = min(part.fwhm_arcsec for part in parts)
    return [part for part in parts if part.fwhm_arcsec <= 1.1 * best]


def _centers(parts: Sequence[DetectorQuality]) -> tuple[int, float | None]:
    """Stars and injections of S/N over 20, and the fraction that lost the center."""
    n, lost = 0, 0
    for part in parts:
        rows = part.injections.is_claimed | part.injections.is_center_lost
        rows &= part.injections.snr > STAR_SNR
        n += part.cosmic_rays.n_stars + int(rows.sum())
        lost += part.cosmic_rays.n_stars_lost + int(part.injections.is_center_lost[rows].sum())
    return n, lost / n if n else None


def _moments(pulls: Float64) -> dict[str, Any]:
    """Median, robust width (1.4826 MAD), plain width and the fraction beyond five of N(0, 1) values."""
    if pulls.size == 0:
        return {"mean": None, "sd": None, "n": 0}
    return {
        "mean": float(np.median(pulls)),
        "sd": robust_sd(pulls),
        "sd_plain": float(np.std(pulls)),
        "outliers": float(np.mean(np.abs(pulls) > _OUTLIER)),
        "n": int(pulls.size),
    }


def _row(part: DetectorQuality) -> dict[str, Any]:
    """One detector-visit, for looking at what stands out."""
    injections = part.injections
    rows = injections.is_claimed
    return {
        "visit": part.visit,
        "detector": part.detector,
        "band": part.band,
        "fwhm_arcsec": part.fwhm_arcsec,
        "completeness_snr6": fraction(injections.is_found[rows], injections.snr[rows], 6, 100.0001),
        "masked_fraction": 1 - part.claimed_fraction,
        "dia_sources": part.n_dia_sources,
        "false_positives": part.n_false,
        "zero_point_error_mag": part.zero_point_error_mag,
        "pull_sd": _pull(injections)["sd"],
        "snr_map_sd": part.snr_map_sd,
    }


def without_nan(value: Any) -> Any:
    """The same with NaN and infinity as None, all the way down."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    if isinstance(value, float) and not isfinite(value):
        return None
    return value
