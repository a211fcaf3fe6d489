"""DIASources: positions, fluxes, shapes and flags of everything detected on a difference image."""

from dataclasses import dataclass, field
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from core.contracts.catalogs import DIA_SOURCE, Catalog, empty_catalog
from core.contracts.exposure import DifferenceImage, Exposure, VisitInfo, WarpedTemplate
from core.contracts.results import Detections
from core.contracts.wcs import Wcs
from core.flags import Mask
from core.ids import source_ids
from core.kernels import moments as moment_kernels
from core.kernels import psf_flux
from core.kernels.aperture import APERTURE_BAD_PIXELS, APERTURE_OK, APERTURE_TRUNCATED, aperture_flux
from core.kernels.cosmic_rays import sharpest_near
from core.kernels.stamps import mask_unions
from core.stages.cosmic_rays import SKIPPED, star_bounds
from core.stages.dipole import DipoleConfig, fit_dipoles
from core.stages.moments import Shapes, extendedness, measure_shapes, sky_jacobians, to_sky
from core.stages.point_source import UNUSABLE, PointFits, PsfOnFrame
from core.stages.trail import TrailConfig, fit_trails
from core.workspace import Workspace

Float64 = NDArray[np.float64]

CUTOUT_SIDE_PIX: Final = (30, 102)
"""Smallest and largest ``bboxSize``; the largest holds the trail of 10 deg/day in 30 s and the PSF."""

TRAIL_BITS: Final = int(Mask.BAD | Mask.SAT | Mask.SAT_TEMPLATE | Mask.NODATA | Mask.CR | Mask.EDGE)
"""A footprint with any of these has the shape its mask left it: no trail is tried."""

SOURCE_QUALITY: Final = np.dtype(
    [
        ("footprintMask", "<u2"),
        ("centerMask", "<u2"),
        ("pixelMask", "<u2"),
        ("status", "u1"),
        ("goodFraction", "<f4"),
        ("spike", "<f4"),
        ("spikeErr", "<f4"),
        ("sizeRatio", "<f4"),
        ("footprintPixels", "<i4"),
        ("hasBothSigns", "?"),
        ("coreFlux", "<f4"),
        ("coreFluxErr", "<f4"),
        ("wideFlux", "<f4"),
        ("wideFluxErr", "<f4"),
        ("sharpness", "<f4"),
    ]
)
"""What the cuts and the reliability need and no alert field holds.

Unions of mask bits over the footprint and the central 3 x 3, the central pixel's own; FIT_* bits; share of the PSF's
weight on usable pixels; contrast of the central pixel over the PSF's and its error (1 for a point, several for a
one-pixel event); trace of the moments over the PSF's; pixels of the footprint; whether it holds peaks of both signs;
fluxes within :data:`CORE_FWHM` and :data:`WIDE_FWHM` of the center [nJy], corrected so that a point has its PSF flux;
sigma by which a pixel of the science image there is sharper than light can be, 0 where none is.
"""

CORE_FWHM: Final = 0.8
WIDE_FWHM: Final = 1.7

_SHARPNESS_SNR: Final = 2.5
_NARROWEST_PSF: Final = 0.95
_RATIO_ERROR: Final = 0.05
"""Closer bounds than the first search for particles has: here are few places, and the PSF is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessingStamp:
    """What is written into every row: the release and the time the visit was taken up."""

    release: int
    time_processed_mjd_tai: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureConfig:
    """Parameters of :func:`measure`; the two fits are optional work that a late visit drops."""

    aperture_radius_pix: float = 12.0
    max_shift_pix: float = 3.0
    is_dipole_fitted: bool = True
    is_trail_fitted: bool = True
    dipole: DipoleConfig = field(default_factory=DipoleConfig)
    trail: TrailConfig = field(default_factory=TrailConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """DIASource rows and, row by row, their :data:`SOURCE_QUALITY`."""

    sources: Catalog
    quality: Catalog

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Self:
        """The chosen rows, copied."""
        return type(self)(sources=self.sources[rows], quality=self.quality[rows])


def measure(
    difference: DifferenceImage,
    exposure: Exposure,
    template: WarpedTemplate,
    detections: Detections,
    workspace: Workspace,
    config: MeasureConfig,
    stamp: ProcessingStamp,
) -> Measurement:
    """Measure every detection; rows keep the order of the detections, whose number makes the ids.

    Positions and ``psfFlux`` come from a fit with the difference's PSF, ``scienceFlux`` and ``templateFlux`` are forced
    at that position with each image's own PSF. Footprints are read from the DETECTED bits of the difference's mask.
    """
    plane = PsfOnFrame.of(difference.frame, difference.psf)
    sign = np.where(detections.snr < 0, -1.0, 1.0)
    fits = plane.fitted(detections.x.astype(np.float64), detections.y.astype(np.float64), config.max_shift_pix)
    x, y = fits.table[:, psf_flux.X].copy(), fits.table[:, psf_flux.Y].copy()
    jacobians = sky_jacobians(exposure.wcs, x, y)

    sources = empty_catalog(DIA_SOURCE, x.size)
    _fill_identity(sources, exposure.visit_info, stamp)
    _fill_position(sources, fits, exposure.wcs, jacobians)
    _fill_psf_flux(sources, fits, detections)
    _fill_aperture(sources, difference, x, y, config.aperture_radius_pix)
    _fill_forced(sources, exposure, template, x, y)
    shapes = measure_shapes(plane, x, y, sign, _footprint_sides(detections))
    _fill_shapes(sources, shapes, jacobians)
    quality = _quality(difference, detections, fits, shapes)
    _fill_growth(quality, plane, x, y)
    _fill_sharpness(quality, exposure, x, y)
    _fill_pixel_flags(sources, quality)
    sources["bboxSize"] = _box_sides(detections, x, y)
    if config.is_dipole_fitted:
        fit_dipoles(sources, plane, quality["hasBothSigns"], jacobians, workspace, config.dipole)
    if config.is_trail_fitted:
        is_clean = (quality["footprintMask"] & TRAIL_BITS) == 0
        fit_trails(sources, plane, shapes, is_clean, jacobians, exposure.wcs, config.trail)
    return Measurement(sources=sources, quality=quality)


def _fill_identity(sources: Catalog, visit_info: VisitInfo, stamp: ProcessingStamp) -> None:
    rows = np.arange(sources.size, dtype=np.int64)
    sources["diaSourceId"] = source_ids(stamp.release, visit_info.visit, visit_info.detector, rows)
    sources["visit"] = visit_info.visit
    sources["detector"] = visit_info.detector
    sources["midpointMjdTai"] = visit_info.midpoint_mjd_tai
    sources["exposureTime"] = visit_info.exposure_time_s
    sources["band"] = visit_info.band
    sources["timeProcessedMjdTai"] = stamp.time_processed_mjd_tai


def _fill_position(sources: Catalog, fits: PointFits, wcs: Wcs, jacobians: Float64) -> None:
    table = fits.table
    sources["x"], sources["y"] = table[:, psf_flux.X], table[:, psf_flux.Y]
    sources["xErr"], sources["yErr"] = np.sqrt(table[:, psf_flux.VAR_X]), np.sqrt(table[:, psf_flux.VAR_Y])
    sources["centroid_flag"] = (fits.status & psf_flux.FIT_CENTROID_FAILED) != 0
    sources["ra"], sources["dec"] = wcs.pixel_to_sky(table[:, psf_flux.X], table[:, psf_flux.Y])
    covariance = np.empty((sources.size, 2, 2))
    covariance[:, 0, 0], covariance[:, 1, 1] = table[:, psf_flux.VAR_X], table[:, psf_flux.VAR_Y]
    covariance[:, 0, 1] = covariance[:, 1, 0] = table[:, psf_flux.COV_XY]
    on_sky = jacobians @ covariance @ np.swapaxes(jacobians, 1, 2)
    sources["raErr"], sources["decErr"] = np.sqrt(on_sky[:, 0, 0]), np.sqrt(on_sky[:, 1, 1])
    sources["ra_dec_Cov"] = on_sky[:, 0, 1]


def _fill_psf_flux(sources: Catalog, fits: PointFits, detections: Detections) -> None:
    sources["psfFlux"], sources["psfFluxErr"] = fits.flux, fits.flux_err
    sources["psfChi2"] = fits.table[:, psf_flux.CHI2]
    sources["psfLnL"] = fits.table[:, psf_flux.LN_LIKELIHOOD]
    sources["psfNdata"] = fits.table[:, psf_flux.N_DATA]
    sources["psfFlux_flag_edge"] = (fits.status & psf_flux.FIT_EDGE) != 0
    sources["psfFlux_flag_noGoodPixels"] = (fits.status & psf_flux.FIT_NO_GOOD_PIXELS) != 0
    sources["psfFlux_flag"] = (fits.status & (psf_flux.FIT_EDGE | psf_flux.FIT_NO_GOOD_PIXELS)) != 0
    sources["snr"] = np.abs(detections.snr)
    sources["isNegative"] = detections.snr < 0


def _fill_aperture(sources: Catalog, difference: DifferenceImage, x: Float64, y: Float64, radius_pix: float) -> None:
    frame = difference.frame
    flux, error = np.empty(x.size, np.float32), np.empty(x.size, np.float32)
    status = np.empty(x.size, np.uint8)
    aperture_flux(frame.image, frame.variance, frame.mask, UNUSABLE, x, y, radius_pix, flux, error, status)
    sources["apFlux"], sources["apFluxErr"] = flux, error
    sources["apFlux_flag_apertureTruncated"] = (status & APERTURE_TRUNCATED) != 0
    sources["apFlux_flag"] = (status & (APERTURE_TRUNCATED | APERTURE_BAD_PIXELS)) != APERTURE_OK


def _fill_forced(sources: Catalog, exposure: Exposure, template: WarpedTemplate, x: Float64, y: Float64) -> None:
    science = PsfOnFrame.of(exposure.frame, exposure.psf).forced(x, y)
    sources["scienceFlux"], sources["scienceFluxErr"] = science.flux, science.flux_err
    sources["forced_PsfFlux_flag_edge"] = (science.status & psf_flux.FIT_EDGE) != 0
    sources["forced_PsfFlux_flag_noGoodPixels"] = (science.status & psf_flux.FIT_NO_GOOD_PIXELS) != 0
    sources["forced_PsfFlux_flag"] = science.status != psf_flux.FIT_OK
    reference = PsfOnFrame.of(template.frame, template.psf).forced(x, y)
    sources["templateFlux"], sources["templateFluxErr"] = reference.flux, reference.flux_err


def _fill_shapes(sources: Catalog, shapes: Shapes, jacobians: Float64) -> None:
    sources["ixx"], sources["iyy"], sources["ixy"] = to_sky(shapes.source, jacobians).T
    sources["ixxPSF"], sources["iyyPSF"], sources["ixyPSF"] = to_sky(shapes.psf, jacobians).T
    sources["shape_flag"] = shapes.status != moment_kernels.SHAPE_OK
    sources["shape_flag_no_pixels"] = (shapes.status & moment_kernels.SHAPE_NO_PIXELS) != 0
    sources["shape_flag_not_contained"] = (shapes.status & moment_kernels.SHAPE_NOT_CONTAINED) != 0
    sources["shape_flag_parent_source"] = False
    sources["extendedness"] = extendedness(shapes, sources["psfFlux"] / sources["psfFluxErr"])


def _quality(difference: DifferenceImage, detections: Detections, fits: PointFits, shapes: Shapes) -> Catalog:
    quality = np.zeros(fits.status.size, SOURCE_QUALITY)
    footprint, center = np.zeros(quality.size, np.uint16), np.zeros(quality.size, np.uint16)
    x = np.floor(fits.table[:, psf_flux.X] + 0.5).astype(np.int32)
    y = np.floor(fits.table[:, psf_flux.Y] + 0.5).astype(np.int32)
    # once a footprint, not once a peak: that of a bright star's bleed is large and has hundreds
    _, first, place = np.unique(detections.parent, return_index=True, return_inverse=True)
    of_footprint, none = np.zeros(first.size, np.uint16), np.zeros(quality.size, np.int32)
    detected = int(Mask.DETECTED | Mask.DETECTED_NEGATIVE)
    mask_unions(
        difference.frame.mask, detected, detections.y0[first], detections.y1[first], detections.x0[first],
        detections.x1[first], y[first], x[first], of_footprint, np.zeros_like(of_footprint),
    )  # fmt: skip
    mask_unions(difference.frame.mask, detected, none, none, none, none, y, x, footprint, center)
    footprint = of_footprint[place]
    quality["footprintMask"], quality["centerMask"] = footprint, center
    ny, nx = difference.frame.shape
    quality["pixelMask"] = difference.frame.mask[np.clip(y, 0, ny - 1), np.clip(x, 0, nx - 1)]
    quality["status"] = fits.status
    quality["goodFraction"] = fits.table[:, psf_flux.GOOD_FRACTION]
    quality["spike"], quality["spikeErr"] = fits.table[:, psf_flux.SPIKE], fits.table[:, psf_flux.SPIKE_ERR]
    quality["sizeRatio"] = shapes.size_ratio
    quality["footprintPixels"] = detections.n_pixels
    positive = np.unique(detections.parent[detections.snr >= 0])
    negative = np.unique(detections.parent[detections.snr < 0])
    quality["hasBothSigns"] = np.isin(detections.parent, np.intersect1d(positive, negative))
    return quality


def _fill_growth(quality: Catalog, plane: PsfOnFrame, x: Float64, y: Float64) -> None:
    """Fluxes in two small apertures: a star subtracted with a wrong width has core and ring of two signs."""
    psf, middle = plane.psf.center(), np.full(1, plane.psf.size // 2, np.float64)
    blank = np.zeros(psf.shape, np.uint16)
    for name, radius_fwhm in (("core", CORE_FWHM), ("wide", WIDE_FWHM)):
        radius = radius_fwhm * plane.fwhm_pix
        share, flux = np.empty((2, 1), np.float32), np.empty((2, x.size), np.float32)
        status = np.empty(x.size, np.uint8)
        aperture_flux(
            psf, np.ones_like(psf), blank, 0, middle, middle, radius, share[0], share[1], np.empty(1, np.uint8)
        )
        frame = plane.frame
        aperture_flux(frame.image, frame.variance, frame.mask, UNUSABLE, x, y, radius, flux[0], flux[1], status)
        quality[f"{name}Flux"], quality[f"{name}FluxErr"] = flux / share[0, 0]


def _fill_sharpness(quality: Catalog, exposure: Exposure, x: Float64, y: Float64) -> None:
    """Whether the science image, before any kernel made it smoother, holds a particle there."""
    axis, diagonal = star_bounds(_NARROWEST_PSF * exposure.psf.fwhm_pix())
    row, column = np.floor(y + 0.5).astype(np.int32), np.floor(x + 0.5).astype(np.int32)
    frame, sharpness = exposure.frame, np.empty(x.size, np.float32)
    sharpest_near(
        frame.image, frame.variance, frame.mask, SKIPPED, _SHARPNESS_SNR, axis, diagonal, _RATIO_ERROR, row, column,
        sharpness,
    )  # fmt: skip
    quality["sharpness"] = sharpness


FLAG_PLANES: Final = {
    "bad": Mask.BAD,
    "cr": Mask.CR,
    "edge": Mask.EDGE,
    "nodata": Mask.NODATA,
    "interpolated": Mask.INTERPOLATED,
    "saturated": Mask.SAT | Mask.SAT_TEMPLATE,
    "suspect": Mask.SUSPECT | Mask.CROSSTALK | Mask.HIGH_VARIANCE,
    "streak": Mask.STREAK,
    "injected": Mask.INJECTED,
    "injected_template": Mask.INJECTED_TEMPLATE,
}
"""Mask planes behind each of the alerts' pixel flags."""
_CENTER_FLAGS: Final = tuple(name for name in FLAG_PLANES if name not in ("bad", "edge"))


def _fill_pixel_flags(sources: Catalog, quality: Catalog) -> None:
    sources["pixelFlags"] = False
    sources["pixelFlags_offimage"] = False
    for name, bits in FLAG_PLANES.items():
        sources[f"pixelFlags_{name}"] = (quality["footprintMask"] & int(bits)) != 0
    for name in _CENTER_FLAGS:
        sources[f"pixelFlags_{name}Center"] = (quality["centerMask"] & int(FLAG_PLANES[name])) != 0


def _footprint_sides(detections: Detections) -> NDArray[np.int64]:
    sides: NDArray[np.int64] = np.maximum(detections.y1 - detections.y0, detections.x1 - detections.x0).astype(np.int64)
    return sides


def _box_sides(detections: Detections, x: Float64, y: Float64) -> NDArray[np.int32]:
    """Side of the square about the centroid that holds the footprint, within :data:`CUTOUT_SIDE_PIX`."""
    edges = np.stack([x - detections.x0, detections.x1 - 1 - x, y - detections.y0, detections.y1 - 1 - y])
    sides: Float64 = np.ceil(2 * np.abs(edges).max(axis=0))
    return np.clip(sides, *CUTOUT_SIDE_PIX).astype(np.int32)
