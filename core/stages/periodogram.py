"""Periods of light curves in several bands: one sinusoid through all bands, each about its own mean.

The shared-phase model of VanderPlas & Ivezic (2015, ApJ 812, 18) with one base term; the floating mean is that of
Zechmeister & Kürster (2009, A&A 496, 577). The sums over frequencies are fast Fourier transforms, so the cost does not
depend on the number of points.
"""

from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from core.kernels.periodogram import OVERSAMPLING, spread_points, spread_width

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrequencyGrid:
    """``n`` frequencies, ``step_per_day`` apart, from ``step_per_day`` on; ``n`` a power of two."""

    step_per_day: float
    n: int

    @property
    def per_day(self) -> Float64:
        """The frequencies [1/d]."""
        return self.step_per_day * np.arange(1, self.n + 1, dtype=np.float64)


class Transform:
    """Sums over points at all frequencies of a grid; holds what does not depend on the points."""

    def __init__(self, grid: FrequencyGrid) -> None:
        self.grid = grid
        n_modes = 2 * grid.n
        self._size = OVERSAMPLING * n_modes
        self._tau = spread_width(n_modes)
        k = np.arange(1, grid.n + 1)
        self._scale = np.sqrt(np.pi / self._tau) * np.exp(k * k * self._tau) / self._size
        self._buffer = np.empty(self._size)

    def sums(self, mjd: Float64, weight: Float64, harmonic: int = 1) -> NDArray[np.complex128]:
        """(n,) complex: sum of ``weight * exp(2j pi harmonic f t)`` at each frequency."""
        self._buffer[:] = 0.0
        spread_points((harmonic * self.grid.step_per_day * mjd) % 1.0, weight, self._tau, self._buffer)
        # the grid stands for the circle, its transform has the opposite sign of ours
        modes = scipy.fft.rfft(self._buffer)[1 : self.grid.n + 1]
        return np.asarray(self._scale * np.conj(modes), np.complex128)


def power(transform: Transform, mjd: Float64, flux: Float64, flux_err: Float64, band: NDArray[np.int8]) -> Float64:
    """(n,) fraction of the weighted variance about the bands' means that a sinusoid of each frequency takes away.

    Parameters
    ----------
    mjd, flux, flux_err : (points,) [d], [nJy], errors positive.    band : (points,) index of the band.
    """
    weight = 1 / flux_err**2
    weight /= weight.sum()
    total, weighted = np.bincount(band, weight), np.bincount(band, weight * flux)
    residual = flux - (weighted / np.where(total > 0, total, 1.0))[band]
    variance = float((weight * residual**2).sum())
    if not variance > 0:
        return np.zeros(transform.grid.n)
    time = mjd - mjd[0]
    data = transform.sums(time, weight * residual)
    window, second = transform.sums(time, weight), transform.sums(time, weight, harmonic=2)
    cc = 0.5 * (1 + second.real) - window.real**2
    ss = 0.5 * (1 - second.real) - window.imag**2
    cs = 0.5 * second.imag - window.real * window.imag
    determinant = cc * ss - cs**2
    usable = determinant > 1e-12
    gain = ss * data.real**2 + cc * data.imag**2 - 2 * cs * data.real * data.imag
    return np.asarray(np.where(usable, gain / np.where(usable, determinant, 1.0), 0.0) / variance)


def highest_peaks(spectrum: Float64, n: int) -> tuple[NDArray[np.int64], Float64]:
    """Indices of the ``n`` highest local maxima, highest first, and how many standard deviations each stands out.

    Fewer where there are fewer.
    """
    inside = spectrum[1:-1]
    places = 1 + np.flatnonzero((inside > spectrum[:-2]) & (inside >= spectrum[2:]))
    places = places[np.argsort(-spectrum[places], kind="stable")[:n]]
    deviation = float(spectrum.std())
    excess = (spectrum[places] - spectrum.mean()) / deviation if deviation > 0 else np.zeros(places.size)
    return places, excess
