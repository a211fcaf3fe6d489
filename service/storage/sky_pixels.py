"""HEALPix cells: coarse ones key the history, fine ones the claims of new objects."""

from typing import Final

import cdshealpix.nested
import numpy as np
from astropy import units
from astropy.coordinates import Latitude, Longitude
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
    lon, lat = Longitude(ra_deg, units.deg), Latitude(dec_deg, units.deg)
    return np.asarray(cdshealpix.nested.lonlat_to_healpix(lon, lat, order), np.int64)


def neighborhood(cells: Int64, order: int) -> Int64:
    """(n, 9) each cell and its neighbors; -1 where a corner of the sphere has none."""
    return np.asarray(cdshealpix.nested.neighbours(cells.astype(np.uint64), order), np.int64)


def cell_circle(cells: list[int], order: int) -> tuple[float, float, float]:
    """Center (ra, dec) and radius [deg] of a circle that holds whole cells."""
    lon, lat = cdshealpix.nested.vertices(np.array(cells, np.uint64), order)
    ra, dec = np.radians(lon.deg).ravel(), np.radians(lat.deg).ravel()
    vectors = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
    center = vectors.mean(axis=1)
    center /= np.linalg.norm(center)
    radius = np.degrees(np.arccos(np.clip((vectors.T @ center).min(), -1, 1)))
    x, y, z = center
    return float(np.degrees(np.arctan2(y, x)) % 360), float(np.degrees(np.arcsin(z))), float(radius)


def cone_cells(ra_deg: float, dec_deg: float, radius_deg: float) -> list[int]:
    """History cells that a circle touches."""
    lon, lat, radius = Longitude(ra_deg, units.deg), Latitude(dec_deg, units.deg), units.Quantity(radius_deg, units.deg)
    cells, _, _ = cdshealpix.nested.cone_search(lon, lat, radius, HISTORY_ORDER, flat=True)
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
    lon = Longitude((grown[:, 0] + ra0) % 360, units.deg)
    lat = Latitude(np.clip(grown[:, 1] + dec0, -90, 90), units.deg)
    cells, _, _ = cdshealpix.nested.polygon_search(lon, lat, HISTORY_ORDER, flat=True)
    return sorted(int(cell) for cell in cells)
