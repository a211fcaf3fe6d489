"""Positions, fluxes and errors of injected points."""

import numpy as np
import pytest
from scipy.special import ndtr

from core.contracts.catalogs import TABLES
from core.contracts.exposure import Frame
from core.contracts.psf import PsfModel
from core.flags import MASK_DTYPE, Mask
from core.ids import source_ids
from core.kernels import psf_flux
from core.stages.measure import CUTOUT_SIDE_PIX, MeasureConfig, Measurement, ProcessingStamp, measure
from core.stages.point_source import UNUSABLE, PsfOnFrame
from core.workspace import Workspace
from tests.support.columns import is_null
from tests.support.reference.measurement import forced_flux
from tests.support.sky_scene import VISIT, Scene, detections_at, mark_detected, psf_image

STAMP = ProcessingStamp(release=1, time_processed_mjd_tai=61000.2)


def run(
    scene: Scene, x: list[float], y: list[float], snr: list[float], config: MeasureConfig | None = None
) -> Measurement:
    difference, exposure, template = scene.build()
    detections = detections_at(x, y, snr)
    mark_detected(difference.frame.mask, detections)
    return measure(difference, exposure, template, detections, Workspace(), config or MeasureConfig(), STAMP)


def grid(n: int, spacing: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    y, x = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
    return (
        (x.ravel() + 1) * spacing + random.uniform(-0.5, 0.5, n * n),
        (y.ravel() + 1) * spacing + random.uniform(-0.5, 0.5, n * n),
    )


@pytest.mark.parametrize(("fwhm", "snr"), [(2.8, 10.0), (4.0, 8.0), (4.0, 30.0), (6.0, 20.0)])
def test_flux_position_and_their_errors_match_the_truth(fwhm: float, snr: float) -> None:
    scene = Scene(shape=(510, 510), fwhm=fwhm, gradient=0.1)
    x, y = grid(13, 36, seed=3)
    flux = scene.flux_of_snr(snr)
    for xi, yi in zip(x, y, strict=True):
        scene.add_point(xi, yi, flux)
    sources = run(scene, list(x), list(y), [snr] * x.size).sources
    assert (sources["centroid_flag"] == 0).mean() > 0.98
    good = sources[sources["centroid_flag"] == 0]
    truth_x, truth_y = x[sources["centroid_flag"] == 0], y[sources["centroid_flag"] == 0]
    # 169 sources: sd of a standard deviation is 5.4 %, of the mean 7.7 %; a peak fit raises the flux by 1/SNR**2
    flux_pull = (good["psfFlux"] - flux * (1 + 1 / snr**2)) / good["psfFluxErr"]
    assert flux_pull.std() == pytest.approx(1.0, abs=0.17)
    assert flux_pull.mean() == pytest.approx(0.0, abs=0.25)
    for column, truth in (("x", truth_x), ("y", truth_y)):
        pull = (good[column] - truth) / good[f"{column}Err"]
        assert 1.4826 * np.median(np.abs(pull)) == pytest.approx(1.0, abs=0.2)
        assert pull.mean() == pytest.approx(0.0, abs=0.25)
    ratio = np.median(good["xErr"]) / crlb_x(fwhm, snr)
    assert 0.95 < ratio < 1.1


def crlb_x(fwhm: float, snr: float) -> float:
    """Cramér-Rao bound of a coordinate on white noise: sqrt(sum P**2 / sum P_x**2) / SNR."""
    step = 0.01
    gradient = (psf_image(fwhm, step) - psf_image(fwhm, -step)) / (2 * step)
    return float(np.sqrt(np.square(psf_image(fwhm)).sum() / np.square(gradient).sum()) / snr)


def test_sky_position_is_that_of_the_pixel() -> None:
    scene = Scene()
    scene.add_point(100.3, 130.7, scene.flux_of_snr(500))
    row = run(scene, [100.3], [130.7], [500.0]).sources[0]
    difference, exposure, _ = scene.build()
    del difference
    ra, dec = exposure.wcs.pixel_to_sky(100.3, 130.7)
    assert (row["ra"] - ra) * np.cos(np.radians(dec)) * 3600 == pytest.approx(0, abs=0.003)
    assert (row["dec"] - dec) * 3600 == pytest.approx(0, abs=0.003)
    # a round PSF has equal errors on all axes
    assert row["raErr"] * 3600 / 0.2 == pytest.approx(row["xErr"], rel=0.05)
    assert row["decErr"] * 3600 / 0.2 == pytest.approx(row["yErr"], rel=0.05)
    assert abs(row["ra_dec_Cov"]) < 0.1 * row["raErr"] * row["decErr"]


def test_negative_sources_science_and_template_fluxes() -> None:
    scene = Scene()
    flux = scene.flux_of_snr(40)
    scene.add_point(80.2, 90.1, flux)
    scene.add_point(180.4, 60.0, flux, plane="template")
    sources = run(scene, [80.2, 180.4], [90.1, 60.0], [40.0, -40.0]).sources
    assert sources["isNegative"].tolist() == [0, 1]
    np.testing.assert_allclose(sources["psfFlux"], [flux, -flux], rtol=0.1)
    np.testing.assert_allclose(sources["snr"], [40, 40])
    assert abs(sources["scienceFlux"][0] - flux) < 4 * sources["scienceFluxErr"][0]
    assert abs(sources["scienceFlux"][1]) < 4 * sources["scienceFluxErr"][1]
    assert abs(sources["templateFlux"][0]) < 4 * sources["templateFluxErr"][0]
    assert abs(sources["templateFlux"][1] - flux) < 5 * sources["templateFluxErr"][1]
    assert sources["templateFluxErr"][0] == pytest.approx(sources["scienceFluxErr"][0] / 5, rel=0.02)


def test_aperture_holds_the_flux_within_12_pixels() -> None:
    scene = Scene(noise=0.01)
    scene.add_point(128.2, 127.6, 1000.0)
    row = run(scene, [128.2], [127.6], [100.0]).sources[0]
    yy, xx = np.indices(scene.shape)
    inside = scene.science[np.hypot(xx - 128.2, yy - 127.6) < 12].sum()
    assert row["apFlux"] == pytest.approx(inside, rel=2e-3)
    assert row["apFluxErr"] == pytest.approx(0.01 * np.sqrt(np.pi * 144), rel=0.02)
    assert row["apFlux_flag"] == 0


def test_edges_and_masks_set_their_flags() -> None:
    scene = Scene()
    scene.mask[100:103, 100:103] = Mask.SAT
    scene.mask[150, 155] = Mask.CR
    scene.mask[200:216, 200:216] = Mask.NODATA
    for x, y in ((2.0, 60.0), (101.0, 101.0), (150.0, 150.0), (207.0, 207.0)):
        scene.add_point(x, y, scene.flux_of_snr(50))
    measured = run(scene, [2.0, 101.0, 150.0, 207.0], [60.0, 101.0, 150.0, 207.0], [50.0] * 4)
    sources, quality = measured.sources, measured.quality
    assert sources["psfFlux_flag_edge"].tolist() == [1, 0, 0, 0]
    assert sources["apFlux_flag_apertureTruncated"].tolist() == [1, 0, 0, 0]
    assert sources["pixelFlags_saturatedCenter"].tolist() == [0, 1, 0, 0]
    assert sources["pixelFlags_cr"].tolist() == [0, 0, 1, 0]
    assert sources["pixelFlags_crCenter"].tolist() == [0, 0, 0, 0]
    assert sources["psfFlux_flag_noGoodPixels"].tolist() == [0, 0, 0, 1]
    assert sources["pixelFlags_nodataCenter"].tolist() == [0, 0, 0, 1]
    assert np.isnan(sources["psfFlux"][3])
    assert quality["goodFraction"][1] < 0.7
    assert quality["goodFraction"][2] > 0.9


def test_rows_carry_ids_times_and_boxes() -> None:
    scene = Scene()
    scene.add_point(60.0, 60.0, scene.flux_of_snr(30))
    scene.add_point(160.0, 160.0, scene.flux_of_snr(30))
    sources = run(scene, [60.0, 160.0], [60.0, 160.0], [30.0, 30.0]).sources
    np.testing.assert_array_equal(sources["diaSourceId"], source_ids(1, VISIT.visit, 94, np.arange(2)))
    assert (sources["band"] == "r").all()
    assert (sources["midpointMjdTai"] == VISIT.midpoint_mjd_tai).all()
    assert (sources["timeProcessedMjdTai"] == 61000.2).all()
    assert (sources["bboxSize"] == CUTOUT_SIDE_PIX[0]).all()


def test_most_columns_of_a_point_source_are_measured() -> None:
    scene = Scene(shape=(510, 510))
    x, y = grid(12, 38, seed=5)
    for xi, yi in zip(x, y, strict=True):
        scene.add_point(xi, yi, scene.flux_of_snr(7))
    sources = run(scene, list(x), list(y), [7.0] * x.size).sources
    filled = sum((~is_null(column, sources[column.name])).mean() >= 0.95 for column in TABLES["diaSource"])
    assert filled >= 74


def test_forced_kernel_equals_its_twin() -> None:
    scene = Scene(shape=(96, 96), fwhm=3.3)
    scene.add_point(40.3, 50.4, 3000.0)
    scene.mask[52, 41] = Mask.CR
    difference, _, _ = scene.build()
    plane = PsfOnFrame.of(difference.frame, difference.psf)
    x, y = np.array([40.3, 44.9, 3.2]), np.array([50.4, 47.1, 4.8])
    fits = plane.forced(x, y)
    fitted = plane.fitted(x[:1], y[:1], 3.0)
    bad = (difference.frame.mask & UNUSABLE) != 0
    for i in range(3):
        psf = difference.psf.at(x[i], y[i]).astype(np.float64)
        flux, error, _ = forced_flux(
            difference.frame.image.astype(np.float64), difference.frame.variance.astype(np.float64), bad, psf,
            x[i], y[i], plane.half,
        )  # fmt: skip
        assert fits.flux[i] == pytest.approx(flux, rel=1e-4)
        assert fits.flux_err[i] == pytest.approx(error, rel=1e-4)
    xf, yf = fitted.table[0, psf_flux.X], fitted.table[0, psf_flux.Y]
    flux, error, chi2 = forced_flux(
        difference.frame.image.astype(np.float64), difference.frame.variance.astype(np.float64), bad,
        difference.psf.at(40.3, 50.4).astype(np.float64), xf, yf, plane.half,
    )  # fmt: skip
    assert fitted.table[0, psf_flux.CHI2] == pytest.approx(chi2, rel=1e-3)


@pytest.mark.parametrize(("fwhm", "limit"), [(2.75, 1e-3), (3.25, 5e-4), (4.0, 5e-4), (5.5, 5e-4)])
def test_flux_does_not_depend_on_the_place_between_the_pixels(fwhm: float, limit: float) -> None:
    """Light on whole pixels, by the error function; Lanczos-4 changes the flux by 4e-3 at 2.75 and 2e-3 at 4 pixels."""

    def star(dx: float, dy: float) -> np.ndarray:
        edges = (np.arange(42) - 20.5)[:, None] - np.array([dx, dy])
        x, y = np.diff(ndtr(edges * 2.3548 / fwhm), axis=0).T
        return np.outer(y, x)

    psf = PsfModel(coefficients=star(0, 0)[None].astype(np.float32), shape=(41, 41), order=0)
    places = [(0.5, 0.5), (-0.5, 0.5), (0.25, -0.4), (0.1, 0.0), (0.0, 0.5)]
    for dx, dy in places:
        image = (1e4 * star(dx, dy)).astype(np.float32)
        frame = Frame(image=image, variance=np.ones_like(image), mask=np.zeros(image.shape, MASK_DTYPE))
        plane = PsfOnFrame.of(frame, psf)
        at = (np.array([20 + dx]), np.array([20 + dy]))
        fitted = plane.fitted(np.array([20.1]), np.array([19.8]), 2.0)
        np.testing.assert_allclose(plane.forced(*at).flux, 1e4, rtol=limit)
        np.testing.assert_allclose(fitted.flux, 1e4, rtol=limit)
        np.testing.assert_allclose(fitted.table[0, [psf_flux.X, psf_flux.Y]], [20 + dx, 20 + dy], atol=4e-3)


def test_no_detections_give_no_rows() -> None:
    assert run(Scene(shape=(64, 64)), [], [], []).sources.size == 0
