"""Planes of a difference image: variance, mask, background."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.flags import Mask
from core.kernels.decorator import fast_kernel, kernel

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
MaskArray = NDArray[np.uint16]

_NODATA: Final = int(Mask.NODATA)
_EDGE: Final = int(Mask.EDGE)
_SAT: Final = int(Mask.SAT)
_SCRATCH: Final = np.uint16(1 << 15)
BLOCK: Final = 8
"""Side of the squares that share an error of the model [pixel]."""
_PIECE: Final = 512
"""Pixels of a row looked at together."""
_SAT_TEMPLATE: Final = int(Mask.SAT_TEMPLATE)
_SPREAD: Final = 0xFFFF & ~int(Mask.DETECTED | Mask.DETECTED_NEGATIVE)
"""Bits that a convolution spreads: all but the footprints."""
_NOT_SKY: Final = 0xFFFF & ~int(Mask.HIGH_VARIANCE | Mask.INJECTED | Mask.INJECTED_TEMPLATE | Mask.SUSPECT)
"""Pixels with any of these bits measure neither background nor noise."""


@fast_kernel
def smooth_variance(variance: Float32, mask: MaskArray, taps: Float32, row: Float32, out: Float32) -> None:
    """Convolve with a separable symmetric kernel of unit sum; pixels without data count as zero.

    Parameters
    ----------
    variance, mask : (ny, nx).    taps : (h + 1,) center and one side.    row : (nx + 2 h,) scratch.    out : (ny, nx).
    """
    ny, nx = variance.shape
    h = taps.size - 1
    row[:] = 0
    for y in range(ny):
        for x in range(nx):
            row[h + x] = 0 if mask[y, x] & _NODATA else variance[y, x]
        to = out[y]
        for x in range(nx):
            to[x] = taps[0] * row[h + x]
        for t in range(1, h + 1):
            left, right = row[h - t : h - t + nx], row[h + t : h + t + nx]
            for x in range(nx):
                to[x] += taps[t] * (left[x] + right[x])


@fast_kernel
def combine_variance(
    plain_image: Float32,
    plain_variance: Float32,
    smoothed: Float32,
    taps: Float32,
    factor: float,
    fractions: Float32,
    offset: float,
    is_plain_science: bool,
    scale: float,
    halo_fraction: float,
    first: int,
    last: int,
    rows: Float32,
    difference: Float32,
    variance: Float32,
    mask: MaskArray,
) -> None:
    """Variance of the difference, and both put on the science image's flux scale, in one pass.

    In the blocks of ``halo_fraction`` (around saturated stars) SAT is set where that error exceeds the noise: nothing
    can be found there.

    ``variance = scale**2 (plain + factor smoothed + (fraction flux)**2 + (offset |gradient of flux|)**2)`` and
    ``difference *= scale``. ``smoothed`` is the convolved side's variance after :func:`smooth_variance` along x and is
    finished along y here. The flux is that of the template's side: ``plain - difference`` where the template was
    convolved, else ``plain``.

    Parameters
    ----------
    plain_image, plain_variance, smoothed : (ny, nx).    taps : (h + 1,) as for :func:`smooth_variance`.
    fractions : (ceil(ny/BLOCK), ceil(nx/BLOCK)): error of the model as a fraction of the flux, by block.
    offset : error of the positions [pixel].
    first, last : rows that are done, ``last`` not among them; others may be done at the same time, since the flux
        needs the neighbors' differences only where those are not scaled.
    rows : (3, nx + 2) scratch.
    difference, mask : (ny, nx), changed in place.    variance : (ny, nx) output.
    """
    ny, nx = difference.shape
    h = taps.size - 1
    k, s, f = np.float32(factor), np.float32(scale), np.float32(scale * scale)
    g = np.float32(offset * offset / 4)
    for y in range(max(first - 2, -1), last):
        # a row ahead: the gradient needs the flux of the next row
        if y + 1 < ny:
            ahead, image, d = rows[(y + 1) % 3], plain_image[y + 1], difference[y + 1]
            for x in range(nx):
                ahead[x + 1] = image[x] - d[x] if is_plain_science else image[x]
            ahead[0], ahead[nx + 1] = ahead[1], ahead[nx]
            if first <= y + 1 < last and s != 1:
                for x in range(nx):
                    d[x] *= s
        if y < first:
            continue
        v, plain, center = variance[y], plain_variance[y], smoothed[y]
        for x in range(nx):
            v[x] = taps[0] * center[x]
        for t in range(1, h + 1):
            up, down = smoothed[max(y - t, 0)], smoothed[min(y + t, ny - 1)]
            for x in range(nx):
                v[x] += taps[t] * (up[x] + down[x])
        here, below, above = rows[y % 3], rows[max(y - 1, 0) % 3], rows[min(y + 1, ny - 1) % 3]
        for block in range(fractions.shape[1]):
            a = fractions[y // BLOCK, block] ** 2
            if fractions[y // BLOCK, block] >= halo_fraction:
                for x in range(block * BLOCK, min((block + 1) * BLOCK, nx)):
                    if a * here[x + 1] * here[x + 1] > plain[x] + k * v[x]:
                        mask[y, x] |= _SAT
            for x in range(block * BLOCK, min((block + 1) * BLOCK, nx)):
                dx, dy = here[x + 2] - here[x], above[x + 1] - below[x + 1]
                systematic = a * here[x + 1] * here[x + 1] + g * (dx * dx + dy * dy)
                v[x] = f * (plain[x] + k * v[x] + systematic)


@kernel
def combine_masks(plain: MaskArray, convolved: MaskArray, radius: int, out: MaskArray) -> None:
    """``out = plain | convolved``, the bits of ``convolved`` spread by a disk of ``radius`` pixels.

    Where the template is saturated the difference is: it has SAT too. Footprints of the science image's own detections
    are dropped.
    """
    ny, nx = out.shape
    for y in range(ny):
        for x in range(nx):
            out[y, x] = (plain[y, x] | convolved[y, x]) & _SPREAD
    _spread_bits(convolved, _SPREAD, radius, out, 0)


@kernel
def close_frame(difference: Float32, variance: Float32, mask: MaskArray, edge: int, first: int, last: int) -> None:
    """Set EDGE within ``edge`` pixels of the border, and NODATA (0, variance 1) where values are not usable.

    In the rows from ``first`` to before ``last``.
    """
    ny, nx = difference.shape
    for y in range(first, last):
        is_edge_row = y < edge or y >= ny - edge
        for x in range(nx):
            if is_edge_row or x < edge or x >= nx - edge:
                mask[y, x] |= _EDGE
            v = variance[y, x]
            if mask[y, x] & _SAT_TEMPLATE:
                mask[y, x] |= _SAT
            if mask[y, x] & _NODATA or not (v > 0 and v < np.inf) or not np.isfinite(difference[y, x]):
                mask[y, x] |= _NODATA
                difference[y, x] = 0
                variance[y, x] = 1


@kernel
def _has_bits(row: MaskArray, bits: int) -> bool:
    """Whether any pixel has any of the bits; without branches, so that it runs on vectors."""
    union = 0
    for x in range(row.size):
        union |= row[x]
    return union & bits != 0


@kernel
def _spread_bits(mask: MaskArray, wanted: int, radius: int, out: MaskArray, mark: int) -> None:
    """Set in ``out`` the ``wanted`` bits of every pixel, or ``mark`` for them, within a disk of ``radius`` of it.

    Only pixels at the border of a marked region are spread (the inside adds nothing), and pieces of a row without a
    marked pixel are passed over: a frame half without data costs little more than a clean one. With a ``mark`` that is
    not wanted ``out`` may be the mask itself; 0 stands for the pixel's own bits.
    """
    ny, nx = mask.shape
    for y in range(ny):
        for x0 in range(0, nx, _PIECE):
            x1 = min(x0 + _PIECE, nx)
            if not _has_bits(mask[y, x0:x1], wanted):
                continue
            for x in range(x0, x1):
                bits = mask[y, x] & wanted
                if bits == 0:
                    continue
                if 0 < y < ny - 1 and 0 < x < nx - 1:
                    vertical, horizontal = mask[y - 1, x] & mask[y + 1, x], mask[y, x - 1] & mask[y, x + 1]
                    if vertical & horizontal & bits == bits:
                        continue
                _or_disk(out, y, x, radius, mark if mark else bits)


@kernel
def _or_disk(out: MaskArray, y: int, x: int, radius: int, bits: int) -> None:
    ny, nx = out.shape
    for j in range(max(y - radius, 0), min(y + radius, ny - 1) + 1):
        for i in range(max(x - radius, 0), min(x + radius, nx - 1) + 1):
            if (j - y) ** 2 + (i - x) ** 2 <= radius * radius:
                out[j, i] |= bits


@kernel
def grow_saturated(mask: MaskArray, radius: int) -> None:
    """Set SAT within a disk of ``radius`` of every pixel with SAT, in place; the mask's highest bit is scratch."""
    _spread_bits(mask, _SAT, radius, mask, int(_SCRATCH))
    ny, nx = mask.shape
    for y in range(ny):
        for x0 in range(0, nx, _PIECE):
            x1 = min(x0 + _PIECE, nx)
            if _has_bits(mask[y, x0:x1], int(_SCRATCH)):
                for x in range(x0, x1):
                    if mask[y, x] & _SCRATCH:
                        mask[y, x] = (mask[y, x] | _SAT) & ~_SCRATCH


@kernel
def mark_disks(mask: MaskArray, bit: np.uint16, y: Int64, x: Int64, radius: Float64) -> int:
    """Set ``bit`` within ``radius`` (n,) of the pixels (y, x), (n,); returns how many pixels got it."""
    ny, nx = mask.shape
    n = 0
    for i in range(y.size):
        reach = int(radius[i])
        for yy in range(max(y[i] - reach, 0), min(y[i] + reach + 1, ny)):
            half = int(np.sqrt(radius[i] ** 2 - (yy - y[i]) ** 2))
            for xx in range(max(x[i] - half, 0), min(x[i] + half + 1, nx)):
                n += mask[yy, xx] & bit == 0
                mask[yy, xx] |= bit
    return n


@kernel
def mesh_histograms(
    difference: Float32,
    variance: Float32,
    mask: MaskArray,
    sigma: Float32,
    limit_sigma: float,
    row_step: int,
    first: int,
    last: int,
    histograms: Int64,
) -> None:
    """Histograms of difference / sigma in the cells of a mesh, over sky pixels within ``limit_sigma``.

    Sky pixels are unmasked and have less than twice the cell's typical variance.

    Parameters
    ----------
    sigma : (n_my, n_mx) typical noise of a pixel of each cell.    row_step : every so many rows are used.
    first, last : rows of cells, ``last`` not among them.
    histograms : (n_my, n_mx, n_bins) int64 output; the bins span -limit_sigma .. +limit_sigma.
    """
    ny, nx = difference.shape
    n_my, n_mx, n_bins = histograms.shape
    histograms[first:last] = 0
    middle = np.float32(n_bins / 2)
    for y in range(0, ny, row_step):
        my = y * n_my // ny
        if my < first or my >= last:
            continue
        values, variances, bits = difference[y], variance[y], mask[y]
        for mx in range(n_mx):
            counts = histograms[my, mx]
            width = np.float32(n_bins / (2 * limit_sigma * sigma[my, mx]))
            most = np.float32(2 * sigma[my, mx] ** 2)
            for x in range(-(-mx * nx // n_mx), -(-(mx + 1) * nx // n_mx)):
                if bits[x] & _NOT_SKY == 0 and variances[x] < most:
                    value = values[x] * width + middle
                    if 0 <= value < n_bins:
                        counts[int(value)] += 1


@fast_kernel
def subtract_mesh(mesh: Float32, image: Float32) -> None:
    """Subtract from ``image`` (ny, nx) the bilinear interpolation of ``mesh`` (n_my, n_mx) given at cell centers."""
    ny, nx = image.shape
    n_my, n_mx = mesh.shape
    for y in range(ny):
        v = min(max((y + 0.5) * n_my / ny - 0.5, 0.0), n_my - 1.0)
        j = min(int(v), max(n_my - 2, 0))
        g = np.float32(v - j)
        above = min(j + 1, n_my - 1)
        row = image[y]
        # Between two cell centers the interpolation is linear in x: one contiguous run each.
        for i in range(-1, n_mx):
            low, high = max(i, 0), min(i + 1, n_mx - 1)
            a = mesh[j, low] * (1 - g) + mesh[above, low] * g
            b = mesh[j, high] * (1 - g) + mesh[above, high] * g
            first = max(0, int(np.ceil((i + 0.5) * nx / n_mx - 0.5)))
            last = min(nx, int(np.ceil((i + 1.5) * nx / n_mx - 0.5)))
            slope = (b - a) * np.float32(n_mx / nx)
            start = a + slope * np.float32(first + 0.5 - (i + 0.5) * nx / n_mx)
            for x in range(first, last):
                row[x] -= start + slope * np.float32(x - first)


@kernel
def scale_plane(image: Float32, factor: float) -> None:
    """Multiply in place."""
    k = np.float32(factor)
    for y in range(image.shape[0]):
        row = image[y]
        for x in range(row.size):
            row[x] *= k


@kernel
def sampled_snr(
    image: Float32,
    variance: Float32,
    mask: MaskArray,
    psf: Float32,
    which: Int64,
    y: Int64,
    x: Int64,
    limit: float,
    snr: Float64,
) -> None:
    """Matched-filter S/N at given pixels; NaN where the stamp leaves the image, or holds a marked pixel or one beyond
    ``limit`` sigma.

    Parameters
    ----------
    psf : (m, k, k), k odd.    which, y, x : (n,): PSF and pixel.    snr : (n,) output.
    """
    k = psf.shape[1]
    for n in range(y.size):
        y0, x0 = y[n] - k // 2, x[n] - k // 2
        snr[n] = np.nan
        if y0 < 0 or x0 < 0 or y0 + k > image.shape[0] or x0 + k > image.shape[1]:
            continue
        signal = norm = 0.0
        is_clean = True
        for j in range(k):
            for i in range(k):
                v = variance[y0 + j, x0 + i]
                d = image[y0 + j, x0 + i]
                if mask[y0 + j, x0 + i] & _NOT_SKY != 0 or d * d > limit * limit * v:
                    is_clean = False
                    break
                p = psf[which[n], j, i]
                signal += p * d / v
                norm += p * p / v
            if not is_clean:
                break
        if is_clean and norm > 0:
            snr[n] = signal / np.sqrt(norm)


@kernel
def mark_blocks(first: MaskArray, second: MaskArray, bits: int, marked: NDArray[np.bool_]) -> None:
    """True for each block in which either mask has any of the bits."""
    ny, nx = first.shape
    marked[:] = False
    for y in range(ny):
        for x0 in range(0, nx, _PIECE):
            x1 = min(x0 + _PIECE, nx)
            for row in (first[y], second[y]):
                if _has_bits(row[x0:x1], bits):
                    for x in range(x0, x1):
                        if row[x] & bits:
                            marked[y // BLOCK, x // BLOCK] = True


@kernel
def mark_bright(
    image: Float32, first: Float32, second: Float32, fraction: float, near: NDArray[np.bool_], marked: NDArray[np.bool_]
) -> None:
    """Add the blocks of ``near`` in which ``fraction`` of a pixel exceeds the noise of two variances together."""
    ny, nx = image.shape
    for y in range(ny):
        for block in range(marked.shape[1]):
            if not near[y // BLOCK, block] or marked[y // BLOCK, block]:
                continue
            for x in range(block * BLOCK, min((block + 1) * BLOCK, nx)):
                if (fraction * image[y, x]) ** 2 > first[y, x] + second[y, x]:
                    marked[y // BLOCK, block] = True
