"""Cut a frame in overlapping tiles for FFT convolution and put the tiles' valid centers back."""

import numpy as np
from numpy.typing import NDArray

from core.kernels.decorator import kernel

Float32 = NDArray[np.float32]


@kernel
def gather_tiles(image: Float32, y0: int, first_x: int, step: int, tiles: Float32) -> None:
    """``tiles[n]`` = the (t, t) square of ``image`` at (y0, first_x + n * step); zero outside the image."""
    ny, nx = image.shape
    t = tiles.shape[1]
    for n in range(tiles.shape[0]):
        x0 = first_x + n * step
        left, right = max(0, -x0), max(0, min(t, nx - x0))
        for j in range(t):
            y = y0 + j
            row = tiles[n, j]
            if y < 0 or y >= ny or right <= left:
                row[:] = 0
                continue
            row[:left] = 0
            row[right:] = 0
            row[left:right] = image[y, x0 + left : x0 + right]


@kernel
def ramp_tiles(tiles: Float32, slope: float, axis: int, out: Float32) -> None:
    """``out`` = tiles times the offset from their center along ``axis`` (0: y, 1: x), times ``slope``."""
    t = tiles.shape[1]
    center = (t - 1) / 2
    for n in range(tiles.shape[0]):
        for j in range(t):
            row, to = tiles[n, j], out[n, j]
            if axis == 0:
                factor = np.float32(slope * (j - center))
                for i in range(t):
                    to[i] = factor * row[i]
            else:
                for i in range(t):
                    to[i] = np.float32(slope * (i - center)) * row[i]


@kernel
def scatter_tiles(tiles: Float32, margin: int, y0: int, first_x: int, step: int, image: Float32) -> None:
    """Write the central ``step`` pixels square of each tile, beginning ``margin`` inside it, to the image."""
    ny, nx = image.shape
    for n in range(tiles.shape[0]):
        x0 = first_x + n * step + margin
        width = min(step, nx - x0)
        for j in range(step):
            y = y0 + margin + j
            if 0 <= y < ny and width > 0:
                image[y, x0 : x0 + width] = tiles[n, margin + j, margin : margin + width]
