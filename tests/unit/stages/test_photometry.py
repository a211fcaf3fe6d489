"""Zero points of made-up matches."""

import numpy as np
import pytest

from core.contracts.catalogs import REFERENCE_STAR, SOURCE, Catalog
from core.contracts.exposure import Frame
from core.contracts.results import MatchedPairs
from core.errors import Outcome, UnusableDataError
from core.flags import Mask
from core.stages.photometry import PhotometryConfig, apply_zero_point, fit_zero_point

TRUE_SCALE = 0.57
SHAPE = (4000, 4096)


def make_pairs(n: int, term: float, seed: int = 1) -> tuple[Catalog, Catalog, MatchedPairs]:
    """Stars whose r flux in our system differs from the catalog's by ``term`` per magnitude of g - i from 0.8."""
    rng = np.random.default_rng(seed)
    stars = np.zeros(n, REFERENCE_STAR)
    color = rng.uniform(0.2, 2.4, n)
    mag = rng.uniform(17, 20, n)
    for band, offset in (("g", 0.6 * color), ("r", 0 * color), ("i", -0.4 * color)):
        stars[f"{band}_flux"] = 10 ** (-0.4 * (mag + offset - 31.4)) * (1 + rng.normal(0, 0.004, n))
        stars[f"{band}_fluxErr"] = 0.004 * stars[f"{band}_flux"]
    stars["isStar"] = True
    ours = 10 ** (-0.4 * (mag + term * (color - 0.8) - 31.4)) / TRUE_SCALE
    sources = np.zeros(n, SOURCE)
    sources["psfFluxErr"] = np.sqrt(4e4 + ours)
    sources["psfFlux"] = rng.normal(ours, sources["psfFluxErr"])
    sources["x"], sources["y"] = rng.uniform(0, SHAPE[1] - 1, n), rng.uniform(0, SHAPE[0] - 1, n)
    order = rng.permutation(n)
    return sources, stars[order], MatchedPairs(source_index=order, reference_index=np.arange(n))


@pytest.mark.parametrize("term", [0.0, 0.03])
def test_zero_point_is_found_with_its_color_term(term: float) -> None:
    sources, stars, pairs = make_pairs(150, term)
    result = fit_zero_point(sources, stars, pairs, "r", SHAPE, PhotometryConfig())
    assert abs(result.njy_per_electron / TRUE_SCALE - 1) < 3 * result.relative_error
    assert result.relative_error < 2e-3
    assert result.n_stars > 130
    assert result.scatter_mag < 0.015


def test_changes_of_another_color_get_their_own_width() -> None:
    sources, stars, pairs = make_pairs(200, 0.02)
    rng = np.random.default_rng(5)
    color = -2.5 * np.log10(stars["g_flux"] / stars["i_flux"])[np.argsort(pairs.source_index)]
    # red stars are narrower; a PSF flux with the mean star's PSF rises by as much
    slope, mean_color = -0.008, float(np.mean(color))
    excess = slope * (color - mean_color)
    sources["psfFlux"] *= 1 - excess
    sources["widthExcess"] = excess + rng.normal(0, 0.004, sources.size)
    result = fit_zero_point(sources, stars, pairs, "r", SHAPE, PhotometryConfig(change_color=0.3))
    assert result.change_width == pytest.approx(slope * (0.3 - mean_color), abs=0.0015)
    # the scale is that of a star with just the PSF, which a flux without correction would miss by 0.4 percent
    assert result.njy_per_electron == pytest.approx(TRUE_SCALE, rel=1.5e-3)
    sources["widthExcess"] = np.nan
    assert fit_zero_point(sources, stars, pairs, "r", SHAPE, PhotometryConfig()).change_width == 0


def test_a_given_color_term_serves_few_stars() -> None:
    sources, stars, pairs = make_pairs(8, 0.05)
    result = fit_zero_point(sources, stars, pairs, "r", SHAPE, PhotometryConfig(color_terms={"r": 0.05}))
    assert abs(result.njy_per_electron / TRUE_SCALE - 1) < 0.01


def test_variables_galaxies_and_saturated_stars_do_not_count() -> None:
    sources, stars, pairs = make_pairs(150, 0.01)
    sources["psfFlux"][pairs.source_index[:15]] *= 1.4
    stars["isStar"][15:40] = False
    sources["psfFlux"][pairs.source_index[15:40]] *= 0.7
    sources["mask"][pairs.source_index[40:60]] = Mask.SAT
    sources["psfFlux"][pairs.source_index[40:60]] *= 0.8
    result = fit_zero_point(sources, stars, pairs, "r", SHAPE, PhotometryConfig())
    assert abs(result.njy_per_electron / TRUE_SCALE - 1) < 4e-3
    assert result.n_stars <= 95


def test_missing_colors_are_taken_as_typical() -> None:
    sources, stars, pairs = make_pairs(60, 0.0)
    stars["g_flux"][::2] = np.nan
    result = fit_zero_point(sources, stars, pairs, "r", SHAPE, PhotometryConfig())
    assert abs(result.njy_per_electron / TRUE_SCALE - 1) < 5e-3


def test_no_stars_no_zero_point() -> None:
    sources, stars, pairs = make_pairs(2, 0.0)
    with pytest.raises(UnusableDataError) as caught:
        fit_zero_point(sources, stars, pairs, "r", SHAPE, PhotometryConfig())
    assert caught.value.outcome is Outcome.ASTROMETRY_FAILED


def test_apply_zero_point_scales_in_place() -> None:
    frame = Frame(
        image=np.full((4, 5), 10, np.float32), variance=np.full((4, 5), 4, np.float32), mask=np.zeros((4, 5), np.uint16)
    )
    sources, stars, pairs = make_pairs(60, 0.0)
    result = fit_zero_point(sources, stars, pairs, "r", SHAPE, PhotometryConfig())
    apply_zero_point(frame, result)
    y, x = np.mgrid[:4, :5]
    scale = result.njy_per_electron_at(x, y, frame.shape)
    np.testing.assert_allclose(frame.image, 10 * scale, rtol=1e-6)
    np.testing.assert_allclose(frame.variance, 4 * scale**2, rtol=1e-6)


def test_what_the_flat_left_is_found_and_taken_out() -> None:
    sources, stars, pairs = make_pairs(300, 0.02)
    u, v = 2 * sources["x"] / (SHAPE[1] - 1) - 1, 2 * sources["y"] / (SHAPE[0] - 1) - 1
    left = 0.012 * u - 0.008 * v + 0.01 * (u**2 - 1 / 3) - 0.006 * u * v
    sources["psfFlux"] *= 10 ** (0.4 * left)
    result = fit_zero_point(sources, stars, pairs, "r", SHAPE, PhotometryConfig())
    y, x = np.mgrid[0 : SHAPE[0] : 400, 0 : SHAPE[1] : 400]
    scale = result.njy_per_electron_at(x, y, SHAPE) / TRUE_SCALE
    u, v = 2 * x / (SHAPE[1] - 1) - 1, 2 * y / (SHAPE[0] - 1) - 1
    expected = 10 ** (-0.4 * (0.012 * u - 0.008 * v + 0.01 * (u**2 - 1 / 3) - 0.006 * u * v))
    assert np.std(scale / expected) < 0.002
    assert abs(np.mean(scale / expected) - 1) < 0.002


def test_few_stars_leave_the_scale_constant() -> None:
    sources, stars, pairs = make_pairs(40, 0.0)
    assert fit_zero_point(sources, stars, pairs, "r", SHAPE, PhotometryConfig()).illumination == ()
