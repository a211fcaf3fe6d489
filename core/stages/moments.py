"""Shapes: adaptive second moments of sources and of their PSF, and how extended a source looks."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from core.contracts.wcs import Wcs
from core.kernels.moments import SHAPE_OK, adaptive_moments
from core.stages.point_source import UNUSABLE, PsfOnFrame

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_REACH_FWHM: Final = 2.5
_REACH_FOOTPRINT: Final = 0.75
_MAX_REACH_PIX: Final = 40
# error of the trace of a matched Gaussian's moments, as a fraction of it times SNR (tests/unit/stages/test_moments.py)
_TRACE_ERROR: Final = 2.0
_PSF_MODEL_ERROR: Final = 0.02
_EXTENDED_SIGMA: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    """Moments of n sources and of the PSF there, (n, 3) = (xx, yy, xy) [pixel**2]; ``status`` SHAPE_* bits."""

    source: Float64
    psf: Float64
    status: NDArray[np.uint8]

    @property
    def size_ratio(self) -> Float64:
        """Trace over the PSF's trace: 1 for a point, toward 0 for a spike; NaN without moments."""
        return np.asarray((self.source[:, 0] + self.source[:, 1]) / (self.psf[:, 0] + self.psf[:, 1]), np.float64)


def measure_shapes(plane: PsfOnFrame, x: Float64, y: Float64, sign: Float64, footprint_side: Int64) -> Shapes:
    """Adaptive moments about (x, y) [pixel], as far out as ``footprint_side``; ``sign`` is -1 for negative sources."""
    frame = plane.frame
    nearest = int(np.ceil(_REACH_FWHM * plane.fwhm_pix))
    reach = np.clip((_REACH_FOOTPRINT * footprint_side).astype(np.int64), nearest, _MAX_REACH_PIX)
    psf = psf_moments(plane, x, y, nearest)
    source = np.empty((x.size, 3))
    status = np.empty(x.size, np.uint8)
    adaptive_moments(frame.image, frame.variance, frame.mask, UNUSABLE, x, y, sign, psf, reach, source, status)
    return Shapes(source=source, psf=psf, status=status)


def psf_moments(plane: PsfOnFrame, x: Float64, y: Float64, reach: int) -> Float64:
    """(n, 3) adaptive moments of the PSF [pixel**2]: measured on a 4 x 4 grid, then a quadratic polynomial.

    The PSF is itself a low-order polynomial of the position, so its moments follow one to about 0.1 %.
    """
    ny, nx = plane.psf.shape
    grid_y, grid_x = (g.ravel() for g in np.meshgrid(np.linspace(0, ny - 1, 4), np.linspace(0, nx - 1, 4)))
    start = np.array([[(plane.fwhm_pix / 2.3548) ** 2] * 2 + [0.0]])
    center = np.array([plane.psf.size // 2], np.float64)
    good = np.ones((plane.psf.size, plane.psf.size), np.float32)
    clean = np.zeros(good.shape, np.uint16)
    measured = np.empty((grid_x.size, 3))
    status, far = np.empty(1, np.uint8), np.array([reach], np.int64)
    for i, image in enumerate(plane.psf.at_many(grid_x, grid_y)):
        adaptive_moments(image, good, clean, 0, center, center, np.ones(1), start, far, measured[i : i + 1], status)
    is_good = np.isfinite(measured[:, 0])
    if is_good.sum() < 6:
        return np.repeat(start, x.size, axis=0)
    coefficients = np.linalg.lstsq(_quadratic(grid_x[is_good], grid_y[is_good], nx, ny), measured[is_good], rcond=None)[
        0
    ]
    return np.asarray(_quadratic(np.clip(x, 0, nx - 1), np.clip(y, 0, ny - 1), nx, ny) @ coefficients, np.float64)


def _quadratic(x: Float64, y: Float64, nx: int, ny: int) -> Float64:
    u, v = 2 * x / max(nx - 1, 1) - 1, 2 * y / max(ny - 1, 1) - 1
    return np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=1)


def extendedness(shapes: Shapes, snr: Float64) -> Float64:
    """Confidence in [0, 1] that the source is wider than the PSF; NaN without moments.

    The normal probability that the trace exceeds the PSF's by more than 3 of its errors (``2 T / SNR`` and 2 % for the
    PSF's model), so a half means three sigma.
    """
    ratio = shapes.size_ratio
    error = np.hypot(_TRACE_ERROR * ratio / np.maximum(np.abs(snr), 1.0), _PSF_MODEL_ERROR)
    return np.asarray(np.where(shapes.status == SHAPE_OK, ndtr((ratio - 1) / error - _EXTENDED_SIGMA), np.nan))


def sky_jacobians(wcs: Wcs, x: Float64, y: Float64) -> Float64:
    """(n, 2, 2) Jacobians of the local tangent planes (east, north) by pixel (x, y) [deg/pixel]."""
    offsets = np.array([[0.5, 0.0], [-0.5, 0.0], [0.0, 0.5], [0.0, -0.5]])
    ra0, dec0 = wcs.pixel_to_sky(x, y)
    ra, dec = wcs.pixel_to_sky(x[:, None] + offsets[:, 0], y[:, None] + offsets[:, 1])
    step, dec_rad, dec0_rad = np.radians(ra - ra0[:, None]), np.radians(dec), np.radians(dec0)[:, None]
    east = np.degrees(np.cos(dec_rad) * np.sin(step))
    north = np.degrees(np.sin(dec_rad) * np.cos(dec0_rad) - np.cos(dec_rad) * np.sin(dec0_rad) * np.cos(step))
    jacobians = np.empty((x.size, 2, 2))
    jacobians[:, 0, 0], jacobians[:, 0, 1] = east[:, 0] - east[:, 1], east[:, 2] - east[:, 3]
    jacobians[:, 1, 0], jacobians[:, 1, 1] = north[:, 0] - north[:, 1], north[:, 2] - north[:, 3]
    return jacobians


def to_sky(moments: Float64, jacobians: Float64) -> Float64:
    """Rotate and scale (n, 3) pixel moments to (n, 3) [arcsec**2]: xx along east, yy along north."""
    scaled = jacobians * 3600.0
    tensor = np.empty((moments.shape[0], 2, 2))
    tensor[:, 0, 0], tensor[:, 1, 1] = moments[:, 0], moments[:, 1]
    tensor[:, 0, 1] = tensor[:, 1, 0] = moments[:, 2]
    rotated = scaled @ tensor @ np.swapaxes(scaled, 1, 2)
    return np.stack([rotated[:, 0, 0], rotated[:, 1, 1], rotated[:, 0, 1]], axis=1)
