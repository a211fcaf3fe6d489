"""Models of trails: the PSF spread along a line."""

import numpy as np
from numpy.typing import NDArray

from core.kernels.decorator import fast_kernel

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@fast_kernel
def spread(planes: Float32, oy: Int64, ox: Int64, t: Float64, model: Float32) -> None:
    """Mean of PSFs placed along a line, and its derivatives by center x, y and by half length x, y.

    ``planes`` (m, 3, k, k) are the PSF and its derivatives by the source's x and y at m points ``t`` in [-1, 1] of the
    line; (oy, ox) the pixel of ``model`` that each stamp's first pixel falls on. ``model`` is (5, s, s).
    """
    model[:, :, :] = np.float32(0.0)
    k, s = planes.shape[2], model.shape[1]
    weight = np.float32(1.0 / t.size)
    for i in range(t.size):
        along = np.float32(t[i] / t.size)
        for y in range(max(0, -oy[i]), min(k, s - oy[i])):
            for x in range(max(0, -ox[i]), min(k, s - ox[i])):
                v, u = oy[i] + y, ox[i] + x
                model[0, v, u] += weight * planes[i, 0, y, x]
                model[1, v, u] += weight * planes[i, 1, y, x]
                model[2, v, u] += weight * planes[i, 2, y, x]
                model[3, v, u] += along * planes[i, 1, y, x]
                model[4, v, u] += along * planes[i, 2, y, x]
