"""Where a detector's pixels fall on the sky and on a tract's grid, before the exposure."""

import numpy as np
from numpy.typing import NDArray

from core.camera import Camera
from core.contracts.wcs import Wcs, separation_arcsec

Float64 = NDArray[np.float64]
Box = tuple[int, int, int, int]


def detector_corners(camera: Camera, detector: int, ra_deg: float, dec_deg: float, rot_sky_deg: float) -> Float64:
    """(4, 2) ICRS (ra, dec) [deg] of the predicted outer corners, in order around the detector."""
    ny, nx = camera.detectors[detector].shape
    x = np.array([-0.5, nx - 0.5, nx - 0.5, -0.5])
    y = np.array([-0.5, -0.5, ny - 0.5, ny - 0.5])
    ra, dec = camera.pixel_to_sky(detector, x, y, ra_deg, dec_deg, rot_sky_deg)
    return np.stack([ra, dec], axis=1)


def detector_radius_deg(corners: Float64) -> tuple[float, float, float]:
    """Center (ra, dec) and radius of the circle about a detector's corners [deg]."""
    ra, dec = np.radians(corners).T
    vectors = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
    x, y, z = vectors.mean(axis=1)
    center_ra, center_dec = float(np.degrees(np.arctan2(y, x)) % 360), float(np.degrees(np.arctan2(z, np.hypot(x, y))))
    radius = separation_arcsec(corners[:, 0], corners[:, 1], center_ra, center_dec).max() / 3600
    return center_ra, center_dec, float(radius)


def covering_patches(
    wcs: Wcs, corners: Float64, pad_pix: float, patch_size: int, shape: tuple[int, int]
) -> tuple[Box, list[tuple[int, int]]]:
    """Box (y0, y1, x0, x1) of a tract's pixels around a padded footprint, and (row, column) of the patches under it.

    Patches that only the box touches, not the (rotated) footprint itself, are left out. Empty where the tract is
    elsewhere.
    """
    x, y = wcs.sky_to_pixel(corners[:, 0], corners[:, 1])
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return (0, 0, 0, 0), []
    polygon = _grown(np.stack([x, y], axis=1), pad_pix)
    low, high = np.floor(polygon.min(axis=0)).astype(int), np.ceil(polygon.max(axis=0)).astype(int) + 1
    x0, x1 = max(int(low[0]), 0), min(int(high[0]), shape[1])
    y0, y1 = max(int(low[1]), 0), min(int(high[1]), shape[0])
    if x0 >= x1 or y0 >= y1:
        return (0, 0, 0, 0), []
    patches = [
        (row, column)
        for row in range(y0 // patch_size, (y1 - 1) // patch_size + 1)
        for column in range(x0 // patch_size, (x1 - 1) // patch_size + 1)
        if _touches(polygon, column * patch_size - 0.5, row * patch_size - 0.5, patch_size)
    ]
    return (y0, y1, x0, x1), patches


def _grown(polygon: Float64, pad: float) -> Float64:
    """A convex quadrilateral, each side moved outwards by ``pad``."""
    center = polygon.mean(axis=0)
    along = np.roll(polygon, -1, axis=0) - polygon
    normal = np.stack([along[:, 1], -along[:, 0]], axis=1) / np.linalg.norm(along, axis=1, keepdims=True)
    normal *= np.sign(((polygon - center) * normal).sum(axis=1, keepdims=True))
    offset = (polygon * normal).sum(axis=1) + pad
    pairs = [(normal[[i - 1, i]], offset[[i - 1, i]]) for i in range(len(polygon))]
    return np.stack([np.linalg.solve(matrix, right) for matrix, right in pairs])


def _touches(polygon: Float64, x0: float, y0: float, side: float) -> bool:
    """Whether a convex polygon and a square overlap: no side of either separates them."""
    square = np.array([[x0, y0], [x0 + side, y0], [x0 + side, y0 + side], [x0, y0 + side]])
    for shape in (polygon, square):
        along = np.roll(shape, -1, axis=0) - shape
        for normal in np.stack([along[:, 1], -along[:, 0]], axis=1):
            a, b = polygon @ normal, square @ normal
            if a.max() < b.min() or b.max() < a.min():
                return False
    return True
