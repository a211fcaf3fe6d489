"""Median radial profile around a position, and its subtraction."""

import numpy as np
from numpy.typing import NDArray

from core.kernels.decorator import kernel

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
MaskArray = NDArray[np.uint16]


@kernel
def _median(values: Float32, n: int) -> float:
    """Median of the first ``n`` values by quickselect; reorders them. The upper of two middle ones."""
    low, high, k = 0, n - 1, n // 2
    while low < high:
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if k <= j:
            high = j
        elif k >= i:
            low = i
        else:
            break
    return float(values[k])


@kernel
def ring_medians(
    image: Float32,
    mask: MaskArray,
    masked: int,
    y: int,
    x: int,
    rings: Int32,
    min_pixels: int,
    values: Float32,
    profile: Float64,
) -> None:
    """Median of the unmasked pixels of each ring about (y, x); NaN where fewer than ``min_pixels``.

    Parameters
    ----------
    rings : (2 reach + 1, 2 reach + 1) int32: ring of each offset; values beyond the last ring are ignored.
    values : (n_rings, m) scratch, m at least the pixels of a ring.    profile : (n_rings,) output.
    """
    ny, nx = image.shape
    reach, n_rings = rings.shape[0] // 2, profile.size
    profile[:] = 0
    for j in range(max(y - reach, 0), min(y + reach + 1, ny)):
        for i in range(max(x - reach, 0), min(x + reach + 1, nx)):
            ring = rings[j - y + reach, i - x + reach]
            if ring < n_rings and mask[j, i] & masked == 0:
                values[ring, int(profile[ring])] = image[j, i]
                profile[ring] += 1
    for ring in range(n_rings):
        n = int(profile[ring])
        profile[ring] = _median(values[ring], n) if n >= min_pixels else np.nan


@kernel
def subtract_profile(profile: Float64, y: int, x: int, reach: int, image: Float32) -> None:
    """Subtract ``profile``, given at whole radii 0, 1, 2 ... pixel, from the pixels within ``reach`` of (y, x)."""
    ny, nx = image.shape
    last = profile.size - 1
    for j in range(max(y - reach, 0), min(y + reach + 1, ny)):
        for i in range(max(x - reach, 0), min(x + reach + 1, nx)):
            r = np.sqrt(float((j - y) ** 2 + (i - x) ** 2))
            n = int(r)
            if n < last:
                image[j, i] -= profile[n] + (r - n) * (profile[n + 1] - profile[n])
