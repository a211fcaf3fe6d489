"""HEALPix cells: coarse ones key the history, fine ones the claims of new objects."""

from typing import Final

import hpgeom
import numpy as np
from numpy.typing import NDArray

from core.camera import Camera
from service.storage.footprint import detector_corners

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

HISTORY_ORDER: Final = 10
"""3.4 arcmin: a detector touches about 30."""
CLAIM_ORDER: Final = 16
"""3.2 arcsec: everything within 1 arcsec is in a cell or one of its eight neighbors."""
PAD_ARCSEC: Final = 30.0
"""Sky around the predicted footprint whose history is loaded."""


def cells_of(ra_deg: Float64, dec_deg: Float64, order: int) -> Int64:
    """(n,) nested HEALPix cells of positions."""
    if ra_deg.size == 0:
        return np.empty(0, np.int64)
    return np.asarray(hpgeom.angle_to_pixel(1 << order, ra_deg, dec_deg), np.int64)


def neighborhood(cells: Int64, order: int) -> Int64:
    """(n, 9) each cell and its neighbors; -1 where a corner of the sphere has none."""
    return np.column_stack([cells, hpgeom.neighbors(1 << order, cells)])


def cell_circle(cells: list[int], order: int) -> tuple[float, float, float]:
    """Center (ra, dec) and radius [deg] of a circle that holds whole cells."""
    lon, lat = hpgeom.boundaries(1 << order, np.array(cells, np.int64))
    ra, dec = np.radians(lon).ravel(), np.radians(lat).ravel()
    vectors = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
    center = vectors.mean(axis=1)
    center /= np.linalg.norm(center)
    radius = np.degrees(np.arccos(np.clip((vectors.T @ center).min(), -1, 1)))
    x, y, z = center
    return float(np.degrees(np.arctan2(y, x)) % 360), float(np.degrees(np.arcsin(z))), float(radius)


def cone_cells(ra_deg: float, dec_deg: float, radius_deg: float, order: int) -> list[int]:
    """Cells that a circle touches, and perhaps a few beside it."""
    cells = hpgeom.query_circle(1 << order, ra_deg, dec_deg, radius_deg, inclusive=True)
    return sorted(int(cell) for cell in cells)


def detector_cells(camera: Camera, detector: int, ra_deg: float, dec_deg: float, rot_sky_deg: float) -> list[int]:
    """History cells that a detector's predicted footprint and a margin around it touch."""
    corners = detector_corners(camera, detector, ra_deg, dec_deg, rot_sky_deg)
    ra0, dec0 = corners[0]
    # Offsets from one corner, so that the mean is safe at ra = 0; the margin scales the corners about the middle.
    offsets = np.stack([(corners[:, 0] - ra0 + 180) % 360 - 180, corners[:, 1] - dec0], axis=1)
    middle = offsets.mean(axis=0)
    stretch = 1 + 2 * PAD_ARCSEC / 3600 / np.ptp(offsets[:, 1])
    grown = middle + stretch * (offsets - middle)
    lon, lat = (grown[:, 0] + ra0) % 360, np.clip(grown[:, 1] + dec0, -90, 90)
    cells = hpgeom.query_polygon(1 << HISTORY_ORDER, lon, lat, inclusive=True)
    return sorted(int(cell) for cell in cells)
