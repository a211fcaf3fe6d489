"""Matched filter of a difference image with its PSF: the S/N map.

``snr = sum(P d w) / sqrt(sum(P**2 w))`` with w = 1 / variance, zero where a pixel may not count; exact for any mask
because both sums run over the same weights. P and P**2 are sums of a few separable terms.
"""

import numpy as np
from numpy.typing import NDArray

from core.kernels.decorator import fast_kernel, kernel

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
MaskArray = NDArray[np.uint16]


@fast_kernel
def _add_lines(source: Float32, taps: Float32, first: int, n: int, stride: int, out: Float32) -> None:
    """``out[i] += sum_t taps[t] * source[first + i + t * stride]`` for i < n; six taps a pass."""
    n_taps = taps.size
    t = 0
    while t + 6 <= n_taps:
        a, b, c, d, e, f = taps[t], taps[t + 1], taps[t + 2], taps[t + 3], taps[t + 4], taps[t + 5]
        p = first + t * stride
        s0, s1, s2 = source[p : p + n], source[p + stride : p + stride + n], source[p + 2 * stride : p + 2 * stride + n]
        p += 3 * stride
        s3, s4, s5 = source[p : p + n], source[p + stride : p + stride + n], source[p + 2 * stride : p + 2 * stride + n]
        for i in range(n):
            out[i] += ((a * s0[i] + b * s1[i]) + (c * s2[i] + d * s3[i])) + (e * s4[i] + f * s5[i])
        t += 6
    while t < n_taps:
        a = taps[t]
        s0 = source[first + t * stride : first + t * stride + n]
        for i in range(n):
            out[i] += a * s0[i]
        t += 1


@fast_kernel
def snr_block(
    image: Float32,
    variance: Float32,
    mask: MaskArray,
    excluded: int,
    photon_noise: float,
    x_taps: Float32,
    y_taps: Float32,
    x_square_taps: Float32,
    y_square_taps: Float32,
    y0: int,
    y1: int,
    x0: int,
    x1: int,
    scratch: Float32,
    snr: Float32,
) -> None:
    """Fill ``snr[y0:y1, x0:x1]``; pixels beyond the image count as masked.

    Parameters
    ----------
    image, variance, mask : (ny, nx).    excluded : mask bits of pixels with no weight.
    photon_noise : variance that a unit of the source's own light added, which a pixel without a source would not
        have: from 2 to 4 sigma it is taken out by degrees (below, the variance never held it).
    x_taps, y_taps : (rank, 2 h + 1): the PSF is the sum of their outer products.
    x_square_taps, y_square_taps : (rank, 2 h2 + 1), h2 <= h: the same for the PSF squared.
    scratch : at least 2 (rows + 2 h) (columns + 2 h) + 4 (rows + 2 h) columns float32.
    """
    ny, nx = image.shape
    h, h2 = x_taps.shape[1] // 2, x_square_taps.shape[1] // 2
    rows, columns = y1 - y0 + 2 * h, x1 - x0
    wide = columns + 2 * h
    data, weight = scratch[: rows * wide], scratch[rows * wide : 2 * rows * wide]
    base = 2 * rows * wide
    size = rows * columns
    partial = scratch[base : base + size]
    signal, norm = scratch[base + size : base + 2 * size], scratch[base + 2 * size : base + 3 * size]
    left, right = max(0, h - x0), min(wide, nx - x0 + h)
    zero, half, one, own = np.float32(0), np.float32(0.5), np.float32(1), np.float32(photon_noise)
    for j in range(rows):
        y = y0 - h + j
        a, w = data[j * wide : (j + 1) * wide], weight[j * wide : (j + 1) * wide]
        a[:] = 0
        w[:] = 0
        if 0 <= y < ny:
            pixels = image[y, x0 - h + left : x0 - h + right]
            variances = variance[y, x0 - h + left : x0 - h + right]
            bits = mask[y, x0 - h + left : x0 - h + right]
            to_a, to_w = a[left:right], w[left:right]
            for i in range(right - left):
                value, v = pixels[i], variances[i]
                share = half * np.abs(value) / np.sqrt(v) - one
                share = share if share < one else one
                share = share if share > zero else zero
                empty = v - share * own * value
                v = empty if empty > half * v else half * v
                inverse = zero if bits[i] & excluded else one / v
                to_w[i] = inverse
                to_a[i] = inverse * pixels[i]
    n_out = (y1 - y0) * columns
    signal[:n_out] = 0
    norm[:n_out] = 0
    for r in range(x_taps.shape[0]):
        partial[:] = 0
        for j in range(rows):
            _add_lines(
                data[j * wide : (j + 1) * wide], x_taps[r], 0, columns, 1, partial[j * columns : (j + 1) * columns]
            )
        for j in range(y1 - y0):
            _add_lines(partial, y_taps[r], j * columns, columns, columns, signal[j * columns : (j + 1) * columns])
    for r in range(x_square_taps.shape[0]):
        partial[:] = 0
        for j in range(h - h2, rows - h + h2):
            _add_lines(
                weight[j * wide : (j + 1) * wide], x_square_taps[r], h - h2, columns, 1,
                partial[j * columns : (j + 1) * columns],
            )  # fmt: skip
        for j in range(y1 - y0):
            _add_lines(
                partial, y_square_taps[r], (j + h - h2) * columns, columns, columns,
                norm[j * columns : (j + 1) * columns],
            )  # fmt: skip
    for j in range(y1 - y0):
        to = snr[y0 + j, x0:x1]
        s, q = signal[j * columns : (j + 1) * columns], norm[j * columns : (j + 1) * columns]
        for i in range(columns):
            to[i] = s[i] / np.sqrt(q[i]) if q[i] > 0 else np.float32(0)


@kernel
def snr_histogram(snr: Float32, mask: MaskArray, excluded: int, step: int, limit: float, counts: Int64) -> None:
    """Histogram of |S/N| below ``limit`` over every ``step``-th unmasked pixel in both axes."""
    counts[:] = 0
    scale = counts.size / limit
    for y in range(0, snr.shape[0], step):
        for x in range(0, snr.shape[1], step):
            if mask[y, x] & excluded == 0:
                bin_ = int(abs(snr[y, x]) * scale)
                if bin_ < counts.size:
                    counts[bin_] += 1
