"""Point-source fits on one frame: what measurement, forced photometry and the sky check share."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.contracts.exposure import Frame
from core.contracts.psf import PsfModel
from core.errors import Outcome, UnusableDataError
from core.flags import Mask
from core.kernels import psf_flux
from core.kernels.moments import SHAPE_OK, adaptive_moments

Float64 = NDArray[np.float64]

UNUSABLE: Final = int(Mask.BAD | Mask.SAT | Mask.CR | Mask.NODATA | Mask.SAT_TEMPLATE)
"""Pixels with any of these never enter a fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PointFits:
    """Fits of n point sources: ``table`` (n, N_COLUMNS) of :mod:`core.kernels.psf_flux`, ``status`` its FIT_* bits."""

    table: Float64
    status: NDArray[np.uint8]

    @property
    def flux(self) -> Float64:
        """[nJy]; NaN where no pixel was good."""
        return self.table[:, psf_flux.FLUX]

    @property
    def flux_err(self) -> Float64:
        """[nJy]."""
        return self.table[:, psf_flux.FLUX_ERR]


@dataclass(frozen=True, slots=True, kw_only=True)
class PsfOnFrame:
    """A frame with its PSF prepared for the kernels; make it once a frame, it measures the PSF's width."""

    frame: Frame
    psf: PsfModel
    sums: Float64
    fwhm_pix: float

    @classmethod
    def of(cls, frame: Frame, psf: PsfModel) -> "PsfOnFrame":
        """Prepare ``psf`` for fits on ``frame``."""
        sums = psf.coefficients.sum(axis=(1, 2), dtype=np.float64)
        return cls(frame=frame, psf=psf, sums=sums, fwhm_pix=_central_fwhm(psf))

    @property
    def half(self) -> int:
        """Half size of the fitting window [pixel]."""
        return psf_flux.window_half(self.fwhm_pix, self.psf.size)

    def terms(self, x: Float64, y: Float64) -> Float64:
        """(n, n_terms) factors of the PSF's images at the sources; positions off the image take the nearest pixel's."""
        ny, nx = self.psf.shape
        inside_x = np.clip(np.nan_to_num(x), 0, nx - 1)
        inside_y = np.clip(np.nan_to_num(y), 0, ny - 1)
        return np.ascontiguousarray(self.psf.terms(inside_x, inside_y))

    def forced(self, x: Float64, y: Float64) -> PointFits:
        """Fluxes at fixed positions (n,) [pixel]; taken by rows, so that their pixels are found in the cache."""
        order = np.argsort(y, kind="stable")
        sorted_fits = self._forced(x[order], y[order])
        fits = _empty_fits(x.size)
        fits.table[order], fits.status[order] = sorted_fits.table, sorted_fits.status
        return fits

    def _forced(self, x: Float64, y: Float64) -> PointFits:
        fits = _empty_fits(x.size)
        frame = self.frame
        psf_flux.forced_flux(
            frame.image, frame.variance, frame.mask, UNUSABLE, self.psf.coefficients, self.sums, self.terms(x, y),
            x, y, self.half, fits.table, fits.status,
        )  # fmt: skip
        return fits

    def fitted(self, x: Float64, y: Float64, max_shift_pix: float) -> PointFits:
        """Fluxes and positions, from starts (n,) [pixel]."""
        fits = _empty_fits(x.size)
        frame = self.frame
        psf_flux.fit_psf(
            frame.image, frame.variance, frame.mask, UNUSABLE, self.psf.coefficients, self.sums, self.terms(x, y),
            x, y, self.half, max_shift_pix, fits.table, fits.status,
        )  # fmt: skip
        return fits


def _central_fwhm(psf: PsfModel) -> float:
    """As ``psf.fwhm_pix()``, by the kernel: 0.05 ms instead of 5."""
    image = psf.center()
    moments, status = np.empty((1, 3)), np.empty(1, np.uint8)
    middle = np.array([psf.size // 2], np.float64)
    adaptive_moments(
        image, np.ones_like(image), np.zeros(image.shape, np.uint16), 0, middle, middle, np.ones(1),
        np.array([[4.0, 4.0, 0.0]]), np.array([psf.size]), moments, status,
    )  # fmt: skip
    if status[0] != SHAPE_OK:
        raise UnusableDataError("the PSF has no adaptive moments", outcome=Outcome.BAD_SUBTRACTION, code="bad_psf")
    return float(2.3548 * (moments[0, 0] * moments[0, 1] - moments[0, 2] ** 2) ** 0.25)


def _empty_fits(n: int) -> PointFits:
    return PointFits(table=np.full((n, psf_flux.N_COLUMNS), np.nan), status=np.zeros(n, np.uint8))
