"""Sums for fits of models given as planes on a small window."""

import numpy as np
from numpy.typing import NDArray

from core.kernels.decorator import fast_kernel

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
UInt16 = NDArray[np.uint16]


@fast_kernel
def two_lobe_sums(
    image: Float32, variance: Float32, mask: UInt16, bad: int, y0: Int64, x0: Int64,
    positive: Float32, negative: Float32, flux: Float64, normal: Float64, right: Float64, chi2: Float64, count: Int64,
) -> None:  # fmt: skip
    """Gauss-Newton sums of ``flux[0] * positive - flux[1] * negative`` for n windows at (y0, x0).

    ``positive`` and ``negative`` are (n, 3, k, k): the PSF at each lobe and its derivatives by the lobe's x and y. The
    six parameters are (flux, x, y) of the positive lobe, then of the negative. Outputs: ``normal`` (n, 6, 6) and
    ``right`` (n, 6) weighted by the inverse variance, ``chi2`` and ``count`` (n,) of the usable pixels.
    """
    ny, nx = image.shape
    k = positive.shape[2]
    row = np.empty(6)
    for i in range(y0.size):
        normal[i, :, :] = 0.0
        right[i, :] = 0.0
        chi2[i], count[i] = 0.0, 0
        for y in range(max(0, -y0[i]), min(k, ny - y0[i])):
            for x in range(max(0, -x0[i]), min(k, nx - x0[i])):
                v = variance[y0[i] + y, x0[i] + x]
                if v <= 0.0 or (mask[y0[i] + y, x0[i] + x] & bad) != 0:
                    continue
                row[0] = positive[i, 0, y, x]
                row[1] = flux[i, 0] * positive[i, 1, y, x]
                row[2] = flux[i, 0] * positive[i, 2, y, x]
                row[3] = -negative[i, 0, y, x]
                row[4] = -flux[i, 1] * negative[i, 1, y, x]
                row[5] = -flux[i, 1] * negative[i, 2, y, x]
                model = flux[i, 0] * positive[i, 0, y, x] - flux[i, 1] * negative[i, 0, y, x]
                residual = image[y0[i] + y, x0[i] + x] - model
                w = 1.0 / v
                chi2[i] += residual * residual * w
                count[i] += 1
                for a in range(6):
                    q = row[a] * w
                    right[i, a] += q * residual
                    for b in range(a + 1):
                        normal[i, a, b] += q * row[b]
        for a in range(6):
            for b in range(a):
                normal[i, b, a] = normal[i, a, b]


@fast_kernel
def opposite_lobe(
    image: Float32, variance: Float32, mask: UInt16, bad: int, y: Int64, x: Int64, sign: Float64, reach: int,
    lobe_y: Int64, lobe_x: Int64, lobe_snr: Float64,
) -> None:  # fmt: skip
    """Most significant 3 x 3 sum of the sign opposite to n sources, within ``reach`` pixels of them.

    Outputs its center and S/N (positive if it has the opposite sign); windows with an unusable pixel do not count.
    """
    ny, nx = image.shape
    for i in range(y.size):
        lobe_y[i], lobe_x[i], lobe_snr[i] = y[i], x[i], 0.0
        for v in range(max(1, y[i] - reach), min(ny - 1, y[i] + reach + 1)):
            for u in range(max(1, x[i] - reach), min(nx - 1, x[i] + reach + 1)):
                total, noise, is_whole = 0.0, 0.0, True
                for b in range(-1, 2):
                    for a in range(-1, 2):
                        w = variance[v + b, u + a]
                        if w <= 0.0 or (mask[v + b, u + a] & bad) != 0:
                            is_whole = False
                        total += image[v + b, u + a]
                        noise += w
                if is_whole:
                    snr = -sign[i] * total / np.sqrt(noise)
                    if snr > lobe_snr[i]:
                        lobe_y[i], lobe_x[i], lobe_snr[i] = v, u, snr
