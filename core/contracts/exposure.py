"""Pixels: raw segments, frames, calibrated exposures, templates and differences."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.contracts.checks import check_array
from core.contracts.psf import PsfModel, polynomial_terms
from core.contracts.wcs import Wcs
from core.flags import MASK_DTYPE

Float32 = NDArray[np.float32]
MaskArray = NDArray[np.uint16]

ILLUMINATION_ORDER: Final = 2
"""Of the polynomial that follows what the flat left of the response."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VisitInfo:
    """What is known of one exposure of one detector before its pixels are looked at."""

    instrument: str
    group: str
    visit: int
    detector: int
    band: str
    exposure_start_mjd_tai: float
    exposure_end_mjd_tai: float
    exposure_time_s: float
    ra_deg: float
    """ICRS right ascension of the boresight, as pointed."""
    dec_deg: float
    rot_sky_deg: float
    """Position angle of the focal plane's +y axis, east of north."""
    airmass: float = 1.0

    @property
    def midpoint_mjd_tai(self) -> float:
        """Middle of the time the shutter was open."""
        return (self.exposure_start_mjd_tai + self.exposure_end_mjd_tai) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RawExposure:
    """Segments of one detector as read out: (n_amp, ny_raw, nx_raw) int32 [ADU], in the camera's amplifier order."""

    visit_info: VisitInfo
    segments: NDArray[np.int32]

    def __post_init__(self) -> None:
        check_array("segments", self.segments, np.int32, (None, None, None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Image, variance and mask of equal (ny, nx); float32, float32, uint16 (:class:`core.flags.Mask`).

    The unit is that of the stage: electrons from isr to calibrate, nJy after. Stages that say so change a frame's
    pixels in place (a copy of a 4k frame costs as much as a stage); the arrays themselves are never replaced.
    Variance is positive and finite wherever NODATA is not set.
    """

    image: Float32
    variance: Float32
    mask: MaskArray

    def __post_init__(self) -> None:
        check_array("image", self.image, np.float32, (None, None))
        check_array("variance", self.variance, np.float32, self.image.shape)
        check_array("mask", self.mask, MASK_DTYPE, self.image.shape)

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx)."""
        return self.image.shape[0], self.image.shape[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoCalib:
    """nJy per electron for PSF fluxes (aperture correction included), its relative error, and the AB zero point.

    ``illumination`` is what the flat left of the response [mag], to be added to the zero point: coefficients of a
    polynomial in the pixel scaled to [-1, 1] (:func:`core.contracts.psf.polynomial_terms`), of zero mean over the
    detector; empty where too few stars tell. ``change_width`` is how much wider, as a fraction, the PSF of what changes
    is than that of the stars: their colors differ. The scale holds for a source with just the PSF it is measured with.
    """

    njy_per_electron: float
    relative_error: float
    n_stars: int
    scatter_mag: float
    illumination: tuple[float, ...] = ()
    change_width: float = 0.0

    def njy_per_electron_at(self, x: ArrayLike, y: ArrayLike, shape: tuple[int, int]) -> NDArray[np.float64]:
        """Scale at pixels of a detector of (ny, nx) pixels."""
        if not self.illumination:
            return np.full(np.broadcast_shapes(np.shape(x), np.shape(y)), self.njy_per_electron)
        terms = polynomial_terms(x, y, shape, ILLUMINATION_ORDER)
        return np.asarray(self.njy_per_electron * 10 ** (-0.4 * (terms @ np.array(self.illumination))), np.float64)

    @property
    def zero_point_mag(self) -> float:
        """AB magnitude of one electron in the exposure."""
        return float(31.4 - 2.5 * np.log10(self.njy_per_electron))


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """A calibrated science exposure, background subtracted [nJy]."""

    frame: Frame
    psf: PsfModel
    wcs: Wcs
    photo_calib: PhotoCalib
    visit_info: VisitInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A cutout of the coadd around the predicted footprint, on the coadd's own grid [nJy].

    ``psf_cells`` is (n_cy, n_cx, k, k) float32: the PSF of square cells of ``cell_size_pix`` whose first cell begins
    at pixel ``(-cell_offset_pix[1], -cell_offset_pix[0])`` in (x, y); cells without data are all zero.
    """

    frame: Frame
    wcs: Wcs
    psf_cells: Float32
    cell_size_pix: int
    cell_offset_pix: tuple[int, int]
    """(y, x) of the cutout's first pixel inside its first cell."""
    n_inputs: int
    epoch_mjd_tai: float
    """Mean epoch of the inputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarpedTemplate:
    """The template resampled to the science grid [nJy]; ``coverage`` is the fraction of pixels with data."""

    frame: Frame
    psf: PsfModel
    coverage: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferenceImage:
    """Science minus matched template [nJy], with the PSF of point sources in it."""

    frame: Frame
    psf: PsfModel
    kernel_sum: float
    """Flux scale of the kernel, template to science; 1 for perfect zero points."""
    is_science_convolved: bool
    variance_scale: float
    """Measured factor by which the variance was scaled so that the sky's S/N has unit width."""
    photon_noise_njy: float = 0.0
    """Variance that one nJy of a source's own light adds to a pixel [nJy]; 0 where it is not known."""
