"""Drawn stars come out once each, in place, with their flux; empty sky stays empty."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import convolve1d
from scipy.spatial import cKDTree

from core.contracts.catalogs import Catalog
from core.contracts.exposure import Frame
from core.flags import Mask
from core.kernels.source_detection import measure_shapes, smooth_separable
from core.stages.sources import SourcesConfig, clump, detect_sources, fwhm_of, gaussian_taps, measure_seeing
from core.workspace import Workspace
from tests.support.starfield import Starfield, add_track, draw_stars, make_starfield


@pytest.fixture(scope="module")
def field() -> Starfield:
    return make_starfield(n=80, flux_range=(1.5e3, 2e5))


@pytest.fixture(scope="module")
def sources(field: Starfield) -> Catalog:
    return detect_sources(field.frame, 4.0, Workspace(), SourcesConfig())


def nearest(field: Starfield, sources: Catalog) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    distance, index = cKDTree(np.stack([sources["x"], sources["y"]], -1)).query(np.stack([field.x, field.y], -1))
    return distance, index


def test_every_star_is_found_once_and_nothing_else(field: Starfield, sources: Catalog) -> None:
    distance, index = nearest(field, sources)
    assert (distance < 1.2).all()
    assert np.unique(index).size == field.x.size
    assert sources.size - field.x.size <= 2
    assert (np.diff(sources["peak"][sources["snr"] > 50]) < sources["peak"][0]).all()


def test_positions_fluxes_and_shapes(field: Starfield, sources: Catalog) -> None:
    _, index = nearest(field, sources)
    found, bright = sources[index], field.flux > 2e4
    assert np.abs(found["x"] - field.x)[bright].max() < 0.06
    assert np.abs(found["y"] - field.y)[bright].max() < 0.06
    # what an aperture of twice the FWHM holds of this Moffat star
    np.testing.assert_allclose((found["apFlux"] / field.flux)[bright], 0.962, atol=0.06)
    widths = fwhm_of(*(found[name].astype(np.float64) for name in ("ixx", "iyy", "ixy")))
    np.testing.assert_allclose(np.median(widths[bright]), 4.6, atol=0.3)
    assert np.ptp(widths[bright]) < 0.5
    noise = np.hypot(found["apFlux"] - 0.962 * field.flux, 0) / found["apFluxErr"]
    assert np.median(noise[~bright]) < 1.5


def test_snr_is_that_of_a_matched_filter(field: Starfield, sources: Catalog) -> None:
    _, index = nearest(field, sources)
    faint = field.flux < 5e3
    expected = field.flux / np.sqrt(1 / 0.0195 * (field.sky + 36 + field.flux * 0.02))
    np.testing.assert_allclose(np.median(sources["snr"][index][faint] / expected[faint]), 1.0, atol=0.12)


def test_empty_sky_gives_no_more_than_noise_peaks() -> None:
    rng = np.random.default_rng(11)
    shape = (512, 512)
    frame = Frame(
        image=rng.normal(0, 30, shape).astype(np.float32),
        variance=np.full(shape, 900, np.float32),
        mask=np.zeros(shape, np.uint16),
    )
    assert detect_sources(frame, 4.0, Workspace(), SourcesConfig()).size <= 1
    assert detect_sources(frame, 4.0, Workspace(), SourcesConfig(min_snr=4.0)).size >= 1


def test_wings_of_a_bright_star_hold_few_peaks() -> None:
    shape = (400, 400)
    signal = draw_stars(shape, np.array([200.0]), np.array([200.3]), np.array([3e7]), 4.0, size=201)
    rng = np.random.default_rng(2)
    image = rng.poisson(signal + 900) - 900.0
    mask = np.where(signal > 1e5, np.uint16(Mask.SAT), np.uint16(0))
    frame = Frame(image=image.astype(np.float32), variance=(signal + 936).astype(np.float32), mask=mask)
    assert detect_sources(frame, 4.0, Workspace(), SourcesConfig()).size <= 4


@pytest.mark.parametrize("fwhm", [2.75, 4.0, 6.0])
def test_seeing_is_that_of_the_stars_not_of_cosmic_rays_or_galaxies(fwhm: float) -> None:
    field = make_starfield(shape=(512, 512), n=70, fwhm=fwhm, seed=9, flux_range=(2e4, 5e5))
    rng = np.random.default_rng(3)
    image = field.frame.image
    for y, x in rng.integers(20, 490, (80, 2)):
        image[y, x : x + 2] += 3000
    places = rng.uniform(20, 490, (2, 40))
    for width in np.linspace(1.4, 3.0, 8):
        image += draw_stars(image.shape, *places[:, :5] + rng.uniform(-9, 9, (2, 5)), np.full(5, 2e5), width * fwhm)
    measured = measure_seeing(field.frame, 4.5, Workspace(), SourcesConfig())
    # adaptive moments of a Moffat star are a little wider than its half maximum
    assert 0.93 * fwhm < measured < 1.2 * fwhm


def test_seeing_is_not_the_width_of_a_satellites_track() -> None:
    """Its ridge has more bright peaks than the frame has stars, all of one size."""
    field = make_starfield(shape=(1024, 1024), n=60, seed=9, flux_range=(2e4, 5e5))
    add_track(field.frame, 2500.0, 5.0)
    assert 0.93 * 4.0 < measure_seeing(field.frame, 4.5, Workspace(), SourcesConfig()) < 1.2 * 4.0


def test_seeing_falls_back_on_the_guess() -> None:
    frame = Frame(
        image=np.zeros((64, 64), np.float32), variance=np.ones((64, 64), np.float32), mask=np.zeros((64, 64), np.uint16)
    )
    assert measure_seeing(frame, 4.2, Workspace(), SourcesConfig()) == 4.2


def test_smoothing_equals_scipy() -> None:
    image = np.random.default_rng(1).normal(0, 1, (70, 90)).astype(np.float32)
    taps = gaussian_taps(1.7)
    out = np.empty_like(image)
    smooth_separable(image, taps, out)
    whole = np.concatenate([taps[:0:-1], taps])
    plain = convolve1d(convolve1d(image.astype(float), whole, axis=0, mode="constant"), whole, axis=1, mode="constant")
    np.testing.assert_allclose(out, plain, atol=2e-6)


def test_clump_finds_the_denser_of_two() -> None:
    rng = np.random.default_rng(4)
    values = np.concatenate([rng.normal(4.0, 0.05, 60), rng.uniform(2, 12, 150)])
    np.testing.assert_allclose(clump(values), 4.0, atol=0.1)


def test_moments_of_an_elliptical_gaussian_are_its_own() -> None:
    y, x = np.mgrid[:61, :61]
    covariance = np.array([[4.0, 0.8], [0.8, 2.5]])
    d = np.stack([x - 30.3, y - 29.8], -1)
    image = (1e4 * np.exp(-0.5 * np.einsum("yxi,ij,yxj->yx", d, np.linalg.inv(covariance), d))).astype(np.float32)
    out, bits = np.empty((1, 8)), np.empty(1, np.uint16)
    mask = np.zeros(image.shape, np.uint16)
    mask[31, 31], mask[40, 40] = Mask.CR, Mask.SAT
    peak = (np.array([30], np.int32), np.array([30], np.int32))
    measure_shapes(image, np.ones_like(image), mask, *peak, 1.8, 0, 12.0, out, bits)
    np.testing.assert_allclose(out[0, :2], [30.3, 29.8], atol=0.01)
    np.testing.assert_allclose(out[0, 2:5], [4.0, 2.5, 0.8], atol=0.1)
    np.testing.assert_allclose(out[0, 5], image.sum(), rtol=1e-3)
    assert bits[0] == Mask.CR
