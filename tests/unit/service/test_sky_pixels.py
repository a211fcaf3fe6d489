"""Sky cells against another HEALPix library."""

import cdshealpix.nested
import numpy as np
import pytest
from astropy import units
from astropy.coordinates import Latitude, Longitude

from core.camera import load_camera
from service.storage.footprint import detector_corners
from service.storage.sky_pixels import (
    CLAIM_ORDER,
    HISTORY_ORDER,
    cell_circle,
    cells_of,
    cone_cells,
    detector_cells,
    neighborhood,
)

PLACES = [(0.0, 0.0), (359.999, 12.0), (150.1, -2.2), (45.0, 89.5), (201.0, -70.0), (315.0, 41.8)]


def deg(ra: object, dec: object) -> tuple[Longitude, Latitude]:
    return Longitude(ra, units.deg), Latitude(dec, units.deg)


@pytest.mark.parametrize("order", [6, HISTORY_ORDER, CLAIM_ORDER])
def test_cells_and_their_neighbors(order: int) -> None:
    rng = np.random.default_rng(2)
    ra, dec = rng.uniform(0, 360, 5000), np.degrees(np.arcsin(rng.uniform(-1, 1, 5000)))
    cells = cells_of(ra, dec, order)
    np.testing.assert_array_equal(cells, cdshealpix.nested.lonlat_to_healpix(*deg(ra, dec), order).astype(np.int64))
    around = np.sort(neighborhood(cells, order), axis=1)
    theirs = np.sort(cdshealpix.nested.neighbours(cells.astype(np.uint64), order), axis=1)
    np.testing.assert_array_equal(around, theirs)


@pytest.mark.parametrize(("ra", "dec"), PLACES)
def test_a_circle_misses_no_cell_and_takes_few_beside_it(ra: float, dec: float) -> None:
    ours = set(cone_cells(ra, dec, 0.3, HISTORY_ORDER))
    exact = cdshealpix.nested.cone_search(*deg(ra, dec), 0.3 * units.deg, HISTORY_ORDER, flat=True)[0]
    touched = cdshealpix.nested.cone_search(*deg(ra, dec), 0.4 * units.deg, HISTORY_ORDER, flat=True)[0]
    inside = set(cells_of(*_disk(ra, dec, 0.3), HISTORY_ORDER).tolist())
    assert inside <= ours
    assert ours <= set(map(int, touched))
    assert len(ours) <= 1.1 * exact.size


@pytest.mark.parametrize(("ra", "dec"), PLACES)
def test_a_detectors_cells_hold_every_place_of_it(ra: float, dec: float) -> None:
    camera = load_camera("lsstcam")
    for detector, rotation in ((94, 0.0), (0, 33.0), (188, 271.0)):
        cells = set(detector_cells(camera, detector, ra, dec, rotation))
        corners = detector_corners(camera, detector, ra, dec, rotation)
        u, v = np.meshgrid(np.linspace(0, 1, 40), np.linspace(0, 1, 40))
        vectors = np.stack(_vector(corners[:, 0], corners[:, 1]), axis=-1)
        bottom = vectors[0] + u[..., None] * (vectors[1] - vectors[0])
        top = vectors[3] + u[..., None] * (vectors[2] - vectors[3])
        inside = bottom + v[..., None] * (top - bottom)
        x, y, z = np.moveaxis(inside, -1, 0)
        ra_in, dec_in = np.degrees(np.arctan2(y, x)) % 360, np.degrees(np.arctan2(z, np.hypot(x, y)))
        assert set(cells_of(ra_in.ravel(), dec_in.ravel(), HISTORY_ORDER).tolist()) <= cells
        assert 15 <= len(cells) <= 45


def test_a_circle_holds_whole_cells() -> None:
    cells = cone_cells(150.0, 2.0, 0.1, HISTORY_ORDER)
    ra, dec, radius = cell_circle(cells, HISTORY_ORDER)
    lon, lat = cdshealpix.nested.vertices(np.array(cells, np.uint64), HISTORY_ORDER)
    away = np.arccos(np.clip(np.tensordot(_vector(ra, dec), _vector(lon.deg, lat.deg), axes=(0, 0)), -1, 1))
    assert np.degrees(away.max()) <= radius + 1e-9


def _vector(ra: object, dec: object) -> tuple[np.ndarray, ...]:
    lon, lat = np.radians(ra), np.radians(dec)
    return np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)


def _disk(ra: float, dec: float, radius_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """Places on and in a circle on the sphere."""
    r, angle = np.meshgrid(np.radians(np.linspace(0, radius_deg, 60)), np.linspace(0, 2 * np.pi, 200))
    sin_dec = np.sin(np.radians(dec)) * np.cos(r) + np.cos(np.radians(dec)) * np.sin(r) * np.cos(angle)
    shift = np.arctan2(
        np.sin(angle) * np.sin(r) * np.cos(np.radians(dec)), np.cos(r) - np.sin(np.radians(dec)) * sin_dec
    )
    return ((ra + np.degrees(shift)) % 360).ravel(), np.degrees(np.arcsin(sin_dec)).ravel()
