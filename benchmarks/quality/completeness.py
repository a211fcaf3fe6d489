"""Fractions of the injections that were found, and the S/N at which half are."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import ndtr, ndtri

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

SNR_BINS: Final = ((3, 4), (4, 5), (5, 6), (6, 7), (7, 10), (10, 20), (20, 50), (50, 100))
_MIN_FOR_FIT: Final = 50


def fraction(found: Bool, snr: Float64, low: float, high: float) -> float | None:
    """Fraction found of those with S/N in [low, high); None where there are none."""
    inside = (snr >= low) & (snr < high)
    return float(found[inside].mean()) if inside.any() else None


def by_bin(found: Bool, snr: Float64) -> dict[str, float]:
    """Fraction found in each filled bin of :data:`SNR_BINS`, keyed ``"6-7"``."""
    fractions = {f"{low}-{high}": fraction(found, snr, low, high) for low, high in SNR_BINS}
    return {name: value for name, value in fractions.items() if value is not None}


def snr50(found: Bool, snr: Float64) -> float | None:
    """S/N at which half are found: maximum-likelihood fit of ``a (1 + erf((snr - s) / (w sqrt 2))) / 2``.

    None with fewer than 50 injections, or none missed, or a plateau below one half.
    """
    if found.size < _MIN_FOR_FIT or found.all() or not found.any():
        return None

    def cost(parameters: Float64) -> float:
        center, log_width, plateau = parameters
        chance = 1 / (1 + np.exp(-plateau)) * ndtr((snr - center) / np.exp(log_width))
        chance = np.clip(chance, 1e-6, 1 - 1e-6)
        return float(-np.log(np.where(found, chance, 1 - chance)).sum())

    fit = minimize(cost, np.array([5.0, 0.0, 4.0]), method="Nelder-Mead", options={"maxiter": 2000, "xatol": 1e-4})
    center, log_width, plateau = fit.x
    height = 1 / (1 + np.exp(-plateau))
    if height <= 0.5:
        return None
    return float(center + np.exp(log_width) * ndtri(0.5 / height))
