"""The figures of quality against scenes whose right answers are known from theory."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from benchmarks.quality.completeness import fraction, snr50
from benchmarks.quality.evaluate import DetectorQuality, evaluate
from benchmarks.quality.matching import match_one_to_one, nearest_arcsec, offsets_mas
from benchmarks.quality.photometry import forced_flux, shift
from benchmarks.quality.summary import summarize
from benchmarks.quality.theory import centroid_bound_pix, expected_noise_peaks
from core.flags import Mask
from tests.unit.benchmarks.scenes import (
    SCALE_ARCSEC,
    SIGMA_PIX,
    detect,
    draw,
    flux_error,
    gaussian,
    make_products,
    make_truth,
)

SIDE = 1024


def grid(rng: np.random.Generator, step: int = 22) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    places = np.arange(30, SIDE - 30, step)
    y, x = (axis.ravel() + rng.uniform(-0.5, 0.5, axis.size) for axis in np.meshgrid(places, places, indexing="ij"))
    return x, y


@pytest.fixture(scope="module")
def perfect() -> list[DetectorQuality]:
    """Exact filter on white noise: S/N 6 often, the rest log-uniform, some very bright."""
    rng = np.random.default_rng(12)
    parts = []
    for _ in range(1):
        x, y = grid(rng)
        snr = np.exp(rng.uniform(np.log(3), np.log(100), x.size))
        snr[:700] = 6.0
        snr[700:730] = 400.0
        truth = make_truth(x, y, snr)
        image = draw(truth, SIDE, rng)
        parts.append(evaluate(make_products(image, detect(image, 5.0)), truth))
    return parts


def test_a_perfect_filter_gives_the_completeness_of_theory(perfect: list[DetectorQuality]) -> None:
    injections = [part.injections for part in perfect]
    found = np.concatenate([i.is_found for i in injections])
    snr = np.concatenate([i.snr for i in injections])
    assert fraction(found, snr, 6, 6.0001) == pytest.approx(0.87, abs=0.04)
    assert summarize(perfect)["snr50"] == pytest.approx(4.84, abs=0.12)
    assert summarize(perfect)["completeness_snr10"] == pytest.approx(1.0, abs=0.005)


def test_a_perfect_filter_reaches_the_centroid_bound(perfect: list[DetectorQuality]) -> None:
    astrometry = summarize(perfect)["astrometry"]
    assert astrometry["ratio_to_crlb"] == pytest.approx(1.0, abs=0.15)
    assert astrometry["offset_mas"] < 1.0
    bound = SIGMA_PIX * np.sqrt(2) / 20 * SCALE_ARCSEC * 1000
    assert astrometry["mas_snr20"] == pytest.approx(bound, rel=0.15)


def test_right_errors_give_unit_pulls(perfect: list[DetectorQuality]) -> None:
    summary = summarize(perfect)
    assert summary["pull"]["sd"] == pytest.approx(1.0, abs=0.05)
    assert summary["pull"]["mean"] == pytest.approx(0.0, abs=0.08)
    assert summary["snr_map_sd"] == pytest.approx(1.0, abs=0.04)
    assert abs(summary["flux"]["bias_mag"]) < 0.002
    assert summary["masked_fraction"] == 0.0


def test_wrong_flux_and_position_are_seen() -> None:
    rng = np.random.default_rng(3)
    x, y = grid(rng, step=60)
    truth = make_truth(x, y, np.full(x.size, 300.0))
    image = draw(truth, SIDE, rng)
    sources = detect(image, 5.0)
    sources["psfFlux"] *= 1.02
    sources["dec"] += 30e-3 / 3600
    summary = summarize([evaluate(make_products(image, sources), truth)])
    assert summary["flux"]["bias_mag"] == pytest.approx(-2.5 * np.log10(1.02), abs=2.5e-3)  # the parabola loses 0.2 %
    assert summary["astrometry"]["floor_mas"] == pytest.approx(SIGMA_PIX * np.sqrt(2) / 300 * 200, rel=0.5)
    assert summary["flux"]["excess_scatter_mag"] < 0.003
    halved = replace(make_products(image, sources))
    halved.difference.variance[:] /= 4
    assert evaluate(halved, truth).snr_map_sd == pytest.approx(2.0, abs=0.06)


def test_masked_injections_leave_the_claimed_area_only() -> None:
    rng = np.random.default_rng(4)
    x, y = grid(rng, step=60)
    truth = make_truth(x, y, np.full(x.size, 30.0))
    image = draw(truth, SIDE, rng)
    products = make_products(image, detect(image, 5.0)[:0])
    products.difference.mask[:, : SIDE // 4] = np.uint16(Mask.BAD)
    summary = summarize([evaluate(products, truth)])
    assert summary["masked_fraction"] == pytest.approx(0.25)
    assert summary["completeness_snr6"] == summary["completeness_all_area"] == 0.0
    found = replace(products, dia_sources=detect(image, 5.0))
    found = replace(found, dia_sources=found.dia_sources[found.dia_sources["x"] > SIDE // 4])
    summary = summarize([evaluate(found, truth)])
    assert summary["completeness_snr6"] == 1.0
    assert summary["completeness_all_area"] == pytest.approx(0.75, abs=0.05)


def test_noise_peaks_of_a_white_field_are_as_many_as_theory_says() -> None:
    rng = np.random.default_rng(5)
    threshold = 3.5
    image = draw(make_truth(np.zeros(0), np.zeros(0), np.zeros(0)), SIDE, rng)
    # peaks between pixels: theory knows no pixel grid
    n = np.count_nonzero(np.abs(detect(image, threshold - 0.4)["snr"]) >= threshold)
    assert n == pytest.approx(expected_noise_peaks(gaussian(), SIDE**2, threshold), rel=0.2)
    assert 5 < expected_noise_peaks(gaussian(), 4096 * 4004, 5.0) < 8
    assert expected_noise_peaks(gaussian(), 4096 * 4004, 6.0) == pytest.approx(0.033, abs=0.005)


def test_centroid_bound_of_a_gaussian() -> None:
    assert_allclose(centroid_bound_pix(gaussian(), np.array([20.0])), SIGMA_PIX * np.sqrt(2) / 20, rtol=1e-4)


def test_false_positives_have_causes() -> None:
    truth = make_truth(np.array([200.0, 500.0]), np.array([200.0, 500.0]), np.array([0.0, 50.0]), "star")
    truth.rows["mag"] = [15.0, 21.0]
    truth = replace(truth, cosmic_rays=np.array([[800, 300]]))
    image = draw(make_truth(np.zeros(0), np.zeros(0), np.zeros(0)), SIDE, np.random.default_rng(1))
    at = [(210.0, 205.0), (501.0, 500.0), (301.0, 801.0), (5.0, 400.0), (700.0, 300.0)]
    fake = draw(
        make_truth(*(np.array(a) for a in zip(*at[:3] + at[4:], strict=True)), np.full(4, 40.0)),
        SIDE,
        np.random.default_rng(1),
    )
    sources = detect(fake, 20.0)
    assert sources.size == 4
    edge = sources[:1].copy()
    edge["x"], edge["ra"] = at[3][0], edge["ra"] - 100 / 3600
    edge["y"], edge["dec"] = at[3][1], edge["dec"] + 30 / 3600
    quality = evaluate(make_products(image, np.concatenate([sources, edge])), truth)
    assert quality.n_false == quality.n_false_snr6 == 5
    assert quality.causes == {"cosmic_ray": 1, "edge": 1, "bright_star": 1, "dipole": 1, "galaxy_core": 0, "other": 1}
    truth.rows["moved_px"][1], truth.rows["snr_true"][1] = 0.2, 9.0
    assert evaluate(make_products(image, sources), truth).n_false == 3


def test_matching_is_one_to_one_nearest_first_and_of_one_sign() -> None:
    arcsec = 1 / 3600
    truth = np.zeros(3), np.array([0.0, 0.3, 10.0]) * arcsec
    found = np.zeros(3), np.array([0.2, 0.4, 10.1]) * arcsec
    plus = np.ones(3, np.int8)
    assert match_one_to_one(truth, plus, found, np.array([1, 1, -1], np.int8)).tolist() in ([0, 1, -1], [1, 0, -1])
    assert match_one_to_one(truth, plus, (found[0][:1], found[1][:1]), plus[:1]).tolist() == [-1, 0, -1]
    distance, row = nearest_arcsec(truth, found)
    assert_allclose(distance, [0.2, 0.1, 0.1], atol=1e-6)
    assert row.tolist() == [0, 0, 2] or row.tolist() == [0, 1, 2]
    assert_allclose(
        offsets_mas((np.array([359.9999]), np.array([60.0])), (np.array([0.0001]), np.array([60.0])))[0], 360
    )


def test_forced_flux_at_a_fractional_position_is_exact_without_noise() -> None:
    truth = make_truth(np.array([100.37]), np.array([90.81]), np.array([50.0]))
    image = draw(truth, 256, np.random.default_rng(0))
    clean = image - draw(make_truth(np.zeros(0), np.zeros(0), np.zeros(0)), 256, np.random.default_rng(0))
    flux, error = forced_flux(make_products(clean.astype(np.float32), detect(image, 1e9)), *_xy(truth.rows))
    assert_allclose(flux, truth.rows["flux"], rtol=1e-4)
    assert_allclose(error, flux_error(), rtol=1e-3)
    assert_allclose(shift(gaussian()[None], np.array([0.37]), np.array([-0.19]))[0], gaussian(0.37, -0.19), atol=1e-6)


def test_too_few_injections_give_no_figure() -> None:
    assert snr50(np.ones(10, bool), np.full(10, 9.0)) is None
    assert fraction(np.ones(3, bool), np.full(3, 9.0), 20, 30) is None


def _xy(rows: NDArray[np.void]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return rows["x"], rows["y"]
