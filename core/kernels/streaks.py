"""Find straight tracks across a difference image and mask them."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.flags import Mask
from core.kernels.decorator import fast_kernel, kernel

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
MaskArray = NDArray[np.uint16]

_STREAK: Final = np.uint16(Mask.STREAK)


@kernel
def bin_snr(
    image: Float32, variance: Float32, mask: MaskArray, excluded: int, cell: int, limit: float, out: Float32
) -> None:
    """S/N of the sum of every other row of each cell, within ``limit`` of zero; NaN where under half is usable.

    Parameters
    ----------
    image, variance, mask : (ny, nx).    excluded : bits of pixels left out.
    cell : side of a cell [pixel].    out : (ny // cell, nx // cell).
    """
    for cy in range(out.shape[0]):
        for cx in range(out.shape[1]):
            total, noise, n = 0.0, 0.0, 0
            for y in range(cy * cell, (cy + 1) * cell, 2):
                for x in range(cx * cell, (cx + 1) * cell):
                    if mask[y, x] & excluded == 0:
                        total += image[y, x]
                        noise += variance[y, x]
                        n += 1
            if 4 * n >= cell * cell and noise > 0:
                out[cy, cx] = min(max(total / np.sqrt(noise), -limit), limit)
            else:
                out[cy, cx] = np.nan


@fast_kernel
def sum_lines(snr: Float32, usable: Float32, slopes: Float64, total: Float32, count: Float32) -> None:
    """Radon transform: sums along lines that take one cell a row, ``x = i - n_y + round(y slope)``, and their cells.

    A row is added to all lines of one slope at once, moved by a whole number of cells: contiguous sums that run on
    vectors. Lines nearer to the rows than 45 degrees are those of the transposed arrays.

    Parameters
    ----------
    snr : (n_y, n_x), 0 where not usable.    usable : (n_y, n_x) 1 where a cell counts, else 0.
    slopes : (n_slopes,) within -1 and 1.    total, count : (n_slopes, n_x + 2 n_y) outputs by i.
    """
    n_y, n_x = snr.shape
    for a in range(slopes.size):
        sums, numbers = total[a], count[a]
        sums[:] = 0
        numbers[:] = 0
        for y in range(n_y):
            first = n_y - int(np.floor(y * slopes[a] + 0.5))
            to_sums, to_numbers = sums[first : first + n_x], numbers[first : first + n_x]
            values, ones = snr[y], usable[y]
            for x in range(n_x):
                to_sums[x] += values[x]
                to_numbers[x] += ones[x]


@kernel
def profile_along(
    image: Float32,
    variance: Float32,
    mask: MaskArray,
    excluded: int,
    line: Float64,
    half: int,
    limit: float,
    total: Float64,
    count: Float64,
) -> None:
    """Mean S/N of pixels by distance from a line, in segments along it.

    Parameters
    ----------
    line : (3,) cosine, sine and r: ``x cosine + y sine = r`` [pixel].    half : farthest distance [pixel].
    limit : a pixel counts for at most this S/N.
    total, count : (n_segments, 2 half + 1), segments of equal length over the frame's diagonal.
    """
    ny, nx = image.shape
    total[:] = 0
    count[:] = 0
    c, s, r = line[0], line[1], line[2]
    diagonal = np.hypot(nx, ny)
    n_segments = total.shape[0]
    for y in range(ny):
        # the stretch of the row that lies within ``half`` of the line
        if abs(c) * nx > half:
            middle, width = (r - y * s) / c, (half + 0.5) / abs(c)
            x0, x1 = max(int(np.floor(middle - width)), 0), min(int(np.ceil(middle + width)) + 1, nx)
        else:
            x0, x1 = 0, nx
        for x in range(x0, x1):
            d = int(np.floor(x * c + y * s - r + 0.5)) + half
            if d < 0 or d > 2 * half or mask[y, x] & excluded or not variance[y, x] > 0:
                continue
            along = int(((y * c - x * s) / diagonal + 1) / 2 * n_segments)
            value = image[y, x] / np.sqrt(variance[y, x])
            total[along, d] += min(max(value, -limit), limit)
            count[along, d] += 1


@kernel
def mask_line(mask: MaskArray, line: Float64, low: float, high: float) -> int:
    """Set STREAK from ``low`` to ``high`` of a line [pixel]; gives the pixels set."""
    ny, nx = mask.shape
    c, s, r = line[0], line[1], line[2]
    n = 0
    reach = max(abs(low), abs(high))
    for y in range(ny):
        x0, x1 = 0, nx
        if abs(c) * nx > reach:
            middle, width = (r - y * s) / c, (reach + 1) / abs(c)
            x0, x1 = min(max(int(np.floor(middle - width)), 0), nx), min(max(int(np.ceil(middle + width)) + 1, 0), nx)
        for x in range(x0, x1):
            d = x * c + y * s - r
            if low <= d <= high:
                mask[y, x] |= _STREAK
                n += 1
    return n
