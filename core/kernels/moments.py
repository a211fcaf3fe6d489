"""Second moments with a matched elliptical Gaussian weight.

Bernstein & Jarvis 2002, AJ 123, 583, section 3: the weight is iterated until twice the weighted moments equal its own.
"""

from math import ceil, exp, floor, sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.kernels.decorator import fast_kernel

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]
UInt16 = NDArray[np.uint16]

SHAPE_OK: Final = 0
SHAPE_NO_PIXELS: Final = 1
SHAPE_NOT_CONVERGED: Final = 2
SHAPE_NOT_CONTAINED: Final = 4

_MAX_ITERATIONS: Final = 25
_TOLERANCE: Final = 2e-3
# plain iteration halves the distance to the fixed point each time
_RELAXATION: Final = 1.7
_SMALLEST_PIX2: Final = 0.15


@fast_kernel
def _iterate(
    image: Float32, variance: Float32, mask: UInt16, bad: int, x: float, y: float, reach: int, sign: float,
    moments: Float64,
) -> int:  # fmt: skip
    """Iterate ``moments`` (xx, yy, xy) in place from their starting values."""
    ny, nx = image.shape
    xc, yc = floor(x + 0.5), floor(y + 0.5)
    if xc < 0 or yc < 0 or xc >= nx or yc >= ny:
        return SHAPE_NOT_CONTAINED
    xx, yy, xy = moments[0], moments[1], moments[2]
    largest = (reach / 1.5) ** 2
    for _ in range(_MAX_ITERATIONS):
        determinant = xx * yy - xy * xy
        axx, ayy, axy = yy / (2 * determinant), xx / (2 * determinant), -xy / determinant
        total, sxx, syy, sxy, weights, lost = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        half = min(reach, ceil(4.0 * sqrt(max(xx, yy))))
        for v in range(yc - half, yc + half + 1):
            for u in range(xc - half, xc + half + 1):
                dx, dy = u - x, v - y
                q = axx * dx * dx + ayy * dy * dy + axy * dx * dy
                if q > 9.0:
                    continue
                w = exp(-q)
                if v < 0 or u < 0 or v >= ny or u >= nx or variance[v, u] <= 0.0 or (mask[v, u] & bad) != 0:
                    lost += w
                    continue
                d = w * image[v, u]
                weights += w
                total += d
                sxx += d * dx * dx
                syy += d * dy * dy
                sxy += d * dx * dy
        if weights <= 0.0:
            return SHAPE_NO_PIXELS
        if sign * total <= 0.0 or lost > 0.3 * (weights + lost):
            return SHAPE_NOT_CONVERGED
        new_xx = xx + _RELAXATION * (2 * sxx / total - xx)
        new_yy = yy + _RELAXATION * (2 * syy / total - yy)
        new_xy = xy + _RELAXATION * (2 * sxy / total - xy)
        new_xx, new_yy = max(new_xx, _SMALLEST_PIX2), max(new_yy, _SMALLEST_PIX2)
        limit = 0.95 * sqrt(new_xx * new_yy)
        new_xy = min(max(new_xy, -limit), limit)
        change = abs(new_xx - xx) + abs(new_yy - yy) + abs(new_xy - xy)
        xx, yy, xy = new_xx, new_yy, new_xy
        if xx > largest or yy > largest:
            return SHAPE_NOT_CONVERGED
        if change < _TOLERANCE * (xx + yy):
            moments[0], moments[1], moments[2] = xx, yy, xy
            return SHAPE_OK
    return SHAPE_NOT_CONVERGED


@fast_kernel
def adaptive_moments(
    image: Float32, variance: Float32, mask: UInt16, bad: int, x: Float64, y: Float64, sign: Float64,
    start: Float64, reach: Int64, moments: Float64, status: UInt8,
) -> None:  # fmt: skip
    """Moments (n, 3) [pixel**2] (xx, yy, xy) of n sources about fixed centers (x, y).

    ``sign`` (n,) is -1 for negative sources; ``start`` (n, 3) the first weight, best the PSF's. Pixels farther than
    ``reach`` (n,) do not count; left-out pixels (``bad``, variance <= 0) holding 30 % of the weight make it fail.
    Status SHAPE_*; moments are NaN unless SHAPE_OK.
    """
    for i in range(x.size):
        moments[i, :] = start[i, :]
        status[i] = _iterate(image, variance, mask, bad, x[i], y[i], reach[i], sign[i], moments[i])
        if status[i] != SHAPE_OK:
            moments[i, :] = np.nan
