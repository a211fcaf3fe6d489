"""Resampling of template inputs to the tract: Lanczos-3 with the variance propagated and saturation carried along."""

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.simulator.drawing import jit

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
UInt8 = NDArray[np.uint8]

PHASES: Final = 512
TAPS: Final = 6
STEP: Final = 32
"""Pixels between nodes of the coordinate map; it is interpolated bilinearly between them."""


@cache
def lanczos_table() -> Float32:
    """(PHASES + 1, 6) weights of taps -2..3 for fractions 0..1, each row of unit sum."""
    t = np.linspace(0, 1, PHASES + 1)[:, None]
    d = np.arange(-2, 4)[None, :] - t
    weights = np.sinc(d) * np.sinc(d / 3) * (np.abs(d) < 3)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


LANCZOS_VARIANCE: Final = float(np.square(lanczos_table()).sum(axis=1).mean()) ** 2
"""Mean factor by which resampling lowers the variance of a pixel (about 0.75): the rest is in its correlations."""


@jit
def _warp(
    image: Float32,
    variance: Float32,
    saturated: UInt8,
    table: Float32,
    node_x: Float64,
    node_y: Float64,
    node_area: Float64,
    box: NDArray[np.int64],
    weight: float,
    sum_image: Float32,
    sum_variance: Float32,
    sum_weight: Float32,
    any_saturated: UInt8,
) -> None:
    """Add ``weight`` times the resampled input to the sums in ``box`` = (y0, y1, x0, x1) of the output.

    The nodes map every STEP-th output pixel to input (x, y) and to the area of an output pixel in input pixels. Pixels
    whose 36 taps are not all inside the input get nothing.
    """
    ny, nx = image.shape
    for y in range(box[0], box[1]):
        j = y // STEP
        fy = (y - j * STEP) / STEP
        for x in range(box[2], box[3]):
            i = x // STEP
            fx = (x - i * STEP) / STEP
            a, b, c, d = (1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx
            u = a * node_x[j, i] + b * node_x[j, i + 1] + c * node_x[j + 1, i] + d * node_x[j + 1, i + 1]
            v = a * node_y[j, i] + b * node_y[j, i + 1] + c * node_y[j + 1, i] + d * node_y[j + 1, i + 1]
            if not (2 <= u < nx - 4 and 2 <= v < ny - 4):
                continue
            area = a * node_area[j, i] + b * node_area[j, i + 1] + c * node_area[j + 1, i] + d * node_area[j + 1, i + 1]
            iu, iv = int(u), int(v)
            wx = table[int((u - iu) * PHASES + 0.5)]
            wy = table[int((v - iv) * PHASES + 0.5)]
            value, noise, hit = np.float32(0), np.float32(0), np.uint8(0)
            for p in range(TAPS):
                row, row_noise = np.float32(0), np.float32(0)
                for q in range(TAPS):
                    row += wx[q] * image[iv - 2 + p, iu - 2 + q]
                    row_noise += wx[q] * wx[q] * variance[iv - 2 + p, iu - 2 + q]
                value += wy[p] * row
                noise += wy[p] * wy[p] * row_noise
            for p in range(1, 5):
                for q in range(1, 5):
                    hit |= saturated[iv - 2 + p, iu - 2 + q]
            sum_image[y, x] += np.float32(weight * area) * value
            sum_variance[y, x] += np.float32((weight * area) ** 2) * noise
            sum_weight[y, x] += np.float32(weight)
            any_saturated[y, x] |= hit


class Coadd:
    """Sums of a weighted mean over one box of the tract, ``shape`` (ny, nx)."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.image = np.zeros(shape, np.float32)
        self.variance = np.zeros(shape, np.float32)
        self.weight = np.zeros(shape, np.float32)
        self.saturated = np.zeros(shape, np.uint8)

    def add(
        self,
        image: Float32,
        variance: Float32,
        saturated: UInt8,
        nodes: tuple[Float64, Float64, Float64],
        weight: float,
        box: tuple[int, int, int, int] | None = None,
    ) -> None:
        """Resample one input into the sums, or only into ``box``."""
        where = np.array(box or (0, self.image.shape[0], 0, self.image.shape[1]))
        _warp(
            image, variance, saturated, lanczos_table(), *nodes, where, weight, self.image, self.variance, self.weight,
            self.saturated,
        )  # fmt: skip

    def finish(self) -> None:
        """Turn the sums into mean and variance of the mean; zero where no input reached."""
        has = self.weight > 0
        np.divide(self.image, self.weight, out=self.image, where=has)
        np.divide(self.variance, self.weight * self.weight, out=self.variance, where=has)
