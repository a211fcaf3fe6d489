"""Cosmic rays: pixels sharper than the PSF allows; interpolation over them and over defects."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.contracts.exposure import Frame
from core.flags import Mask
from core.kernels.cosmic_rays import (
    collect_masked,
    find_sharp_pixels,
    follow_tracks,
    grow_marks,
    interpolate_pixels,
)
from core.stages.sources import FWHM_PER_SIGMA
from core.workspace import Workspace

Int32 = NDArray[np.int32]

_CAPACITY: Final = 1 << 19


@dataclass(frozen=True, slots=True, kw_only=True)
class CosmicRayConfig:
    """How sharp is too sharp."""

    min_snr: float = 5.0
    """Of a pixel that starts a track."""
    min_sharpness: float = 5.0
    """Sigma above what a star may have, to start a track."""
    follow_snr: float = 2.5
    """Of a pixel that continues one."""
    follow_sharpness: float = 2.5
    narrowest_psf: float = 0.88
    """Narrowest star expected, as fraction of the seeing: the PSF varies over the detector."""
    ratio_error: float = 0.10
    """Error of the sharpest star's profile as fraction of the pixel."""
    is_grown: bool = True
    """Mark the ring around what was found."""
    interpolation_sigma_pix: float = 1.0
    interpolation_reach_pix: int = 6


SKIPPED: Final = np.uint16(Mask.SAT | Mask.BAD | Mask.NODATA)
"""Pixels with any of these are not looked at, and tell nothing of their neighbours."""
_UNUSABLE: Final = np.uint16(Mask.SAT | Mask.BAD | Mask.NODATA | Mask.CR)


def star_bounds(fwhm_pix: float) -> tuple[float, float]:
    """Least mean of two opposite neighbours of a pixel over its value, along the axes and diagonals, for any light."""
    sigma = fwhm_pix / FWHM_PER_SIGMA
    return float(np.exp(-0.5 / sigma**2)), float(np.exp(-1.0 / sigma**2))


def find_cosmic_rays(frame: Frame, fwhm_pix: float, workspace: Workspace, config: CosmicRayConfig) -> int:
    """Mark cosmic rays CR, interpolate them and BAD pixels (INTERPOLATED), in place; returns the number of CR pixels.

    A pixel is hit where it exceeds the mean of two opposite neighbours by more than the center of the narrowest star
    does, in any of four directions (the third condition of SDSS Photo; Lupton et al. 2001); tracks are then
    followed by a lower bar. ``fwhm_pix`` must be the frame's seeing (:func:`core.stages.sources.measure_seeing`).
    Works on a background-subtracted frame in any unit. Buffers ``cosmic_rays.*``. About 0.06 s CPU.
    """
    axis, diagonal = star_bounds(config.narrowest_psf * fwhm_pix)
    y: Int32 = workspace.array("cosmic_rays.y", (_CAPACITY,), np.int32)  # type: ignore[assignment]
    x: Int32 = workspace.array("cosmic_rays.x", (_CAPACITY,), np.int32)  # type: ignore[assignment]
    planes = (frame.image, frame.variance, frame.mask)
    least = config.min_snr * 0.8 * float(np.sqrt(np.percentile(frame.variance[::37, ::31], 10)))
    error = config.ratio_error
    n_seed = find_sharp_pixels(
        *planes, SKIPPED, least, config.min_snr, axis, diagonal, error, config.min_sharpness, y, x
    )
    # Every neighbour of what is marked is looked at again, by a lower bar: another search would find nothing.
    n = follow_tracks(*planes, SKIPPED, config.follow_snr, axis, diagonal, error, config.follow_sharpness, y, x, n_seed)
    if config.is_grown:
        n = grow_marks(frame.mask, SKIPPED, y, x, n)
    total = collect_masked(frame.mask, np.uint16(Mask.BAD), np.uint16(Mask.NODATA | Mask.SAT), y, x, n)
    interpolate_pixels(*planes, _UNUSABLE, y, x, total, config.interpolation_sigma_pix, config.interpolation_reach_pix)
    return n
