"""Maps on a lattice: their values, slopes and rim, and what the WCS and the PSF make of them."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from core.contracts.local_maps import LocalMaps, lattice_shape
from core.contracts.psf import PsfModel, n_terms, polynomial_terms
from core.errors import RejectedInputError
from tests.support.difference_scene import gaussian
from tests.unit.core.test_wcs import distorted_wcs

Float64 = NDArray[np.float64]
STEP = 64
SHAPE = (4004, 4096)


def maps_of(*fields: Float64) -> LocalMaps:
    return LocalMaps(values=np.stack(fields).astype(np.float32), step_pix=STEP)


def nodes() -> tuple[Float64, Float64]:
    """(x, y) of the nodes of a detector's lattice [pixel]."""
    n_y, n_x = lattice_shape(SHAPE, STEP)
    y, x = np.mgrid[:n_y, :n_x] * float(STEP)
    return x, y


def test_the_lattice_holds_the_whole_detector() -> None:
    assert lattice_shape((129, 128), STEP) == (3, 3)
    assert lattice_shape((130, 1), STEP) == (4, 1)
    n_y, n_x = lattice_shape(SHAPE, STEP)
    assert (n_y - 2) * STEP < SHAPE[0] - 1 <= (n_y - 1) * STEP
    assert (n_x - 2) * STEP < SHAPE[1] - 1 <= (n_x - 1) * STEP


def test_a_bilinear_field_comes_back_everywhere() -> None:
    x, y = nodes()
    maps = maps_of(1 + x / 1000 - y / 2000, x * y / 1e6)
    rng = np.random.default_rng(1)
    px, py = rng.uniform(0, SHAPE[1] - 1, 50), rng.uniform(0, SHAPE[0] - 1, 50)
    expected = np.stack([1 + px / 1000 - py / 2000, px * py / 1e6], axis=-1)
    np.testing.assert_allclose(maps.at(px, py), expected, atol=1e-5)
    assert maps.at(px.reshape(5, 10), py.reshape(5, 10)).shape == (5, 10, 2)
    assert maps.at(3.0, 4.0).shape == (2,)
    inside = (np.minimum(px, py) > STEP) & (np.maximum(px, py) < 3900)
    by_x, by_y = maps.slope(px[inside], py[inside], 1), maps.slope(px[inside], py[inside], 0)
    np.testing.assert_allclose(by_x[:, 0], 1e-3, rtol=1e-3)
    np.testing.assert_allclose(by_y[:, 1], px[inside] / 1e6, atol=1e-7)


def test_beyond_the_lattice_the_rim_goes_on_and_nan_is_the_first_node() -> None:
    x, _ = nodes()
    maps = maps_of(x)
    last = float(x[0, -1])
    np.testing.assert_array_equal(maps.at([-900.0, last + 900], [50.0, 50.0])[:, 0], [0, last])
    assert maps.at(np.nan, np.nan)[0] == 0


def test_a_lattice_of_one_node_is_a_constant() -> None:
    maps = LocalMaps(values=np.full((1, 1, 1), 2.5, np.float32), step_pix=STEP)
    np.testing.assert_array_equal(maps.at([0.0, 31.0], [500.0, 2.0])[:, 0], 2.5)


def test_maps_of_another_type_are_rejected() -> None:
    with pytest.raises(RejectedInputError):
        LocalMaps(values=np.zeros((1, 2, 2)), step_pix=STEP)  # type: ignore[arg-type]


def test_a_wcs_with_maps_inverts_and_moves_pixels_by_them() -> None:
    x, y = nodes()
    turbulence = maps_of(0.2 * np.sin(x / 300) * np.cos(y / 250), 0.2 * np.cos(x / 350 + y / 300))
    plain = distorted_wcs()
    wcs = replace(plain, maps=turbulence)
    rng = np.random.default_rng(2)
    px, py = rng.uniform(-20, 4116, 500), rng.uniform(-20, 4024, 500)
    sky = wcs.pixel_to_sky(px, py)
    np.testing.assert_allclose(wcs.sky_to_pixel(*sky), (px, py), atol=1e-4)
    shift = turbulence.at(px, py)
    np.testing.assert_allclose(plain.sky_to_pixel(*sky), (px + shift[:, 0], py + shift[:, 1]), atol=1e-6)
    assert np.abs(shift).max() > 0.15
    # a header holds the polynomial alone
    assert wcs.to_header() == plain.to_header()


def test_maps_add_their_images_to_the_polynomials() -> None:
    shape = (1000, 1100)
    n_y, n_x = lattice_shape(shape, STEP)
    x = np.mgrid[:n_y, :n_x][1] * float(STEP)
    width = maps_of(0.02 * np.sin(x / 200))
    coefficients = np.zeros((n_terms(1) + 1, 25, 25), np.float32)
    coefficients[0] = gaussian(25, 2.0) / gaussian(25, 2.0).sum()
    coefficients[3] = (gaussian(25, 2.02) - gaussian(25, 1.98)) / 0.02
    psf = PsfModel(coefficients=coefficients, shape=shape, order=1, maps=width)
    terms = psf.terms([300.0, 700.0], [500.0, 20.0])
    np.testing.assert_array_equal(terms[:, :3], polynomial_terms([300.0, 700.0], [500.0, 20.0], shape, 1))
    np.testing.assert_array_equal(terms[:, 3:], width.at([300.0, 700.0], [500.0, 20.0]))
    for px in (320.0, 640.0, 960.0):
        ixx, iyy, _ = psf.moments(px, 500.0)
        expected = 2.0 * (1 + 0.02 * np.sin(px / 200))
        assert np.sqrt([ixx, iyy]) == pytest.approx([expected, expected], rel=1e-3)
    with pytest.raises(RejectedInputError):
        PsfModel(coefficients=coefficients[:3], shape=shape, order=1, maps=width)
