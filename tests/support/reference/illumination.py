"""Plain NumPy twin of ``core.kernels.illumination``."""

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


def scale_at(shape: tuple[int, int], scale: float, magnitudes: Float64) -> Float64:
    """(ny, nx) factor ``scale * 10**(-0.4 m)``, m a quadratic in the pixel scaled to [-1, 1]."""
    v, u = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    terms = np.stack([np.ones_like(u), u, v, u**2, u * v, v**2])
    return np.asarray(scale * 10 ** (-0.4 * np.tensordot(magnitudes, terms, axes=1)), np.float64)
