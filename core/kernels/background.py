"""Sky of a mesh of cells, and its subtraction by bicubic interpolation."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.flags import Mask
from core.kernels.decorator import fast_kernel, kernel

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
UInt16 = NDArray[np.uint16]

N_BINS: Final = 480
"""Bins of a cell's histogram, over 12 sigma around the first median."""
_HALF_RANGE: Final = 6.0
_SAMPLE: Final = 256
_NODATA = np.uint16(Mask.NODATA)


@kernel
def _sample_cell(
    image: Float32, mask: UInt16, y0: int, y1: int, x0: int, x1: int, skip: np.uint16, sample: Float32
) -> int:
    """Fill ``sample`` with unmasked pixels spread over the cell; returns how many."""
    step = max(int(np.sqrt((y1 - y0) * (x1 - x0) / sample.size)) + 1, 1)
    n = 0
    for y in range(y0 + step // 2, y1, step):
        for x in range(x0 + (y % 3) * step // 3, x1, step):
            if n < sample.size and mask[y, x] & skip == 0:
                sample[n] = image[y, x]
                n += 1
    return n


@kernel
def _clipped_mode(histogram: Int64, low: float, width: float) -> tuple[float, float]:
    """Mode and sigma of a histogram, clipped at 3 sigma around its median until that changes nothing.

    The mode is 2.5 median - 1.5 mean, as in SExtractor (Bertin & Arnouts 1996, section 3), the median where the
    distribution is too skewed for that.
    """
    first, last = 0, histogram.size
    median, mean, sigma = np.nan, np.nan, np.nan
    for _ in range(12):
        n, s1, s2 = 0, 0.0, 0.0
        for i in range(first, last):
            h = histogram[i]
            n += h
            s1 += h * i
            s2 += h * np.float64(i) * i
        if n < 8:
            break
        half, count, middle = 0.5 * n, 0, np.float64(first)
        for i in range(first, last):
            if count + histogram[i] >= half:
                middle = i + (half - count) / histogram[i] - 0.5
                break
            count += histogram[i]
        spread = np.sqrt(max(s2 / n - (s1 / n) ** 2, 1.0 / 12.0))
        mean, median, sigma = s1 / n, middle, spread
        new_first = max(int(np.floor(middle - 3 * spread)), 0)
        new_last = min(int(np.ceil(middle + 3 * spread)) + 1, histogram.size)
        if new_first <= first and new_last >= last:
            break
        first, last = max(new_first, first), min(new_last, last)
    mode = 2.5 * median - 1.5 * mean if abs(mean - median) < 0.3 * sigma else median
    return low + (mode + 0.5) * width, sigma * width


@kernel
def mesh_statistics(
    image: Float32, mask: UInt16, edges_y: Int64, edges_x: Int64, skip: np.uint16, row_step: int, min_fraction: float,
    level: Float32, sigma: Float32,
) -> None:  # fmt: skip
    """Clipped mode and noise of each cell; NaN where fewer than ``min_fraction`` of its pixels are usable.

    Parameters
    ----------
    image : (ny, nx).    mask : pixels with a bit of ``skip`` are left out.
    edges_y : (n_cy + 1,), edges_x : (n_cx + 1,) first pixels of the cells.    row_step : every such row is used.
    level, sigma : (n_cy, n_cx) outputs in the image's unit.
    """
    sample = np.empty(_SAMPLE, np.float32)
    histogram = np.zeros(N_BINS + 2, np.int64)
    for cy in range(level.shape[0]):
        for cx in range(level.shape[1]):
            y0, y1 = int(edges_y[cy]), int(edges_y[cy + 1])
            x0, x1 = int(edges_x[cx]), int(edges_x[cx + 1])
            level[cy, cx] = sigma[cy, cx] = np.nan
            n = _sample_cell(image, mask, y0, y1, x0, x1, skip, sample)
            if n < max(8.0, min_fraction * _SAMPLE * 0.5):
                continue
            ordered = np.sort(sample[:n])
            median = np.float64(ordered[n // 2])
            # the lower half alone: sources only add
            spread = max(median - np.float64(ordered[int(0.1587 * n)]), 1e-6 + 1e-7 * abs(median))
            low = median - _HALF_RANGE * spread
            width = 2 * _HALF_RANGE * spread / N_BINS
            low32, scale = np.float32(low), np.float32(1.0 / width)
            histogram[:] = 0
            used = 0
            for y in range(y0, y1, row_step):
                for x in range(x0, x1):
                    # first and last bin hold what lies outside
                    b = int(min(max((image[y, x] - low32) * scale + np.float32(1.0), 0.0), N_BINS + 1.0))
                    good = int(mask[y, x] & skip == 0)
                    histogram[b] += good
                    used += good
            if used * row_step < min_fraction * (y1 - y0) * (x1 - x0):
                continue
            level[cy, cx], sigma[cy, cx] = _clipped_mode(histogram[1 : N_BINS + 1], low, width)


@fast_kernel
def subtract_mesh(
    image: Float32, variance: Float32, mask: UInt16, mesh: Float32, sigma: float, photon_noise: float
) -> None:
    """Subtract the bicubic (Catmull-Rom) interpolation of ``mesh`` and let the variance follow the expected sky.

    A pixel's own noise in its Poisson variance would give low pixels more weight; up to 2 sigma above the sky the
    variance is that of the sky, from 4 sigma the pixel's own, linear in between.

    Parameters
    ----------
    image, variance, mask : (ny, nx), image and variance in place; image 0 where NODATA.
    mesh : (n_cy + 4, n_cx + 4) values at the cells' centers with two more cells on each side.
    sigma : noise of a pixel of sky.    photon_noise : variance of a unit of the image, 1 for electrons.
    """
    ny, nx = image.shape
    n_cy, n_cx = mesh.shape[0] - 4, mesh.shape[1] - 4
    line = np.empty(mesh.shape[1], np.float32)
    zero, one, two, half = np.float32(0.0), np.float32(1.0), np.float32(2.0), np.float32(0.5)
    step = np.float32(n_cx / nx)
    per_sigma, per_unit = np.float32(0.5 / sigma), np.float32(photon_noise)
    for y in range(ny):
        position = (y + 0.5) * n_cy / ny - 0.5
        iy = int(np.floor(position))
        t = position - iy
        w0, w1 = ((-0.5 * t + 1.0) * t - 0.5) * t, (1.5 * t - 2.5) * t * t + 1.0
        w2, w3 = ((-1.5 * t + 2.0) * t + 0.5) * t, (0.5 * t - 0.5) * t * t
        for i in range(line.size):
            line[i] = w0 * mesh[iy + 1, i] + w1 * mesh[iy + 2, i] + w2 * mesh[iy + 3, i] + w3 * mesh[iy + 4, i]
        for ix in range(-1, n_cx):
            x0 = max(int(np.ceil((ix + 0.5) * nx / n_cx - 0.5)), 0)
            x1 = min(int(np.ceil((ix + 1.5) * nx / n_cx - 0.5)), nx)
            a, b, c, d = line[ix + 1], line[ix + 2], line[ix + 3], line[ix + 4]
            c1 = np.float32(0.5) * (c - a)
            c2 = a - np.float32(2.5) * b + np.float32(2.0) * c - np.float32(0.5) * d
            c3 = np.float32(1.5) * (b - c) + np.float32(0.5) * (d - a)
            begin = np.float32((x0 + 0.5) * n_cx / nx - 0.5 - ix)
            n = x1 - x0
            values, spreads, bits = image[y, x0:x1], variance[y, x0:x1], mask[y, x0:x1]
            # ternaries instead of min and max, so that it runs on vectors
            for i in range(n):
                u = begin + np.float32(i) * step
                value = values[i] - (((c3 * u + c2) * u + c1) * u + b)
                own = two - value * per_sigma
                own = own if own < one else one
                own = own if own > zero else zero
                v = spreads[i]
                sky = v - own * per_unit * value
                least = half * v
                spreads[i] = sky if sky > least else least
                values[i] = zero if bits[i] & _NODATA else value
