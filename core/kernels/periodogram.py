"""Sums of a light curve's points over a grid of frequencies: a nonuniform Fourier transform by Gaussian gridding."""

from math import exp, pi
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.kernels.decorator import kernel

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

SPREAD: Final = 8
"""Grid points to each side of a point that it is spread over: errors of 1e-8 of the sum of the weights."""
OVERSAMPLING: Final = 2


def spread_width(n_modes: int) -> float:
    """Width parameter tau of the Gaussian (Greengard & Lee 2004, SIAM Review 46, 443, eq. 13)."""
    return pi * SPREAD / (n_modes * n_modes * OVERSAMPLING * (OVERSAMPLING - 0.5))


@kernel
def spread_points(phase: Float64, weight: Float64, tau: float, grid: Float64) -> None:
    """Add points to a periodic grid, each as a Gaussian.

    Parameters
    ----------
    phase : (n,) places in 0-1, a period being the whole grid.    weight : (n,).
    tau : of :func:`spread_width`.    grid : (m,), added to.
    """
    size = grid.size
    step = 2 * pi / size
    for j in range(phase.size):
        place = phase[j] * size
        nearest = int(np.floor(place + 0.5))
        for offset in range(-SPREAD, SPREAD + 1):
            distance = (nearest + offset - place) * step
            grid[(nearest + offset) % size] += weight[j] * exp(-distance * distance / (4 * tau))
