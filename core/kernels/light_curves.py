"""What the light-curve library lacks: Stetson's J over pairs, percentiles of fluxes."""

from math import nan, sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.kernels.decorator import kernel

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Int8 = NDArray[np.int8]

N_BANDS: Final = 6
ALL_BANDS: Final = N_BANDS
"""Column of :func:`stetson_j` over all bands together."""


@kernel
def _pair_sum(
    first: np.int64, stop: np.int64, band: Int8, only: int, mjd: Float64, residual: Float64, pair_days: float
) -> float:
    """Stetson's J of the rows of one band, or of all for ``only`` below 0; NaN for none."""
    total, weights = 0.0, 0.0
    last = np.int64(-1)
    for j in range(first, stop):
        if only >= 0 and band[j] != only:
            continue
        if last >= 0 and mjd[j] - mjd[last] <= pair_days:
            product = residual[last] * residual[j]
            total += (1.0 if product > 0 else -1.0) * sqrt(abs(product))
            weights += 1.0
            last = np.int64(-1)
            continue
        if last >= 0:
            product = residual[last] * residual[last] - 1
            total += (1.0 if product > 0 else -1.0) * sqrt(abs(product))
            weights += 1.0
        last = np.int64(j)
    if last >= 0:
        product = residual[last] * residual[last] - 1
        total += (1.0 if product > 0 else -1.0) * sqrt(abs(product))
        weights += 1.0
    return total / weights if weights > 0 else nan


@kernel
def stetson_j(
    start: Int64, band: Int8, mjd: Float64, flux: Float64, flux_err: Float64, pair_days: float, out: Float64
) -> None:
    """Stetson's variability index J (Stetson 1996, PASP 108, 851, eqs. 1-2) of n light curves.

    Residuals are in units of their errors about the inverse-variance mean of their band, times sqrt(n / (n - 1)) with
    the number of points of the band. Two points that follow each other within ``pair_days`` make a pair, taken from the
    earliest on; others stand alone. Every pair and every single point weighs the same.

    Parameters
    ----------
    start : (n + 1,) rows of curve i are ``start[i]:start[i + 1]``, ordered by time.
    band : (rows,) 0-5.    mjd, flux, flux_err : (rows,) [d], [nJy]; all finite, errors positive.
    out : (n, 7): each band, then all bands together; NaN where no band has two points.
    """
    residual = np.empty(flux.size)
    for i in range(start.size - 1):
        first, stop = start[i], start[i + 1]
        n_most = 0
        for b in range(N_BANDS):
            count, weights, weighted = 0, 0.0, 0.0
            for j in range(first, stop):
                if band[j] == b:
                    count += 1
                    weights += 1 / (flux_err[j] * flux_err[j])
                    weighted += flux[j] / (flux_err[j] * flux_err[j])
            n_most = max(n_most, count)
            scale = sqrt(count / (count - 1)) if count > 1 else 0.0
            for j in range(first, stop):
                if band[j] == b:
                    residual[j] = scale * (flux[j] - weighted / weights) / flux_err[j]
            out[i, b] = _pair_sum(first, stop, band, b, mjd, residual, pair_days) if count > 1 else nan
        out[i, ALL_BANDS] = _pair_sum(first, stop, band, -1, mjd, residual, pair_days) if n_most > 1 else nan


@kernel
def percentiles(start: Int64, band: Int8, flux: Float64, fractions: Float64, out: Float64) -> None:
    """Percentiles of n light curves in six bands, linear between neighbors as NumPy's default.

    Parameters
    ----------
    start, band, flux : as in :func:`stetson_j`.
    fractions : (k,) in 0-1.    out : (n, 6, k) [nJy], NaN where a band has no point.
    """
    values = np.empty(flux.size)
    for i in range(start.size - 1):
        for b in range(N_BANDS):
            count = 0
            for j in range(start[i], start[i + 1]):
                if band[j] == b:
                    values[count] = flux[j]
                    count += 1
            out[i, b, :] = nan
            if count == 0:
                continue
            ordered = np.sort(values[:count])
            for k in range(fractions.size):
                at = fractions[k] * (count - 1)
                below = int(at)
                above = min(below + 1, count - 1)
                out[i, b, k] = ordered[below] + (at - below) * (ordered[above] - ordered[below])
