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


@fast_kernel
def trail_sums(model: Float32, data: Float32, weight: Float32, flux: float, normal: Float64, right: Float64) -> float:
    """Gauss-Newton sums of ``flux * model[0]`` for (flux, x, y, half length x, half length y); returns chi-square.

    ``weight`` (s, s) is the inverse variance, zero where a pixel does not count. Outputs ``normal`` (5, 5) and
    ``right`` (5,).
    """
    row = np.empty(5)
    normal[:, :] = 0.0
    right[:] = 0.0
    chi2 = 0.0
    for y in range(data.shape[0]):
        for x in range(data.shape[1]):
            w = weight[y, x]
            if w <= 0.0:
                continue
            residual = data[y, x] - flux * model[0, y, x]
            chi2 += w * residual * residual
            row[0] = model[0, y, x]
            for a in range(1, 5):
                row[a] = flux * model[a, y, x]
            for a in range(5):
                q = w * row[a]
                right[a] += q * residual
                for b in range(a + 1):
                    normal[a, b] += q * row[b]
    for a in range(5):
        for b in range(a):
            normal[b, a] = normal[a, b]
    return chi2
