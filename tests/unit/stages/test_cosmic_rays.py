"""Tracks are found, star centers are not."""

import numpy as np
import pytest
from numpy.typing import NDArray

from core.flags import Mask
from core.kernels.cosmic_rays import find_sharp_pixels, sharpest_near
from core.stages.cosmic_rays import CosmicRayConfig, find_cosmic_rays, star_bounds
from core.stages.sources import SourcesConfig, measure_seeing
from core.workspace import Workspace
from tests.support.reference.cosmic_rays import sharp_pixels
from tests.support.starfield import make_starfield


def add_tracks(image: NDArray[np.float32], rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Straight tracks of 100-2000 e- a pixel of path, spread by 0.3 pixels; returns the charge they left."""
    charge = np.zeros(image.shape)
    for _ in range(n):
        length, angle = np.exp(rng.uniform(0, 3.5)), rng.uniform(0, np.pi)
        density = np.exp(rng.uniform(np.log(100), np.log(2000)))
        t = np.arange(0, length, 0.1)
        x = rng.uniform(10, image.shape[1] - 10) + t * np.cos(angle) + rng.normal(0, 0.3, t.size)
        y = rng.uniform(10, image.shape[0] - 10) + t * np.sin(angle) + rng.normal(0, 0.3, t.size)
        ix, iy = np.round(x).astype(int), np.round(y).astype(int)
        ok = (ix > 1) & (ix < image.shape[1] - 2) & (iy > 1) & (iy < image.shape[0] - 2)
        np.add.at(charge, (iy[ok], ix[ok]), 0.1 * density)
    image += charge.astype(np.float32)
    return charge


@pytest.mark.parametrize(("fwhm", "seed"), [(2.75, 1), (4.0, 2), (6.0, 3)])
def test_tracks_are_found_and_stars_survive(fwhm: float, seed: int) -> None:
    field = make_starfield(shape=(512, 512), n=250, fwhm=fwhm, seed=seed, min_distance=14, flux_range=(4e3, 1.5e6))
    rng = np.random.default_rng(seed)
    charge = add_tracks(field.frame.image, rng, 40)
    seeing = measure_seeing(field.frame, 4.5, Workspace(), SourcesConfig())
    n = find_cosmic_rays(field.frame, seeing, Workspace(), CosmicRayConfig())
    found = (field.frame.mask & np.uint16(Mask.CR)) != 0
    assert n == found.sum()
    hit = charge > 150
    assert found[hit].mean() > 0.75
    near = np.zeros_like(found)
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            near |= np.roll(charge > 0, (dy, dx), (0, 1))
    assert (found & ~near).sum() <= 20
    ys, xs = np.round(field.y).astype(int), np.round(field.x).astype(int)
    is_free = ~near[ys, xs]
    assert is_free.sum() > 200
    assert found[ys, xs][is_free].sum() == 0


def test_interpolation_brings_the_sky_back() -> None:
    field = make_starfield(shape=(256, 256), n=10, seed=4)
    clean = field.frame.image.copy()
    charge = add_tracks(field.frame.image, np.random.default_rng(4), 20)
    find_cosmic_rays(field.frame, 4.0, Workspace(), CosmicRayConfig())
    hit = (charge > 300) & (field.signal < 5)
    left = field.frame.image[hit] - clean[hit]
    assert np.abs(np.median(left)) < 15
    assert (field.frame.mask[hit] & np.uint16(Mask.INTERPOLATED) != 0).mean() > 0.95


def test_a_dead_column_beside_a_star_is_interpolated_and_no_cosmic_ray() -> None:
    field = make_starfield(shape=(128, 128), n=8, seed=6, flux_range=(1e5, 2e5))
    for x in np.round(field.x).astype(int):
        field.frame.image[:, x + 1] = -900
        field.frame.mask[:, x + 1] = Mask.BAD
    assert find_cosmic_rays(field.frame, 4.0, Workspace(), CosmicRayConfig()) == 0
    column = round(float(field.x[0])) + 1
    assert (field.frame.mask[:, column] & Mask.INTERPOLATED).all()
    assert field.frame.image[:, column].min() > -200


def test_a_clean_frame_stays_as_it_is() -> None:
    field = make_starfield(shape=(256, 256), n=30, seed=7)
    before = field.frame.image.copy()
    assert find_cosmic_rays(field.frame, 4.0, Workspace(), CosmicRayConfig()) <= 9
    assert (field.frame.image == before).mean() > 0.999


def test_the_first_search_equals_its_plain_twin() -> None:
    field = make_starfield(shape=(200, 230), n=25, seed=8)
    add_tracks(field.frame.image, np.random.default_rng(8), 15)
    image, variance, mask = field.frame.image, field.frame.variance, field.frame.mask
    mask[50:60, 100] = Mask.BAD
    y, x = np.empty(5000, np.int32), np.empty(5000, np.int32)
    sigma, skip = 1.6, np.uint16(Mask.BAD)
    axis, diagonal = float(np.exp(-0.5 / sigma**2)), float(np.exp(-1 / sigma**2))
    n = find_sharp_pixels(image, variance, mask, skip, 1.0, 5.0, axis, diagonal, 0.1, 4.0, y, x)
    found = np.zeros(image.shape, bool)
    found[y[:n], x[:n]] = True
    expected = sharp_pixels(image.astype(float), variance.astype(float), mask != 0, sigma, 5.0, 4.0, 0.1)
    assert n > 50
    assert np.count_nonzero(found != expected) <= 1


def test_a_particle_is_sharper_than_a_star_of_its_flux() -> None:
    fwhm = 2.75
    field = make_starfield(shape=(256, 256), n=20, fwhm=fwhm, seed=9, min_distance=25, flux_range=(3e3, 3e4))
    frame, rng = field.frame, np.random.default_rng(9)
    free = [(y, x) for y in range(20, 240, 20) for x in range(20, 240, 20)
            if np.hypot(field.y - y, field.x - x).min() > 12][:30]  # fmt: skip
    hit_y, hit_x = np.array(free, np.int32).T
    # the charge of two pixels, off the pixel that is asked for
    frame.image[hit_y, hit_x] += 8 * np.sqrt(frame.variance[hit_y, hit_x])
    frame.image[hit_y, hit_x + 1] += 4 * np.sqrt(frame.variance[hit_y, hit_x + 1])
    y = np.concatenate([hit_y + rng.integers(-1, 2, hit_y.size), np.rint(field.y)]).astype(np.int32)
    x = np.concatenate([hit_x, np.rint(field.x)]).astype(np.int32)
    sharpness = np.empty(y.size, np.float32)
    planes = (frame.image, frame.variance, frame.mask)
    sharpest_near(*planes, np.uint16(Mask.BAD), 2.5, *star_bounds(0.95 * fwhm), 0.05, y, x, sharpness)
    assert (sharpness[: hit_y.size] > 2.5).mean() > 0.9
    assert sharpness[hit_y.size :].max() < 2.5
