"""Halos of bright stars: the round part goes, a transient inside stays."""

import numpy as np
import pytest

from core.contracts.catalogs import SOURCE
from core.contracts.exposure import Frame
from core.flags import Mask
from core.kernels.halos import ring_medians
from core.stages.halos import subtract_halos
from tests.support.difference_scene import add_stars


def test_halo_goes_and_the_transient_in_it_stays() -> None:
    rng = np.random.default_rng(1)
    yy, xx = np.mgrid[:256, :256]
    radius = np.hypot(yy - 120, xx - 130)
    image = (rng.normal(size=(256, 256)) + 40 * np.exp(-radius / 12)).astype(np.float32)
    add_stars(image, np.array([150.0]), np.array([120.0]), np.array([400.0]), np.array([1.8]))
    mask = np.zeros(image.shape, np.uint16)
    mask[radius < 8] = Mask.SAT
    image[radius < 8] = 1e5
    stars = np.zeros(2, SOURCE)
    stars["x"], stars["y"], stars["mask"] = [130, 131], [120, 128], Mask.SAT
    frame = Frame(image=image, variance=np.ones_like(image), mask=mask)
    assert subtract_halos(frame, stars) == 1
    source = np.hypot(yy - 120, xx - 150) < 6
    ring = (radius > 12) & (radius < 40)
    assert image[ring & ~source].mean() == pytest.approx(0.0, abs=0.12)
    assert image[source].sum() == pytest.approx(400.0, abs=45.0)


def test_where_no_halo_is_hardly_any_noise_is_added() -> None:
    """A ring of two pixels at radius 20 has a median known to 0.08 sigma, and all its pixels would share the error."""
    rng = np.random.default_rng(3)
    image = rng.normal(size=(1200, 1200)).astype(np.float32)
    stars = np.zeros(25, SOURCE)
    stars["x"], stars["y"] = (g.ravel() for g in np.meshgrid(np.arange(5) * 230 + 120, np.arange(5) * 230 + 120))
    stars["snr"] = 5000
    before = image.copy()
    frame = Frame(image=image, variance=np.ones_like(image), mask=np.zeros(image.shape, np.uint16))
    assert subtract_halos(frame, stars) == 25
    yy, xx = np.mgrid[:1200, :1200]
    near = np.min([np.hypot(yy - s["y"], xx - s["x"]) for s in stars], axis=0)
    change = (before - image)[(near > 15) & (near < 25)]
    assert np.sqrt(np.mean(np.square(change))) < 0.045


def test_a_flat_difference_stays_flat_and_faint_stars_are_left_alone() -> None:
    image = np.ones((64, 64), np.float32)
    stars = np.zeros(3, SOURCE)
    stars["x"], stars["y"], stars["snr"] = [30, 10, 60], [30, 50, 5], [500, 400, 300]
    frame = Frame(image=image, variance=np.ones_like(image), mask=np.zeros((64, 64), np.uint16))
    assert subtract_halos(frame, stars) == 1
    assert (image == 1).all()
    assert subtract_halos(frame, stars[:0]) == 0


def test_ring_medians_agree_with_numpy() -> None:
    rng = np.random.default_rng(2)
    image = rng.normal(size=(80, 90)).astype(np.float32)
    mask = (rng.uniform(size=image.shape) < 0.1).astype(np.uint16)
    axis = np.arange(-20, 21)
    rings = (np.hypot(axis[:, None], axis[None, :]) // 4).astype(np.int32)
    profile = np.empty(5)
    ring_medians(image, mask, 1, 10, 40, rings, 5, np.empty((5, 700), np.float32), profile)
    yy, xx = np.mgrid[:80, :90]
    found = (np.hypot(yy - 10, xx - 40) // 4).astype(int)
    for n in range(5):
        values = np.sort(image[(found == n) & (mask == 0)])
        assert profile[n] == values[values.size // 2]
