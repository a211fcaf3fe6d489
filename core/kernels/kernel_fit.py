"""Stamps of the template convolved with the separable basis of an Alard-Lupton kernel.

Reference: Alard & Lupton 1998, ApJ 503, 325; Alard 2000, A&AS 144, 363.
"""

import numpy as np
from numpy.typing import NDArray

from core.kernels.decorator import fast_kernel

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]


@fast_kernel
def _convolve_lines(source: Float32, taps: Float32, first: int, n: int, stride: int, out: Float32) -> None:
    """``out[i] = sum_t taps[t] * source[first + i + t * stride]`` for i < n; four taps a pass."""
    n_taps = taps.size
    out[:n] = 0
    t = 0
    while t + 4 <= n_taps:
        a, b, c, d = taps[t], taps[t + 1], taps[t + 2], taps[t + 3]
        s0 = source[first + t * stride : first + t * stride + n]
        s1 = source[first + (t + 1) * stride : first + (t + 1) * stride + n]
        s2 = source[first + (t + 2) * stride : first + (t + 2) * stride + n]
        s3 = source[first + (t + 3) * stride : first + (t + 3) * stride + n]
        for i in range(n):
            out[i] += (a * s0[i] + b * s1[i]) + (c * s2[i] + d * s3[i])
        t += 4
    while t < n_taps:
        a = taps[t]
        s0 = source[first + t * stride : first + t * stride + n]
        for i in range(n):
            out[i] += a * s0[i]
        t += 1


@fast_kernel
def basis_stamp(
    image: Float32,
    y: int,
    x: int,
    half_stamp: int,
    profiles: Float32,
    degrees: Int32,
    half_widths: Int32,
    scratch: Float32,
    basis: Float32,
) -> None:
    """Convolve one stamp with every basis function.

    Parameters
    ----------
    image : (ny, nx); the stamp and h = max(half_widths) pixels around it lie inside.
    y, x : center of the stamp [pixel].    half_stamp : the stamp is s = 2 half_stamp + 1 pixels square.
    profiles : (n_gauss, max degree + 1, 2 h + 1): one-dimensional factors, centered in the last axis.
    degrees, half_widths : (n_gauss,) int32: total degree and half width of each Gaussian [pixel].
    scratch : at least 3 (s + 2 h)**2 float32.
    basis : (n_basis, s, s) output, ordered by Gaussian, then power of x, then power of y.
    """
    s = 2 * half_stamp + 1
    h = profiles.shape[2] // 2
    m = s + 2 * h
    padded, columns, rows = scratch[: m * m], scratch[m * m : 2 * m * m], scratch[2 * m * m : 3 * m * m]
    # Stored by columns: then a convolution along x is one long contiguous loop.
    for j in range(m):
        for i in range(m):
            padded[i * m + j] = image[y - half_stamp - h + j, x - half_stamp - h + i]
    flat = basis.reshape(basis.shape[0], s * s)
    n = 0
    for g in range(degrees.size):
        w = half_widths[g]
        for p in range(degrees[g] + 1):
            _convolve_lines(padded, profiles[g, p, h - w : h + w + 1], (h - w) * m, s * m, m, columns)
            for i in range(s):
                for j in range(m):
                    rows[j * s + i] = columns[i * m + j]
            for q in range(degrees[g] + 1 - p):
                _convolve_lines(rows, profiles[g, q, h - w : h + w + 1], (h - w) * s, s * s, s, flat[n])
                n += 1
