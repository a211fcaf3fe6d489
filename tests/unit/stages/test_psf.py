"""The PSF of drawn stars, and what fitting with it gives back."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from core.contracts.psf import polynomial_terms
from core.contracts.results import PsfFit
from core.errors import Outcome, UnusableDataError
from core.flags import Mask
from core.kernels.psf_fit import FIT_FAILED, centered_stamps, fit_pixels, fit_sources
from core.stages.psf import PsfConfig, fit_psf, select_stars
from core.stages.sources import SourcesConfig, detect_sources
from core.workspace import Workspace
from tests.support.reference import psf_fit as twin
from tests.support.starfield import Starfield, add_track, make_starfield, moffat_stamp


@pytest.fixture(scope="module")
def field() -> Starfield:
    return make_starfield(shape=(480, 480), n=140, flux_range=(4e3, 4e5), min_distance=30)


@pytest.fixture(scope="module")
def fit(field: Starfield) -> PsfFit:
    workspace = Workspace()
    return fit_psf(field.frame, detect_sources(field.frame, 4.0, workspace, SourcesConfig()), workspace, PsfConfig())


def test_psf_image_is_that_of_the_stars(fit: PsfFit) -> None:
    truth = moffat_stamp(0, 0, 4.0, fit.psf.size)
    truth /= truth.sum()
    for x, y in ((60.0, 60.0), (240.0, 240.0), (420.0, 400.0)):
        left = np.abs(fit.psf.at(x, y) - truth)
        assert left.max() < 0.02 * truth.max()
    assert fit.n_stars >= 40
    np.testing.assert_allclose(fit.psf.fwhm_pix(), 4.6, atol=0.2)


def test_a_steep_wing_keeps_its_level() -> None:
    """At 0.55 arcsec it falls by four within two pixels: smoothed as it is, it would rise by a tenth and more."""
    field = make_starfield(shape=(640, 640), n=150, fwhm=2.5, sky=300.0, flux_range=(1e5, 4e5), min_distance=44)
    workspace = Workspace()
    psf = fit_psf(field.frame, detect_sources(field.frame, 2.7, workspace, SourcesConfig()), workspace, PsfConfig()).psf
    truth = moffat_stamp(0, 0, 2.5, psf.size)
    radius = np.hypot(*np.indices(truth.shape) - psf.size // 2)
    middle = psf.at(320.0, 320.0)
    core = middle[radius < 4].sum() / truth[radius < 4].sum()
    for inner, outer in ((4.5, 6.0), (6.0, 8.0)):
        ring = (radius >= inner) & (radius < outer)
        # the sky is taken at the stamp's rim, where a Moffat star has some light left
        expected = core * (truth[ring].mean() - truth[radius > psf.size // 2 - 1].mean())
        assert middle[ring].mean() == pytest.approx(expected, rel=0.055)


def test_positions_and_fluxes_have_unit_pulls(field: Starfield, fit: PsfFit) -> None:
    sources = fit.sources
    distance, index = cKDTree(np.stack([sources["x"], sources["y"]], -1)).query(np.stack([field.x, field.y], -1))
    assert (distance < 0.5).all()
    found = sources[index]
    for name, truth in (("x", field.x), ("y", field.y)):
        pull = (found[name] - truth) / np.hypot(found[f"{name}Err"], 0.004)
        assert abs(np.median(pull)) < 0.4
        assert 0.7 < 1.4826 * np.median(np.abs(pull)) < 1.4
    ratio = found["psfFlux"] / field.flux
    scale = np.median(ratio[field.flux > 5e4])
    # the stamp holds 98 % of a Moffat star's light and the PSF sums to one in it
    assert 0.95 < scale < 1.01
    pull = (found["psfFlux"] / scale - field.flux) / np.hypot(found["psfFluxErr"], 0.005 * field.flux)
    assert abs(np.median(pull)) < 0.4
    assert 0.7 < 1.4826 * np.median(np.abs(pull)) < 1.4


def test_sources_are_sorted_and_stars_named(fit: PsfFit) -> None:
    assert (np.diff(fit.sources["psfFlux"]) <= 0).all()
    assert fit.sources["isPsfStar"].sum() == fit.n_stars


def test_too_few_stars_are_unusable(field: Starfield) -> None:
    sources = detect_sources(field.frame, 4.0, Workspace(), SourcesConfig())
    with pytest.raises(UnusableDataError) as caught:
        fit_psf(field.frame, sources[:2], Workspace(), PsfConfig())
    assert caught.value.outcome is Outcome.ASTROMETRY_FAILED


def test_few_stars_lower_the_order(field: Starfield) -> None:
    sources = detect_sources(field.frame, 4.0, Workspace(), SourcesConfig())
    fit = fit_psf(field.frame, sources[:8], Workspace(), PsfConfig())
    assert fit.psf.order == 0


def test_saturated_and_crowded_sources_are_no_psf_stars(field: Starfield) -> None:
    sources = detect_sources(field.frame, 4.0, Workspace(), SourcesConfig())
    usual = select_stars(sources, field.frame.shape, PsfConfig())
    marked = sources.copy()
    marked["mask"][usual[:5]] = Mask.SAT
    assert not np.isin(usual[:5], select_stars(marked, field.frame.shape, PsfConfig())).any()
    pair = np.concatenate([sources, sources[usual[5:6]]])
    pair["x"][-1] += 6
    assert usual[5] not in select_stars(pair, field.frame.shape, PsfConfig())


def test_a_satellites_track_is_no_star() -> None:
    field = make_starfield(shape=(1024, 1024), n=60, flux_range=(1e4, 4e5), min_distance=30)
    add_track(field.frame, 4000.0, 5.0)
    workspace = Workspace()
    sources = detect_sources(field.frame, 4.0, workspace, SourcesConfig())
    assert sources.size > 3 * field.x.size  # the track's peaks
    fit = fit_psf(field.frame, sources, workspace, PsfConfig())
    assert fit.n_stars > 25
    np.testing.assert_allclose(fit.psf.fwhm_pix(), 4.6, atol=0.2)


def test_centered_stamps_equal_a_sinc_shift() -> None:
    image = np.random.default_rng(2).normal(0, 1, (64, 64)).astype(np.float32)
    stamps, spread = np.empty((1, 15, 15), np.float32), np.empty((1, 15, 15), np.float32)
    mask = np.zeros(image.shape, np.uint16)
    mask[30, 31] = Mask.SAT
    x, y = np.array([30.3]), np.array([31.8])
    centered_stamps(image, image**2, mask, np.uint16(Mask.SAT), x, y, stamps, spread)
    plain = twin.shifted(image.astype(float), -0.3, 0.2)[32 - 7 : 32 + 8, 30 - 7 : 30 + 8]
    np.testing.assert_allclose(stamps[0], plain, atol=1e-5)
    assert spread[0, 5, 8] == 0
    np.testing.assert_allclose(spread[0, 7, 7], image[32, 30] ** 2, rtol=1e-6)


def test_fit_pixels_equals_least_squares_and_clips() -> None:
    rng = np.random.default_rng(3)
    n, k = 60, 5
    terms = polynomial_terms(rng.uniform(0, 99, n), rng.uniform(0, 99, n), (100, 100), 2)
    stamps = (np.einsum("nt,tjk->njk", terms, rng.normal(0, 1, (6, k, k))) + rng.normal(0, 0.1, (n, k, k))).astype("f4")
    weights = rng.uniform(50, 150, (n, k, k)).astype(np.float32)
    out = np.empty((6, k, k), np.float32)
    fit_pixels(stamps, weights, terms, 1e9, 1, out)
    np.testing.assert_allclose(out, twin.fit_pixels(stamps, weights, terms), atol=2e-5)
    spoiled = stamps.copy()
    spoiled[7] += 30.0
    clipped = np.empty_like(out)
    fit_pixels(spoiled, weights, terms, 5.0, 5, clipped)
    assert np.abs(clipped - out).max() < 0.2


def test_fit_sources_recovers_a_shifted_model_exactly() -> None:
    rng = np.random.default_rng(6)
    model = moffat_stamp(0, 0, 4.0, 31)
    coefficients = (model / model.sum())[None].astype(np.float32)
    image = np.zeros((200, 200))
    truth = [(50.31, 60.77, 4e4), (120.5, 90.02, 900.0), (151.9, 30.4, 8e5)]
    for x, y, flux in truth:
        px, py = round(x), round(y)
        padded = np.pad(coefficients[0].astype(float), 5)
        image[py - 20 : py + 21, px - 20 : px + 21] += flux * twin.shifted(padded, x - px, y - py)
    frame = image.astype(np.float32)
    x = np.array([t[0] for t in truth]) + rng.uniform(-0.4, 0.4, 3)
    y = np.array([t[1] for t in truth]) + rng.uniform(-0.4, 0.4, 3)
    out = np.empty((3, 6))
    mask = np.zeros(frame.shape, np.uint16)
    variance, terms = np.ones_like(frame), np.ones((3, 1))
    fit_sources(frame, variance, mask, np.uint16(Mask.BAD), coefficients, terms, 6, 8, 2.0, 0.0, x, y, out)
    np.testing.assert_allclose(x, [t[0] for t in truth], atol=2e-3)
    np.testing.assert_allclose(y, [t[1] for t in truth], atol=2e-3)
    np.testing.assert_allclose(out[:, 0], [t[2] for t in truth], rtol=2e-3)
    inner = coefficients[0, 9:-9, 9:-9].astype(float)
    np.testing.assert_allclose(out[:, 1], 1 / np.sqrt((inner**2).sum()), rtol=0.02)


def test_a_source_outside_or_all_masked_fails_alone() -> None:
    coefficients = moffat_stamp(0, 0, 4.0, 31)[None].astype(np.float32)
    frame = np.random.default_rng(1).normal(0, 1, (64, 64)).astype(np.float32)
    mask = np.zeros(frame.shape, np.uint16)
    mask[:40, :40] = Mask.BAD
    x, y, out = np.array([-5.0, 20.0, 50.0]), np.array([10.0, 20.0, 50.0]), np.empty((3, 6))
    fit_sources(
        frame, frame**2 + 1, mask, np.uint16(Mask.BAD), coefficients, np.ones((3, 1)), 6, 2, 1.5, 0.0, x, y, out
    )
    assert (out[:2, 5] == FIT_FAILED).all()
    assert np.isfinite(out[2, :2]).all()
