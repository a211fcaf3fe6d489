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
    # usable pixels of one window in lines, so that the sums run on vectors: the six derivatives, and the six weighted
    design, weighted, residual = np.empty((6, k * k)), np.empty((6, k * k)), np.empty(k * k)
    for i in range(y0.size):
        f0, f1 = flux[i, 0], flux[i, 1]
        n = 0
        chi2[i] = 0.0
        for y in range(max(0, -y0[i]), min(k, ny - y0[i])):
            for x in range(max(0, -x0[i]), min(k, nx - x0[i])):
                v = variance[y0[i] + y, x0[i] + x]
                if v <= 0.0 or (mask[y0[i] + y, x0[i] + x] & bad) != 0:
                    continue
                design[0, n] = positive[i, 0, y, x]
                design[1, n] = f0 * positive[i, 1, y, x]
                design[2, n] = f0 * positive[i, 2, y, x]
                design[3, n] = -negative[i, 0, y, x]
                design[4, n] = -f1 * negative[i, 1, y, x]
                design[5, n] = -f1 * negative[i, 2, y, x]
                residual[n] = image[y0[i] + y, x0[i] + x] - f0 * design[0, n] - f1 * design[3, n]
                w = 1.0 / v
                for a in range(6):
                    weighted[a, n] = design[a, n] * w
                chi2[i] += residual[n] * residual[n] * w
                n += 1
        count[i] = n
        for a in range(6):
            line, total = weighted[a], 0.0
            for p in range(n):
                total += line[p] * residual[p]
            right[i, a] = total
            for b in range(a + 1):
                other, total = design[b], 0.0
                for p in range(n):
                    total += line[p] * other[p]
                normal[i, a, b] = total
                normal[i, b, a] = total


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
