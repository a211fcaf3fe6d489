"""Difference of any two aligned frames of one field, without calibrations: what changed between two images."""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from core.contracts.catalogs import Catalog
from core.contracts.exposure import DifferenceImage, Frame
from core.contracts.psf import PsfModel
from core.contracts.results import Detections
from core.errors import RejectedInputError
from core.flags import MASK_DTYPE, Mask
from core.stages.background import BackgroundConfig, subtract_background
from core.stages.cosmic_rays import CosmicRayConfig, find_cosmic_rays
from core.stages.detect import DetectConfig, detect
from core.stages.kernel_config import KernelConfig
from core.stages.psf import PsfConfig, fit_psf
from core.stages.sources import SourcesConfig, detect_sources, measure_seeing
from core.stages.subtract import SubtractConfig, subtract_frames
from core.workspace import Workspace

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairConfig:
    """The stages' settings for a pair; flux scales are free, so the kernel's sum is not gated to one."""

    fwhm_guess_pix: float = 4.0
    background: BackgroundConfig = field(default_factory=lambda: BackgroundConfig(photon_noise=0.0))
    cosmic_rays: CosmicRayConfig = field(default_factory=CosmicRayConfig)
    sources: SourcesConfig = field(default_factory=SourcesConfig)
    psf: PsfConfig = field(default_factory=PsfConfig)
    subtract: SubtractConfig = field(
        default_factory=lambda: SubtractConfig(
            kernel=KernelConfig(min_kernel_sum=1e-3, max_kernel_sum=1e3, max_snr=3000.0), max_sky_width=5.0
        )
    )
    detect: DetectConfig = field(default_factory=DetectConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairDifference:
    """Difference, detections, and what was measured of each frame on the way."""

    difference: DifferenceImage
    detections: Detections
    science_sources: Catalog
    template_sources: Catalog
    science_psf: PsfModel
    template_psf: PsfModel


def difference_pair(
    science: Frame, template: Frame, workspace: Workspace, config: PairConfig | None = None
) -> PairDifference:
    """Clean both frames of sky and cosmic rays, match, subtract and detect.

    Both frames are changed in place (background, cosmic rays). Any unit, one grid; the difference has the unit and flux
    scale of ``science``. Raises :class:`UnusableDataError` where too few stars give a PSF or a kernel.
    """
    config = config or PairConfig()
    if science.shape != template.shape:
        raise RejectedInputError("the frames differ in shape", code="bad_array")
    science_psf, science_sources = _characterize(science, workspace, config)
    template_psf, template_sources = _characterize(template, workspace, config)
    difference = subtract_frames(
        science, science_psf, template, template_psf, science_sources, workspace, config.subtract
    )
    return PairDifference(
        difference=difference,
        detections=detect(difference, workspace, config.detect),
        science_sources=science_sources,
        template_sources=template_sources,
        science_psf=science_psf,
        template_psf=template_psf,
    )


def _characterize(frame: Frame, workspace: Workspace, config: PairConfig) -> tuple[PsfModel, Catalog]:
    subtract_background(frame, workspace, config.background)
    fwhm = measure_seeing(frame, config.fwhm_guess_pix, workspace, config.sources)
    find_cosmic_rays(frame, fwhm, workspace, config.cosmic_rays)
    sources = detect_sources(frame, fwhm, workspace, config.sources)
    fit = fit_psf(frame, sources, workspace, config.psf)
    return fit.psf, fit.sources


def frames_of_pair(science: Float32, template: Float32, edge_pix: int = 2) -> tuple[Frame, Frame]:
    """Frames of two aligned images with no gain keyword: noise and saturation are measured on the images themselves.

    Parameters
    ----------
    science, template : (ny, nx) float32, sky included [any unit]; NaN marks pixels without data.
    edge_pix : so many border rows and columns are marked BAD.
    """
    slope = _variance_slope(science, template)
    return _frame(science, slope, edge_pix), _frame(template, slope, edge_pix)


def _variance_slope(a: Float32, b: Float32) -> float:
    """Variance per unit of signal (1 / gain), from the noise of the pair's difference against brightness.

    The noise is that of differences of neighbouring pixels of ``a - b``: sky, stars and slow changes cancel. Photon
    transfer as in Janesick 2001, SPIE PM83, with the sky and the field's extended light in the role of the flat fields.
    """
    change = (a - b).astype(np.float64)
    step = (change[:, 1:] - change[:, :-1]).ravel()
    level = ((a[:, 1:] + b[:, 1:]) / 2).astype(np.float64).ravel()
    good = np.isfinite(step) & np.isfinite(level)
    step, level = step[good], level[good]
    sky = float(np.median(level))
    sky_variance = (1.4826 * float(np.median(np.abs(step)))) ** 2 / 4
    spread = 1.4826 * float(np.median(np.abs(level - sky)))
    # Brighter than the sky's own scatter, fainter than the stars' cores, whose seeing changes.
    edges = sky + spread * np.geomspace(4, 100, 9)
    slopes, weights = [], []
    for low, high in pairwise(edges):
        inside = (level >= low) & (level < high)
        if inside.sum() < 100:
            continue
        variance = (1.4826 * float(np.median(np.abs(step[inside])))) ** 2 / 4
        rise = float(np.median(level[inside])) - sky
        slopes.append((variance - sky_variance) / rise)
        weights.append(inside.sum())
    # Never below what photons of the sky alone could give if the whole level were light.
    floor = sky_variance / max(sky, 1e-6) if sky > 0 else 0.0
    return max(float(np.median(slopes)), floor) if slopes else floor


def _frame(image: Float32, slope: float, edge_pix: int) -> Frame:
    is_known = np.isfinite(image)
    values = np.where(is_known, image, np.median(image[is_known])).astype(np.float32)
    mask = np.zeros(image.shape, MASK_DTYPE)
    mask[~is_known] |= np.uint16(Mask.NODATA)
    top = float(values.max())
    # Several pixels at one and the same maximum: the converter's or the well's limit.
    if np.count_nonzero(values >= 0.999 * top) > 3:
        saturated = values >= 0.98 * top
        for dy, dx in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)):
            mask[np.roll(saturated, (dy, dx), (0, 1))] |= np.uint16(Mask.SAT)
    if edge_pix:
        edge = np.ones(image.shape, np.bool_)
        edge[edge_pix:-edge_pix, edge_pix:-edge_pix] = False
        mask[edge] |= np.uint16(Mask.BAD)
    sky = float(np.median(values))
    noise = 1.4826 * float(np.median(np.abs(np.diff(values, axis=1)))) / np.sqrt(2)
    light = values - sky
    # a pixel's own noise is no light: none below 2 sigma, all from 4
    variance = noise**2 + slope * light * np.clip(0.5 * light / max(noise, 1e-6) - 1, 0, 1)
    return Frame(image=np.ascontiguousarray(values), variance=np.ascontiguousarray(variance, np.float32), mask=mask)
