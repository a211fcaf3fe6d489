"""Reference stars through a known WCS, with the pointing wrong: the WCS must come back."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from core.camera import load_camera
from core.contracts.catalogs import REFERENCE_STAR, SOURCE, Catalog
from core.contracts.exposure import VisitInfo
from core.contracts.results import Astrometry
from core.contracts.wcs import separation_arcsec
from core.errors import Outcome, UnusableDataError
from core.stages.astrometry import AstrometryConfig, fit_wcs
from core.stages.pointing import predict_wcs
from core.stages.star_motion import earth_position_au, positions_at_epoch

CAMERA = load_camera("lsstcam")
RA, DEC, ROT = 37.0, -5.0, 20.0
MJD = 61364.2
INFO = VisitInfo(
    instrument="LSSTCam", group="g", visit=1, detector=4, band="r", exposure_start_mjd_tai=MJD,
    exposure_end_mjd_tai=MJD + 30 / 86400, exposure_time_s=30.0, ra_deg=RA, dec_deg=DEC, rot_sky_deg=ROT,
)  # fmt: skip


def make_field(
    n: int, *, detector: int = 4, extra: int = 0, noise_pix: float = 0.02, seed: int = 1,
    pointing: tuple[float, float, float] = (0, 0, 0),
) -> tuple[Catalog, Catalog, NDArray[np.float64]]:  # fmt: skip
    """Sources under a pointing off by (arcsec east, north, degrees), their reference stars, and true (x, y, ra, dec).

    ``extra`` sources have no reference star and as many reference stars have no source.
    """
    rng = np.random.default_rng(seed)
    ny, nx = CAMERA.detectors[detector].shape
    true = (RA + pointing[0] / 3600 / np.cos(np.radians(DEC)), DEC + pointing[1] / 3600, ROT + pointing[2])
    x, y = rng.uniform(0, nx, n + 2 * extra), rng.uniform(0, ny, n + 2 * extra)
    ra, dec = CAMERA.pixel_to_sky(detector, x, y, *true)
    flux = 10 ** rng.uniform(3.5, 6, x.size)
    sources, stars = np.zeros(n + extra, SOURCE), np.zeros(n + extra, REFERENCE_STAR)
    has_source, has_star = np.arange(x.size) < n + extra, (np.arange(x.size) < n) | (np.arange(x.size) >= n + extra)
    sources["x"] = (x + rng.normal(0, noise_pix, x.size))[has_source]
    sources["y"] = (y + rng.normal(0, noise_pix, x.size))[has_source]
    sources["xErr"] = sources["yErr"] = noise_pix
    sources["psfFlux"], sources["snr"] = flux[has_source], flux[has_source] / 200
    stars["ra"], stars["dec"] = ra[has_star], dec[has_star]
    stars["raErr"] = stars["decErr"] = 2.0
    stars["epochMjdTai"], stars["isStar"] = MJD, True
    stars["r_flux"] = flux[has_star] * 0.6
    order = rng.permutation(stars.size)
    return sources, stars[order], np.stack([x, y, ra, dec])


def solve(sources: Catalog, stars: Catalog, detector: int = 4, config: AstrometryConfig | None = None) -> Astrometry:
    predicted = predict_wcs(CAMERA, detector, RA, DEC, ROT)
    shape = CAMERA.detectors[detector].shape
    return fit_wcs(sources, stars, predicted, INFO, shape, config or AstrometryConfig())


@pytest.mark.parametrize(
    "pointing", [(0, 0, 0), (5, -5, 0.05), (-5, 4, -0.05), (10, 9, 0.1), (-9, -10, -0.1)], ids=lambda p: f"{p}"
)
def test_a_wrong_pointing_is_found_on_an_outer_detector(pointing: tuple[float, float, float]) -> None:
    sources, stars, truth = make_field(200, extra=60, pointing=pointing)
    result = solve(sources, stars)
    assert separation_arcsec(*result.wcs.pixel_to_sky(truth[0], truth[1]), truth[2], truth[3]).max() < 0.010
    assert 3 < result.rms_mas < 8
    pairs = result.pairs
    assert pairs.source_index.size > 190
    close = separation_arcsec(
        stars["ra"][pairs.reference_index],
        stars["dec"][pairs.reference_index],
        *result.wcs.pixel_to_sky(sources["x"][pairs.source_index], sources["y"][pairs.source_index]),
    )
    assert close.max() < 0.1


def test_a_crowded_field_with_many_strangers() -> None:
    sources, stars, truth = make_field(1500, extra=3000, pointing=(6, -7, 0.06))
    result = solve(sources, stars)
    assert separation_arcsec(*result.wcs.pixel_to_sky(truth[0], truth[1]), truth[2], truth[3]).max() < 0.010


def test_a_crowded_field_whose_brightest_stars_are_all_saturated() -> None:
    sources, stars, truth = make_field(6000, pointing=(4, -3, 0.04), seed=3)
    faint = sources["psfFlux"] < np.sort(sources["psfFlux"])[-1500]
    result = solve(sources[faint], stars)
    assert separation_arcsec(*result.wcs.pixel_to_sky(truth[0], truth[1]), truth[2], truth[3]).max() < 0.010


@pytest.mark.parametrize("n", [8, 14, 30])
def test_few_stars_take_fewer_orders(n: int) -> None:
    sources, stars, truth = make_field(n, extra=3, pointing=(3, 2, 0.03))
    result = solve(sources, stars)
    inner = (np.abs(truth[0] - 2036) < 1500) & (np.abs(truth[1] - 2000) < 1500)
    left = separation_arcsec(*result.wcs.pixel_to_sky(truth[0], truth[1]), truth[2], truth[3])
    assert left[inner].max() < 0.05


def test_blends_and_wrong_stars_are_clipped() -> None:
    sources, stars, truth = make_field(150)
    sources["x"][:15] += 0.8
    result = solve(sources, stars)
    assert separation_arcsec(*result.wcs.pixel_to_sky(truth[0], truth[1]), truth[2], truth[3]).max() < 0.012
    assert result.n_stars <= 138


@pytest.mark.parametrize("case", ["no stars", "five stars", "other field"])
def test_nothing_to_match_is_an_outcome(case: str) -> None:
    sources, stars, _ = make_field(120)
    if case == "no stars":
        stars = stars[:0]
    elif case == "five stars":
        stars = stars[:5]
    else:
        _, stars, _ = make_field(120, seed=77)
    with pytest.raises(UnusableDataError) as caught:
        solve(sources, stars)
    assert caught.value.outcome is Outcome.ASTROMETRY_FAILED


def test_a_large_residual_is_refused() -> None:
    sources, stars, _ = make_field(120, noise_pix=0.3)
    with pytest.raises(UnusableDataError):
        solve(sources, stars, config=AstrometryConfig(max_rms_mas=30.0))


def test_reference_stars_are_moved_to_the_visits_epoch() -> None:
    sources, stars, truth = make_field(150)
    moved = stars.copy()
    moved["epochMjdTai"] = 57389.0
    rng = np.random.default_rng(5)
    moved["pmRa"], moved["pmDec"] = rng.normal(30, 40, stars.size), rng.normal(-20, 40, stars.size)
    years = (MJD - 57389.0) / 365.25
    moved["dec"] -= moved["pmDec"] * years / 3.6e6
    moved["ra"] -= moved["pmRa"] * years / 3.6e6 / np.cos(np.radians(moved["dec"]))
    result = solve(sources, moved)
    assert separation_arcsec(*result.wcs.pixel_to_sky(truth[0], truth[1]), truth[2], truth[3]).max() < 0.012
    still = moved.copy()
    still["pmRa"] = still["pmDec"] = 0
    with_still = solve(sources, still, config=AstrometryConfig(max_rms_mas=1e4))
    assert with_still.rms_mas > 10 * result.rms_mas


def test_parallax_and_the_earth_agree_with_astropy() -> None:
    astropy_time = pytest.importorskip("astropy.time")
    from astropy.coordinates import get_body_barycentric

    for mjd in (60000.0, 60091.3, 60182.6, 61364.2):
        truth = get_body_barycentric("earth", astropy_time.Time(mjd, format="mjd", scale="tai"), ephemeris="builtin")
        sun = get_body_barycentric("sun", astropy_time.Time(mjd, format="mjd", scale="tai"), ephemeris="builtin")
        expected = (truth - sun).xyz.to_value("au")
        np.testing.assert_allclose(earth_position_au(mjd), expected, atol=1e-3)


def test_parallax_moves_a_star_towards_the_sun() -> None:
    star = np.zeros(1, REFERENCE_STAR)
    # 90 degrees east of the Sun at the March equinox: seen from the Earth it is displaced towards the Sun, westwards
    star["ra"], star["dec"], star["parallax"], star["epochMjdTai"] = 90.0, 0.0, 100.0, 60023.9
    ra, _ = positions_at_epoch(star, 60023.9)
    np.testing.assert_allclose((ra[0] - 90.0) * 3.6e6, -100.0, rtol=0.02)
    unknown = star.copy()
    unknown["parallax"] = unknown["pmRa"] = np.nan
    assert positions_at_epoch(unknown, 61000.0)[0][0] == 90.0


def test_galaxies_and_stars_without_motion_do_not_lead() -> None:
    sources, stars, truth = make_field(150)
    stars["isStar"][:60] = False
    stars["ra"][:60] += 20 / 3.6e6
    result = solve(sources, stars, config=replace(AstrometryConfig(), max_order=1))
    left = separation_arcsec(*result.wcs.pixel_to_sky(truth[0], truth[1]), truth[2], truth[3])
    assert np.median(left) < 0.006
