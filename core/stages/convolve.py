"""Convolve a frame with a kernel that varies over it, and whiten the difference in the same pass."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from core.kernels.tiles import gather_tiles, ramp_tiles, scatter_tiles
from core.stages.kernel_field import KernelField
from core.workspace import Workspace, bands

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Complex64 = NDArray[np.complex64]

_TILE: Final = 256
_BATCH: Final = 4
"""Tiles in flight: few enough to stay in the cache."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """Kernels as transforms, and their terms at the middles of the tiles: (n_y, n_x, n_terms)."""

    margin: int
    kernel: Complex64
    terms: Float64
    slopes: tuple[Float64, ...]
    whitening: Complex64 | None
    whitening_terms: Float64 | None
    sign: int

    @property
    def step(self) -> int:
        """From tile to tile [pixel]."""
        return _TILE - 2 * self.margin


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
    whitening kernel is constant there. Pixels outside the frame count as zero. The kernel's width costs only
    in the overlap.
    """
    margin = kernel.half_width + (whitening.half_width if whitening is not None else 0)
    step = _TILE - 2 * margin
    is_ramped = kernel.order > 0 or kernel.maps is not None
    y, x = (np.arange(-(-n // step)) * step - margin + (_TILE - 1) / 2 for n in out.shape)
    grid_x, grid_y = np.meshgrid(x, y)
    plan = _Plan(
        margin=margin,
        kernel=_transform(kernel),
        terms=kernel.terms(grid_x, grid_y),
        slopes=tuple(kernel.slopes(grid_x, grid_y, axis) for axis in ((0, 1) if is_ramped else ())),
        whitening=_transform(whitening) if whitening is not None else None,
        whitening_terms=whitening.terms(grid_x, grid_y) if whitening is not None else None,
        sign=sign,
    )
    rows = bands(y.size, workspace.n_threads)
    buffers: Float32 = workspace.array("difference.tiles", (len(rows), 2, _BATCH, _TILE, _TILE))  # type: ignore[assignment]

    def subtract_rows(part: int) -> None:
        for row in range(*rows[part]):
            _subtract_row(plan, plain, convolved, row, buffers[part], out)

    workspace.share(subtract_rows, range(len(rows)))


def _subtract_row(plan: _Plan, plain: Float32, convolved: Float32, row: int, buffers: Float32, out: Float32) -> None:
    """One row of tiles, a batch after the other."""
    n_x = plan.terms.shape[1]
    y0 = row * plan.step - plan.margin
    for first in range(0, n_x, _BATCH):
        n = min(_BATCH, n_x - first)
        tiles, ramp = buffers[0, :n], buffers[1, :n]
        at, here = (y0, first * plan.step - plan.margin, plan.step), (row, slice(first, first + n))
        gather_tiles(convolved, *at, tiles)
        result = scipy.fft.rfft2(tiles)
        result *= _combine(plan.kernel, plan.terms[here])
        for axis, slopes in enumerate(plan.slopes):
            ramp_tiles(tiles, 1.0, axis, ramp)
            slope = _combine(plan.kernel, slopes[here])
            slope *= scipy.fft.rfft2(ramp)
            result += slope
        gather_tiles(plain, *at, tiles)
        if plan.whitening is not None and plan.whitening_terms is not None:
            np.subtract(scipy.fft.rfft2(tiles), result, out=result)
            result *= _combine(plan.whitening, plan.whitening_terms[here])
            tiles = scipy.fft.irfft2(result, s=(_TILE, _TILE), overwrite_x=True)
        else:
            tiles -= scipy.fft.irfft2(result, s=(_TILE, _TILE), overwrite_x=True)
        if plan.sign < 0:
            np.negative(tiles, out=tiles)
        scatter_tiles(tiles, plan.margin, *at, out)


def _transform(kernel: KernelField) -> Complex64:
    """(n_terms, tile, tile // 2 + 1) transforms of the coefficient images, centered on pixel (0, 0)."""
    k = kernel.coefficients.shape[1]
    padded = np.zeros((kernel.coefficients.shape[0], _TILE, _TILE), np.float32)
    padded[:, :k, :k] = kernel.coefficients
    padded = np.roll(padded, (-(k // 2), -(k // 2)), axis=(1, 2))
    return np.asarray(scipy.fft.rfft2(padded), np.complex64)


def _combine(transforms: Complex64, terms: Float64) -> Complex64:
    """(n, tile, tile // 2 + 1): sums of the coefficients' transforms with the terms of each tile."""
    flat = transforms.reshape(transforms.shape[0], -1).view(np.float32)
    combined = terms.astype(np.float32) @ flat
    return combined.view(np.complex64).reshape(-1, *transforms.shape[1:])
