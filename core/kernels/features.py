"""Statistics of light curves, object by object and band by band."""

from math import nan, sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.kernels.decorator import kernel

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Int8 = NDArray[np.int8]

N_BANDS: Final = 6

# columns of light_curve_statistics' output
MEAN: Final = 0
MEAN_ERR: Final = 1
SIGMA: Final = 2
N_DATA: Final = 3
MINIMUM: Final = 4
MAXIMUM: Final = 5
MAX_SLOPE: Final = 6
ERR_MEAN: Final = 7
N_STATISTICS: Final = 8


@kernel
def light_curve_statistics(
    start: Int64, band: Int8, mjd: Float64, flux: Float64, flux_err: Float64, out: Float64
) -> None:
    """Statistics of n objects' light curves in six bands.

    Parameters
    ----------
    start : (n + 1,) rows of object i are ``start[i]:start[i + 1]``, ordered by time.
    band : (rows,) 0-5; others are left out.    mjd, flux, flux_err : (rows,) [d], [nJy]; a point counts if its flux is
        finite and its error positive.
    out : (n, 6, N_STATISTICS): inverse-variance mean and its error, standard deviation (ddof 1), number, extremes,
        steepest rise between neighbors [nJy/d], mean error. NaN where undefined (the number is 0).
    """
    for i in range(start.size - 1):
        for b in range(N_BANDS):
            row = out[i, b]
            row[:] = nan
            count, total, weights, weighted, errors = 0, 0.0, 0.0, 0.0, 0.0
            low, high, steepest, last, last_mjd = np.inf, -np.inf, -np.inf, nan, nan
            for j in range(start[i], start[i + 1]):
                f, e = flux[j], flux_err[j]
                if band[j] != b or not (np.isfinite(f) and e > 0 and e < np.inf):
                    continue
                count += 1
                total += f
                weights += 1 / (e * e)
                weighted += f / (e * e)
                errors += e
                low, high = min(low, f), max(high, f)
                if count > 1 and mjd[j] > last_mjd:
                    steepest = max(steepest, (f - last) / (mjd[j] - last_mjd))
                last, last_mjd = f, mjd[j]
            row[N_DATA] = count
            if count == 0:
                continue
            row[MEAN], row[MEAN_ERR] = weighted / weights, 1 / sqrt(weights)
            row[MINIMUM], row[MAXIMUM], row[ERR_MEAN] = low, high, errors / count
            if steepest > -np.inf:
                row[MAX_SLOPE] = steepest
            if count > 1:
                mean, squares = total / count, 0.0
                for j in range(start[i], start[i + 1]):
                    f, e = flux[j], flux_err[j]
                    if band[j] == b and np.isfinite(f) and e > 0 and e < np.inf:
                        squares += (f - mean) ** 2
                row[SIGMA] = sqrt(squares / (count - 1))


@kernel
def mean_positions(
    start: Int64, east: Float64, north: Float64, var_east: Float64, var_north: Float64, cov: Float64, out: Float64
) -> None:
    """Inverse-covariance mean of n objects' offsets; ``out`` (n, 5): east, north, their variances and covariance.

    Points whose covariance is not positive definite count only where an object has no other; then the plain mean, with
    NaN errors.
    """
    for i in range(start.size - 1):
        a, b, c, u, v = 0.0, 0.0, 0.0, 0.0, 0.0
        count, sum_east, sum_north = 0, 0.0, 0.0
        for j in range(start[i], start[i + 1]):
            count += 1
            sum_east += east[j]
            sum_north += north[j]
            determinant = var_east[j] * var_north[j] - cov[j] * cov[j]
            if not (var_east[j] > 0 and var_north[j] > 0 and determinant > 0):
                continue
            wa, wb, wc = var_north[j] / determinant, var_east[j] / determinant, -cov[j] / determinant
            a += wa
            b += wb
            c += wc
            u += wa * east[j] + wc * north[j]
            v += wc * east[j] + wb * north[j]
        row = out[i]
        row[:] = nan
        determinant = a * b - c * c
        if determinant > 0:
            row[0], row[1] = (b * u - c * v) / determinant, (a * v - c * u) / determinant
            row[2], row[3], row[4] = b / determinant, a / determinant, -c / determinant
        elif count > 0:
            row[0], row[1] = sum_east / count, sum_north / count
