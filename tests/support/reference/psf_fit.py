"""Plain NumPy twins of ``core.kernels.psf_fit``."""

import numpy as np
from numpy.typing import NDArray

from tests.support.reference.sinc import kaiser_sinc

Float64 = NDArray[np.float64]


def shifted(image: Float64, dx: float, dy: float) -> Float64:
    """Image moved by (dx, dy) pixels with unit-sum, Kaiser-windowed weights; zero beyond its edges."""
    axis = np.arange(image.shape[0])
    matrices = []
    for shift in (dy, dx):
        weights = kaiser_sinc(axis[:, None] - shift - np.arange(-10, axis.size + 10)[None, :], 4.0, 6.5)
        weights /= weights.sum(axis=1, keepdims=True)
        matrices.append(weights[:, 10:-10])
    return np.asarray(matrices[0] @ image @ matrices[1].T)


def fit_pixels(stamps: Float64, weights: Float64, terms: Float64) -> Float64:
    """Weighted least squares at every pixel, no clipping: (n_terms, k, k)."""
    k = stamps.shape[1]
    out = np.empty((terms.shape[1], k, k))
    for j in range(k):
        for c in range(k):
            root = np.sqrt(weights[:, j, c])
            out[:, j, c] = np.linalg.lstsq(terms * root[:, None], stamps[:, j, c] * root, rcond=None)[0]
    return out
