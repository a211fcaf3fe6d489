"""Windowed sincs as their definitions say."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


def kaiser_sinc(distance: Float64, half_width: float, beta: float) -> Float64:
    """Sinc under a Kaiser window, not normalized."""
    inside = np.maximum(1 - np.square(distance / half_width), 0)
    return np.where(np.abs(distance) <= half_width, np.sinc(distance) * np.i0(beta * np.sqrt(inside)), 0.0)


def sinc_at(
    image: Float64, x: float, y: float, order: int = 3, window: Literal["kaiser", "lanczos"] = "kaiser"
) -> float:
    """Interpolation of an image at one position: the defining sum, normalized."""
    iy, ix = int(np.floor(y)), int(np.floor(x))
    rows, columns = np.arange(iy - order + 1, iy + order + 1), np.arange(ix - order + 1, ix + order + 1)
    distances = (y - rows, x - columns)
    if window == "lanczos":
        wy, wx = (np.sinc(d) * np.sinc(d / order) for d in distances)
    else:
        wy, wx = (kaiser_sinc(d, order, {3: 5.0, 4: 6.5}[order]) for d in distances)
    return float(wy @ image[np.ix_(rows, columns)] @ wx / (wy.sum() * wx.sum()))
