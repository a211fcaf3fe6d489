"""Median radial profile around a position, and its subtraction."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.kernels.decorator import kernel

LUMP: Final = 4
"""Side of the squares that :func:`mark_lumps` looks at [pixel]."""

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
Bool = NDArray[np.bool_]
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
def _level(profile: Float64, r: float) -> float:
    """Value at radius ``r``, below the last, of a profile at whole radii."""
    n = int(r)
    return float(profile[n] + (r - n) * (profile[n + 1] - profile[n]))


@kernel
def ring_medians(
    image: Float32,
    mask: MaskArray,
    masked: int,
    y: int,
    x: int,
    rings: Int32,
    lumps: Bool,
    min_pixels: int,
    values: Float32,
    profile: Float64,
) -> None:
    """Median of the unmasked pixels of each ring about (y, x); NaN where fewer than ``min_pixels``.

    Parameters
    ----------
    rings : (2 reach + 1, 2 reach + 1) int32: ring of each offset; values beyond the last ring are ignored.
    lumps : squares left out, as :func:`mark_lumps` gives them.
    values : (n_rings, m) scratch, m at least the pixels of a ring.    profile : (n_rings,) output.
    """
    ny, nx = image.shape
    reach, n_rings = rings.shape[0] // 2, profile.size
    profile[:] = 0
    for j in range(max(y - reach, 0), min(y + reach + 1, ny)):
        for i in range(max(x - reach, 0), min(x + reach + 1, nx)):
            ring = rings[j - y + reach, i - x + reach]
            if (
                ring < n_rings
                and mask[j, i] & masked == 0
                and not lumps[(j - y + reach) // LUMP, (i - x + reach) // LUMP]
            ):
                values[ring, int(profile[ring])] = image[j, i]
                profile[ring] += 1
    for ring in range(n_rings):
        n = int(profile[ring])
        profile[ring] = _median(values[ring], n) if n >= min_pixels else np.nan


@kernel
def mark_lumps(
    image: Float32,
    variance: Float32,
    mask: MaskArray,
    masked: int,
    y: int,
    x: int,
    profile: Float64,
    n_sigma: float,
    lumps: Bool,
) -> None:
    """Squares of :data:`LUMP` pixels about (y, x) whose sum departs from the profile's by ``n_sigma``, and their
    neighbours.

    Parameters
    ----------
    profile : (reach + 1,) level at whole radii 0, 1, 2 ... pixel.
    lumps : (n, n) output; n squares of it reach from offset -reach to beyond offset reach.
    """
    ny, nx = image.shape
    reach, n = profile.size - 1, lumps.shape[0]
    lumps[:] = False
    for b in range(n):
        for a in range(n):
            total, noise = 0.0, 0.0
            for j in range(max(b * LUMP - reach, -y), min((b + 1) * LUMP - reach, ny - y)):
                for i in range(max(a * LUMP - reach, -x), min((a + 1) * LUMP - reach, nx - x)):
                    r = np.sqrt(float(j * j + i * i))
                    if r < reach and mask[y + j, x + i] & masked == 0:
                        total += image[y + j, x + i] - _level(profile, r)
                        noise += variance[y + j, x + i]
            if total * total > n_sigma * n_sigma * noise:
                lumps[max(b - 1, 0) : b + 2, max(a - 1, 0) : a + 2] = True


@kernel
def subtract_profile(profile: Float64, y: int, x: int, reach: int, image: Float32) -> None:
    """Subtract ``profile``, given at whole radii 0, 1, 2 ... pixel, from the pixels within ``reach`` of (y, x)."""
    ny, nx = image.shape
    last = profile.size - 1
    for j in range(max(y - reach, 0), min(y + reach + 1, ny)):
        for i in range(max(x - reach, 0), min(x + reach + 1, nx)):
            r = np.sqrt(float((j - y) ** 2 + (i - x) ** 2))
            if r < last:
                image[j, i] -= _level(profile, r)
