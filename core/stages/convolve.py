"""Convolve a frame with a kernel that varies over it, and whiten the difference in the same pass."""

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from core.kernels.tiles import gather_tiles, ramp_tiles, scatter_tiles
from core.stages.kernel_field import KernelField
from core.workspace import Workspace

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Complex64 = NDArray[np.complex64]

_BATCH = 4
"""Tiles in flight: few enough to stay in the cache."""


def subtract_convolved(
    plain: Float32,
    convolved: Float32,
    kernel: KernelField,
    whitening: KernelField | None,
    sign: int,
    out: Float32,
    workspace: Workspace,
) -> None:
    """``out = sign * whitening * (plain - kernel * convolved)``, ``*`` being convolution, of (ny, nx) float32 planes.

    By FFT over tiles of 256 pixels that overlap by the kernels' width. Inside a tile the kernel varies linearly
    with the position of the source pixel (a constant kernel would leave steps of 0.3 % of a star between tiles); the
    whitening kernel is constant there. Pixels outside the frame count as zero. The kernel's width costs nothing.
    """
    margin = kernel.half_width + (whitening.half_width if whitening is not None else 0)
    tile = 256
    step = tile - 2 * margin
    kernel_hat = _transform(kernel, tile)
    whitening_hat = _transform(whitening, tile) if whitening is not None else None
    ny, nx = out.shape
    n_x = -(-nx // step)
    shape = (_BATCH, tile, tile)
    buffer: Float32 = workspace.array("difference.tiles", shape)  # type: ignore[assignment]
    ramped: Float32 = workspace.array("difference.tiles_ramped", shape)  # type: ignore[assignment]
    rows = range(-margin, ny - margin, step)
    is_ramped = kernel.order > 0 or kernel.maps is not None
    middle_y, middle_x = (np.arange(count) * step - margin + (tile - 1) / 2 for count in (len(rows), n_x))
    grid_x, grid_y = np.meshgrid(middle_x, middle_y)
    terms = kernel.terms(grid_x, grid_y)
    slopes = [kernel.slopes(grid_x, grid_y, axis) for axis in ((0, 1) if is_ramped else ())]
    whitening_terms = whitening.terms(grid_x, grid_y) if whitening is not None else None
    for row, y0 in enumerate(rows):
        for first in range(0, n_x, _BATCH):
            n = min(_BATCH, n_x - first)
            first_x = first * step - margin
            tiles, ramp = buffer[:n], ramped[:n]
            here = (row, slice(first, first + n))
            gather_tiles(convolved, y0, first_x, step, tiles)
            result = scipy.fft.rfft2(tiles)
            result *= _combine(kernel_hat, terms[here])
            for axis, slope_terms in enumerate(slopes):
                ramp_tiles(tiles, 1.0, axis, ramp)
                slope = _combine(kernel_hat, slope_terms[here])
                slope *= scipy.fft.rfft2(ramp)
                result += slope
            if whitening_terms is not None and whitening_hat is not None:
                gather_tiles(plain, y0, first_x, step, tiles)
                np.subtract(scipy.fft.rfft2(tiles), result, out=result)
                result *= _combine(whitening_hat, whitening_terms[here])
                tiles = scipy.fft.irfft2(result, s=(tile, tile), overwrite_x=True)
            else:
                matched = scipy.fft.irfft2(result, s=(tile, tile), overwrite_x=True)
                gather_tiles(plain, y0, first_x, step, tiles)
                tiles -= matched
            if sign < 0:
                np.negative(tiles, out=tiles)
            scatter_tiles(tiles, margin, y0, first_x, step, out)


def _transform(kernel: KernelField, tile: int) -> Complex64:
    """(n_terms, tile, tile // 2 + 1) transforms of the coefficient images, centered on pixel (0, 0)."""
    k = kernel.coefficients.shape[1]
    padded = np.zeros((kernel.coefficients.shape[0], tile, tile), np.float32)
    padded[:, :k, :k] = kernel.coefficients
    padded = np.roll(padded, (-(k // 2), -(k // 2)), axis=(1, 2))
    return np.asarray(scipy.fft.rfft2(padded), np.complex64)


def _combine(transforms: Complex64, terms: Float64) -> Complex64:
    """(n, tile, tile // 2 + 1): sums of the coefficients' transforms with the terms of each tile."""
    flat = transforms.reshape(transforms.shape[0], -1).view(np.float32)
    combined = terms.astype(np.float32) @ flat
    return combined.view(np.complex64).reshape(-1, *transforms.shape[1:])
