"""Halos of bright stars: the round part goes, a transient inside stays."""

import numpy as np
import pytest

from core.contracts.catalogs import SOURCE
from core.contracts.exposure import Frame
from core.flags import Mask
from core.kernels.halos import LUMP, mark_lumps, ring_medians
from core.stages.halos import subtract_halos
from tests.support.difference_scene import add_stars

AREA = 4 * np.pi * 1.8**2
"""Of a Gaussian PSF of sigma 1.8 pixel."""


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
    assert subtract_halos(frame, stars, AREA) == 1
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
    assert subtract_halos(frame, stars, AREA) == 25
    yy, xx = np.mgrid[:1200, :1200]
    near = np.min([np.hypot(yy - s["y"], xx - s["x"]) for s in stars], axis=0)
    change = (before - image)[(near > 15) & (near < 25)]
    assert np.sqrt(np.mean(np.square(change))) < 0.045


def test_a_flat_difference_stays_flat_and_faint_stars_are_left_alone() -> None:
    image = np.ones((64, 64), np.float32)
    stars = np.zeros(3, SOURCE)
    stars["x"], stars["y"], stars["snr"] = [30, 10, 60], [30, 50, 5], [500, 400, 300]
    frame = Frame(image=image, variance=np.ones_like(image), mask=np.zeros((64, 64), np.uint16))
    assert subtract_halos(frame, stars, AREA) == 1
    assert (image == 1).all()
    assert subtract_halos(frame, stars[:0], AREA) == 0


def test_ring_medians_agree_with_numpy() -> None:
    rng = np.random.default_rng(2)
    image = rng.normal(size=(80, 90)).astype(np.float32)
    mask = (rng.uniform(size=image.shape) < 0.1).astype(np.uint16)
    axis = np.arange(-20, 21)
    rings = (np.hypot(axis[:, None], axis[None, :]) // 4).astype(np.int32)
    profile = np.empty(5)
    lumps = np.zeros((11, 11), np.bool_)
    lumps[6, 7] = True
    ring_medians(image, mask, 1, 10, 40, rings, lumps, 5, np.empty((5, 700), np.float32), profile)
    yy, xx = np.mgrid[:80, :90]
    found = (np.hypot(yy - 10, xx - 40) // 4).astype(int)
    is_out = ((yy - 10 + 20) // LUMP == 6) & ((xx - 40 + 20) // LUMP == 7)
    for n in range(5):
        values = np.sort(image[(found == n) & (mask == 0) & ~is_out])
        assert profile[n] == values[values.size // 2]


def test_lumps_are_the_squares_that_stand_out_and_their_neighbours() -> None:
    rng = np.random.default_rng(4)
    image = rng.normal(size=(70, 60)).astype(np.float32)
    variance = np.full(image.shape, 1.2, np.float32)
    mask = (rng.uniform(size=image.shape) < 0.1).astype(np.uint16)
    y, x, reach, n_sigma = 20, 48, 22, 2.5
    profile = np.linspace(1.0, 0.0, reach + 1)
    n = -(-(2 * reach + 1) // LUMP)
    lumps = np.zeros((n, n), np.bool_)
    mark_lumps(image, variance, mask, 1, y, x, profile, n_sigma, lumps)
    expected = np.zeros((n + 2, n + 2), np.bool_)
    for b in range(n):
        for a in range(n):
            total = noise = 0.0
            for j in range(b * LUMP - reach, (b + 1) * LUMP - reach):
                for i in range(a * LUMP - reach, (a + 1) * LUMP - reach):
                    inside = 0 <= y + j < image.shape[0] and 0 <= x + i < image.shape[1]
                    if inside and int(np.hypot(j, i)) < reach and mask[y + j, x + i] == 0:
                        total += float(image[y + j, x + i]) - np.interp(np.hypot(j, i), np.arange(reach + 1), profile)
                        noise += 1.2
            if total**2 > n_sigma**2 * noise:
                expected[b : b + 3, a : a + 3] = True
    assert 0 < lumps.sum() < n * n
    np.testing.assert_array_equal(lumps, expected[1:-1, 1:-1])


def test_sources_in_halos_keep_their_flux_and_their_errors_hold() -> None:
    """Hundred sources of S/N 20 at 18 pixels from their stars: a ring's median would give a hundredth of each away."""
    rng = np.random.default_rng(5)
    side, n_side = 130, 10
    image = rng.normal(size=(n_side * side, n_side * side)).astype(np.float32)
    sigma_flux = np.sqrt(AREA)
    star_y, star_x = (g.ravel() * side + side // 2 for g in np.meshgrid(np.arange(n_side), np.arange(n_side)))
    angle = rng.uniform(0, 2 * np.pi, star_x.size)
    x, y = star_x + 18 * np.cos(angle), star_y + 18 * np.sin(angle)
    add_stars(image, x, y, np.full(x.size, 20 * sigma_flux), np.full(x.size, 1.8))
    stars = np.zeros(x.size, SOURCE)
    stars["x"], stars["y"], stars["snr"] = star_x, star_y, 5000
    frame = Frame(image=image, variance=np.ones_like(image), mask=np.zeros(image.shape, np.uint16))
    assert subtract_halos(frame, stars, AREA) == x.size
    axis = np.arange(-9, 10)
    pulls = []
    for cy, cx in zip(y, x, strict=True):
        iy, ix = round(cy), round(cx)
        here = (slice(iy - 9, iy + 10), slice(ix - 9, ix + 10))
        psf = np.exp(-(((axis[:, None] + iy - cy) ** 2 + (axis[None, :] + ix - cx) ** 2) / (2 * 1.8**2)))
        psf /= psf.sum()
        norm = np.square(psf).sum()
        flux, error = (psf * image[here]).sum() / norm, np.sqrt((psf**2 * frame.variance[here]).sum()) / norm
        pulls.append((flux - 20 * sigma_flux) / error)
    assert np.mean(pulls) == pytest.approx(0.0, abs=0.25)
    assert np.std(pulls) == pytest.approx(1.0, abs=0.2)
    assert 1.0 < frame.variance[star_y[0], star_x[0] + 18] < 1.5
