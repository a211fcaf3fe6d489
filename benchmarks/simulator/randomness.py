"""Random streams by name, and smooth random fields."""

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


def stream(seed: int, name: str, *keys: int) -> np.random.Generator:
    """Independent generator for one purpose: equal arguments give equal numbers, whatever else was drawn."""
    return np.random.default_rng([seed, zlib.crc32(name.encode()), *(k & 0xFFFFFFFF for k in keys)])


@dataclass(frozen=True, slots=True)
class WaveField:
    """A Gaussian random field of unit variance as a sum of plane waves.

    ``kx, ky`` (n,) [rad/arcsec], ``phase`` (n,) [rad].
    """

    kx: Float64
    ky: Float64
    phase: Float64

    @classmethod
    def draw(cls, rng: np.random.Generator, shortest_arcsec: float, longest_arcsec: float, n: int = 64) -> "WaveField":
        """Waves of lengths log-uniform in the range and of all directions."""
        wavelength = np.exp(rng.uniform(np.log(shortest_arcsec), np.log(longest_arcsec), n))
        angle = rng.uniform(0.0, 2 * np.pi, n)
        k = 2 * np.pi / wavelength
        return cls(k * np.cos(angle), k * np.sin(angle), rng.uniform(0.0, 2 * np.pi, n))

    def __call__(self, x_arcsec: Float64, y_arcsec: Float64) -> Float64:
        """Values at positions [arcsec]."""
        total = np.zeros(np.shape(x_arcsec))
        for kx, ky, phase in zip(self.kx, self.ky, self.phase, strict=True):
            total += np.cos(kx * x_arcsec + ky * y_arcsec + phase)
        return np.asarray(total * np.sqrt(2.0 / self.kx.size), np.float64)
