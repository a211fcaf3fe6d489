"""Basis of the matching kernel: Gaussians times polynomials (Alard & Lupton 1998, ApJ 503, 325)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.contracts.psf import n_terms
from core.stages.kernel_config import KernelConfig

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_MIN_SIGMA_PIX = 0.7
"""A narrower Gaussian is not sampled by the pixels."""


@dataclass(frozen=True, slots=True)
class KernelBasis:
    """Gaussians times polynomials, as one-dimensional factors; all but the first are made to sum to zero."""

    profiles: Float32
    degrees: NDArray[np.int32]
    half_widths: NDArray[np.int32]
    half_stamp: int

    @classmethod
    def scaled(cls, sigma_pix: float, config: KernelConfig) -> "KernelBasis":
        scale = float(np.clip(sigma_pix / config.reference_sigma_pix, 0.85, 1.6))
        half_width = round(config.half_width_pix * scale)
        axis = np.arange(-half_width, half_width + 1, dtype=np.float64)
        profiles = np.zeros((len(config.degrees), max(config.degrees) + 1, axis.size), np.float32)
        for g, (sigma, degree) in enumerate(zip(config.sigmas_pix, config.degrees, strict=True)):
            t = axis / max(sigma * scale, _MIN_SIGMA_PIX)
            gaussian = np.exp(-0.5 * t**2)
            for p in range(degree + 1):
                profile = gaussian * np.polynomial.hermite_e.hermeval(t, [0] * p + [1])
                # Unit sum makes the first the flux scale; unit norm keeps the rest comparable.
                profiles[g, p] = profile / (profile.sum() if p == 0 else np.sqrt(np.square(profile).sum()))
        reach = [min(half_width, int(np.ceil((4.2 + 0.2 * d) * s * scale)))
                 for s, d in zip(config.sigmas_pix, config.degrees, strict=True)]  # fmt: skip
        for g, r in enumerate(reach):
            profiles[g, :, : half_width - r] = profiles[g, :, half_width + r + 1 :] = 0
        return cls(profiles, np.array(config.degrees, np.int32), np.array(reach, np.int32),
                   round(config.half_stamp_pix * scale))  # fmt: skip

    @property
    def half_width(self) -> int:
        return int(self.profiles.shape[2] // 2)

    @property
    def n_basis(self) -> int:
        return int(sum(n_terms(int(d)) for d in self.degrees))

    def images_raw(self) -> Float64:
        """(n_basis, k, k) as :func:`basis_stamp` orders them; mirrored, as that correlates and a kernel convolves."""
        wide = self.profiles[:, :, ::-1].astype(np.float64)
        return np.array([
            np.outer(wide[g, q], wide[g, p])
            for g, degree in enumerate(self.degrees) for p in range(degree + 1) for q in range(degree + 1 - p)
        ])  # fmt: skip

    def zero_sum(self) -> Float64:
        """(n_basis, n_basis) change of basis after which only the first function has a sum."""
        sums = self.images_raw().sum(axis=(1, 2))
        change = np.eye(self.n_basis)
        change[0, 0] = 1 / sums[0]
        change[1:, 0] = -sums[1:] / sums[0]
        return change

    def images(self) -> Float64:
        """(n_basis, k, k) basis after :meth:`zero_sum`."""
        return np.asarray(np.tensordot(self.zero_sum(), self.images_raw(), axes=1))
