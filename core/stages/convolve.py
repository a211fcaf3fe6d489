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

_BATCH = 8
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

    By FFT over tiles of 192 or 256 pixels that overlap by the kernels' width. Inside a tile the kernel varies linearly
    with the position of the source pixel (a constant kernel would leave steps of 0.3 % of a star between tiles); the
    whitening kernel is constant there. Pixels outside the frame count as zero. The kernel's width costs nothing.
    """
    margin = kernel.half_width + (whitening.half_width if whitening is not None else 0)
    tile = 192 if margin <= 26 else 256
    step = tile - 2 * margin
    kernel_hat = _transform(kernel, tile)
    whitening_hat = _transform(whitening, tile) if whitening is not None else None
    ny, nx = out.shape
    n_x = -(-nx // step)
    shape = (_BATCH, tile, tile)
    buffer: Float32 = workspace.array("difference.tiles", shape)  # type: ignore[assignment]
    ramped: Float32 = workspace.array("difference.tiles_ramped", shape)  # type: ignore[assignment]
    for y0 in range(-margin, ny - margin, step):
        for first in range(0, n_x, _BATCH):
            n = min(_BATCH, n_x - first)
            first_x = first * step - margin
            tiles, ramp = buffer[:n], ramped[:n]
            x = first_x + step * np.arange(n) + (tile - 1) / 2
            y = np.full(n, y0 + (tile - 1) / 2)
            gather_tiles(convolved, y0, first_x, step, tiles)
            result = scipy.fft.rfft2(tiles)
            result *= _combine(kernel_hat, kernel.terms(x, y))
            for axis in (0, 1) if kernel.order > 0 or kernel.maps is not None else ():
                ramp_tiles(tiles, 1.0, axis, ramp)
                slope = _combine(kernel_hat, kernel.slopes(x, y, axis))
                slope *= scipy.fft.rfft2(ramp)
                result += slope
            if whitening is not None and whitening_hat is not None:
                gather_tiles(plain, y0, first_x, step, tiles)
                np.subtract(scipy.fft.rfft2(tiles), result, out=result)
                result *= _combine(whitening_hat, whitening.terms(x, y))
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
