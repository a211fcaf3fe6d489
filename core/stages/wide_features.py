"""Features of light curves that the alert schema has no room for: the survey's baseline set and a period search.

Computed by the ``light-curve`` library (Malanchev et al. 2021, MNRAS 502, 5147) from forced fluxes on the difference
images, which say what an object did when it was not detected, too. Optional work: dropped when the clock runs out.
"""

from dataclasses import dataclass
from typing import Any, Final

import light_curve
import numpy as np
from numpy.typing import NDArray

from core.contracts.catalogs import BANDS, LIGHT_CURVE_FEATURES, Catalog, empty_catalog
from core.contracts.exposure import VisitInfo
from core.kernels.light_curves import ALL_BANDS, percentiles, stetson_j
from core.stages.light_curves import LightCurves, gather
from core.stages.past import Past
from core.stages.periodogram import FrequencyGrid, Transform, highest_peaks, power

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_FRACTIONS: Final = {
    "percentile05": 0.05,
    "percentile25": 0.25,
    "median": 0.5,
    "percentile75": 0.75,
    "percentile95": 0.95,
}
_N_PERIODS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class WideFeaturesConfig:
    """Parameters of :func:`wide_features`."""

    is_computed: bool = True
    pair_hours: float = 1.0
    """Two points so close are a pair to Stetson's J: a field is seen twice within the hour."""
    min_points_period: int = 12
    """Fewer points have no period worth a name."""
    shortest_period_days: float = 0.2
    n_frequencies: int = 8192
    """Steps of the grid up to the shortest period's: a fifth of a year's resolution."""


def _of_fluxes() -> Any:
    """The library's features that no times go into, in the order of :data:`_FLUX_COLUMNS`."""
    lc = light_curve
    return lc.Extractor(
        lc.Mean(), lc.WeightedMean(), lc.StandardDeviation(), lc.Skew(), lc.Kurtosis(), lc.Amplitude(),
        lc.MedianAbsoluteDeviation(), lc.BeyondNStd(1.0), lc.ReducedChi2(), lc.ExcessVariance(), lc.StetsonK(),
        lc.Eta(), lc.Cusum(),
    )  # fmt: skip


def _of_times() -> Any:
    """Those of the fluxes' change with time, in the order of :data:`_TIME_COLUMNS`."""
    return light_curve.Extractor(light_curve.MaximumSlope(), light_curve.LinearFit())


_FLUX_COLUMNS: Final = (
    "mean", "weightedMean", "standardDeviation", "skew", "kurtosis", "amplitude", "medianAbsoluteDeviation",
    "beyond1Std", "reducedChi2", "excessVariance", "stetsonK", "eta", "cusum",
)  # fmt: skip
_TIME_COLUMNS: Final = ("maximumSlope", "linearSlope", "linearSlopeErr", "linearReducedChi2")


class WideFeatures:
    """Fills companion records; holds the library's extractors.

    Parameters
    ----------
    config : parameters; the frequency grid is fixed by them.
    """

    def __init__(self, config: WideFeaturesConfig) -> None:
        self._config = config
        self._of_fluxes, self._of_times = _of_fluxes(), _of_times()
        step = 1 / config.shortest_period_days / config.n_frequencies
        self._transform = Transform(FrequencyGrid(step_per_day=step, n=config.n_frequencies))

    def of(self, objects: Catalog, sources: Catalog, forced: Catalog, past: Past, visit_info: VisitInfo) -> Catalog:
        """LIGHT_CURVE_FEATURES rows of the objects of this visit, in their order (by id).

        Parameters
        ----------
        objects : DIA_OBJECT rows of this visit.    sources : its DIA_SOURCE rows.
        forced : its DIA_FORCED_SOURCE rows.    past : what came before.
        """
        rows = empty_catalog(LIGHT_CURVE_FEATURES, objects.size)
        rows["diaObjectId"], rows["ra"], rows["dec"] = objects["diaObjectId"], objects["ra"], objects["dec"]
        rows["visit"], rows["detector"] = visit_info.visit, visit_info.detector
        rows["midpointMjdTai"] = visit_info.midpoint_mjd_tai
        if objects.size == 0:
            return rows
        owners, first = np.unique(sources["diaObjectId"], return_index=True)
        rows["diaSourceId"] = sources["diaSourceId"][first[np.searchsorted(owners, rows["diaObjectId"])]]
        names = ("band", "midpointMjdTai", "psfFlux", "psfFluxErr")
        ids = np.ascontiguousarray(rows["diaObjectId"])
        curves = _usable(gather(ids, past.dia_forced_sources(ids), forced, names))
        self._fill_kernels(rows, curves)
        self._fill_curves(rows, curves)
        self._fill_periods(rows, curves)
        return rows

    def _fill_kernels(self, rows: Catalog, curves: LightCurves) -> None:
        mjd, flux, error = (curves.float64(name) for name in ("midpointMjdTai", "psfFlux", "psfFluxErr"))
        band, n = curves.band(), rows.size
        rows["nData"] = np.diff(curves.start)
        several = np.flatnonzero(rows["nData"] > 1)
        rows["duration"][several] = mjd[curves.start[several + 1] - 1] - mjd[curves.start[several]]
        stetson = np.empty((n, ALL_BANDS + 1))
        stetson_j(curves.start, band, mjd, flux, error, self._config.pair_hours / 24, stetson)
        rows["stetsonJ"] = stetson[:, ALL_BANDS]
        fractions = np.array(list(_FRACTIONS.values()))
        found = np.empty((n, len(BANDS), fractions.size))
        percentiles(curves.start, band, flux, fractions, found)
        for b, name in enumerate(BANDS):
            rows[f"{name}_stetsonJ"] = stetson[:, b]
            for k, percentile in enumerate(_FRACTIONS):
                rows[f"{name}_{percentile}"] = found[:, b, k]

    def _fill_curves(self, rows: Catalog, curves: LightCurves) -> None:
        """The library's features, one light curve an object and band."""
        columns = [curves.float64(name) for name in ("midpointMjdTai", "psfFlux", "psfFluxErr")]
        owner = np.repeat(np.arange(rows.size), np.diff(curves.start))
        slot = owner * len(BANDS) + curves.band()
        order = np.argsort(slot, kind="stable")
        columns = [column[order] for column in columns]
        start = np.searchsorted(slot[order], np.arange(rows.size * len(BANDS) + 1))
        counts = np.diff(start)
        weights = np.add.reduceat(1 / columns[2] ** 2, start[:-1][counts > 0]) if counts.any() else np.empty(0)
        several = np.flatnonzero(counts > 1)
        names = (*_FLUX_COLUMNS, *_TIME_COLUMNS)
        found = np.full((counts.size, len(names)), np.nan)
        n_flux = len(_FLUX_COLUMNS)
        found[several, :n_flux] = _extract(self._of_fluxes, columns, start, several)
        # of points at one and the same time the library would panic
        spread = several[columns[0][start[several + 1] - 1] > columns[0][start[several]]]
        found[spread, n_flux:] = _extract(self._of_times, columns, start, spread)
        mean_error = np.full(counts.size, np.nan)
        mean_error[counts > 0] = 1 / np.sqrt(weights)
        for b, band in enumerate(BANDS):
            rows[f"{band}_nData"] = counts[b :: len(BANDS)]
            rows[f"{band}_weightedMeanErr"] = mean_error[b :: len(BANDS)]
            for k, name in enumerate(names):
                rows[f"{band}_{name}"] = found[b :: len(BANDS), k]

    def _fill_periods(self, rows: Catalog, curves: LightCurves) -> None:
        """The highest peaks of the periodogram over all bands."""
        mjd, flux, error = (curves.float64(name) for name in ("midpointMjdTai", "psfFlux", "psfFluxErr"))
        band, periods = curves.band(), 1 / self._transform.grid.per_day
        for i in np.flatnonzero(rows["nData"] >= self._config.min_points_period):
            span = slice(curves.start[i], curves.start[i + 1])
            spectrum = power(self._transform, mjd[span], flux[span], error[span], band[span])
            for k, (place, excess) in enumerate(zip(*highest_peaks(spectrum, _N_PERIODS), strict=True), start=1):
                rows[f"period{k}"][i], rows[f"periodSnr{k}"][i] = periods[place], excess


def _extract(extractor: Any, columns: list[Float64], start: Int64, chosen: Int64) -> Float64:
    """(chosen, features) of light curves that have two points at least; NaN where a feature needs more."""
    curves = [tuple(column[start[i] : start[i + 1]] for column in columns) for i in chosen]
    if not curves:
        return np.empty((0, len(extractor.names)))
    return np.asarray(extractor.many(curves, sorted=True, check=False, fill_value=np.nan, n_jobs=1), np.float64)


def _usable(curves: LightCurves) -> LightCurves:
    """Points with a flux, a positive error and a band."""
    flux, error = curves.float64("psfFlux"), curves.float64("psfFluxErr")
    keep = np.isfinite(flux) & (error > 0) & np.isfinite(error) & (curves.band() >= 0)
    if keep.all():
        return curves
    before = np.concatenate([[0], np.cumsum(keep)])
    return LightCurves(start=before[curves.start], columns={n: column[keep] for n, column in curves.columns.items()})
