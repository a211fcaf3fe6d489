"""Detection: the S/N map against its definition, peaks and footprints against truth."""

from dataclasses import replace

import numpy as np
import pytest

from core.contracts.exposure import DifferenceImage, Frame
from core.contracts.psf import PsfModel
from core.flags import Mask
from core.stages.detect import EXCLUDED, DetectConfig, detect
from core.workspace import Workspace
from tests.support.difference_scene import add_stars, gaussian
from tests.support.reference import difference as twin

SIGMA = 1.8
NOISE_AREA = 4 * np.pi * SIGMA**2
CONFIG = DetectConfig(filter_radius_fwhm=4.0, rank=3, block_pix=96, rows_pix=64)


def make_difference(shape: tuple[int, int] = (200, 230), seed: int = 1, ratio: float = 1.2) -> DifferenceImage:
    rng = np.random.default_rng(seed)
    image = gaussian(25, SIGMA, ratio=ratio)
    psf = PsfModel(coefficients=(image / image.sum()).astype(np.float32)[None], shape=shape, order=0)
    variance = rng.uniform(1.0, 3.0, shape).astype(np.float32)
    pixels = (rng.normal(size=shape) * np.sqrt(variance)).astype(np.float32)
    frame = Frame(image=pixels, variance=variance, mask=np.zeros(shape, np.uint16))
    return DifferenceImage(frame=frame, psf=psf, kernel_sum=1.0, is_science_convolved=False, variance_scale=1.0)


def test_snr_map_is_the_masked_matched_filter() -> None:
    difference = make_difference()
    rng = np.random.default_rng(2)
    difference.frame.mask[rng.uniform(size=difference.frame.shape) < 0.02] = Mask.CR
    difference.frame.image[difference.frame.mask > 0] = 1e4
    workspace = Workspace()
    detect(difference, workspace, CONFIG)
    snr = workspace.array("difference.snr", difference.frame.shape)
    frame = difference.frame
    good = frame.mask & EXCLUDED == 0
    expected = twin.snr_map(
        frame.image.astype(float), frame.variance.astype(float), good, difference.psf.center().astype(float)
    )
    np.testing.assert_allclose(snr, expected, atol=3e-3)
    width = float(workspace.array("difference.snr_width", (1,), np.float64)[0])
    assert width == pytest.approx(1.0, abs=0.08)


def test_default_filter_loses_a_thousandth_of_the_snr() -> None:
    difference = make_difference()
    difference.frame.variance[:] = 1
    difference.frame.image[:] = 0
    add_stars(difference.frame.image, np.array([100.0]), np.array([90.0]), np.array([1e4]), np.array([SIGMA]))
    exact = replace(difference, psf=make_difference(ratio=1.0).psf)
    found = detect(exact, Workspace())
    assert found.snr[0] == pytest.approx(1e4 / np.sqrt(NOISE_AREA), rel=1e-3)


def test_planted_sources_are_found_in_order_and_noise_is_not() -> None:
    difference = make_difference(ratio=1.0)
    difference.frame.variance[:] = 1
    difference.frame.image[:] = np.random.default_rng(3).normal(size=difference.frame.shape)
    x, y = np.array([40.3, 150.0, 90.6, 180.2]), np.array([150.1, 30.4, 90.0, 160.0])
    sign = np.array([1, -1, 1, -1])
    add_stars(difference.frame.image, x, y, sign * 12 * np.sqrt(NOISE_AREA), np.full(4, SIGMA))
    found = detect(difference, Workspace(), CONFIG)
    order = np.lexsort((x, y))
    np.testing.assert_allclose(found.y, y[order], atol=1.5)
    np.testing.assert_allclose(found.x, x[order], atol=1.5)
    np.testing.assert_array_equal(np.sign(found.snr), sign[order])
    np.testing.assert_allclose(np.abs(found.snr), 12, atol=3.5)
    assert found.parent.tolist() == [0, 1, 2, 3]
    mask = difference.frame.mask
    for n in range(4):
        box = (slice(found.y0[n], found.y1[n]), slice(found.x0[n], found.x1[n]))
        bit = Mask.DETECTED if found.snr[n] > 0 else Mask.DETECTED_NEGATIVE
        assert mask[found.y[n], found.x[n]] == bit
        assert np.count_nonzero(mask[box]) == found.n_pixels[n]


def test_peaks_and_footprints_agree_with_scipy() -> None:
    difference = make_difference(seed=4)
    rng = np.random.default_rng(5)
    n = 60
    flux = rng.uniform(-30, 30, n) * np.sqrt(NOISE_AREA)
    x, y = rng.uniform(5, 225, n), rng.uniform(5, 195, n)
    add_stars(difference.frame.image, x, y, flux, np.full(n, SIGMA))
    workspace = Workspace()
    found = detect(difference, workspace, replace(CONFIG, merge_fwhm=0.0, dipole_fwhm=0.0))
    snr = np.asarray(workspace.array("difference.snr", difference.frame.shape), float)
    assert list(zip(found.y.tolist(), found.x.tolist(), strict=True)) == twin.peaks(snr, 5.0)
    labels = twin.footprints(difference.frame.mask > 0)
    assert np.unique(labels[found.y, found.x]).size == np.unique(found.parent).size
    for n in range(found.y.size):
        region = labels == labels[found.y[n], found.x[n]]
        assert region.sum() == found.n_pixels[n]
        rows = np.flatnonzero(region.any(axis=1))
        assert (found.y0[n], found.y1[n]) == (rows[0], rows[-1] + 1)


def test_dipole_is_one_detection_at_its_stronger_lobe() -> None:
    difference = make_difference(ratio=1.0)
    difference.frame.variance[:] = 1
    difference.frame.image[:] = 0
    x, y = np.array([100.0, 103.0]), np.array([80.0, 80.0])
    add_stars(difference.frame.image, x, y, np.array([2500.0, -3000.0]), np.full(2, SIGMA))
    found = detect(difference, Workspace())
    assert found.y.size == 1
    assert found.snr[0] < 0
    assert found.x[0] > 101
    apart = detect(difference, Workspace(), DetectConfig(dipole_fwhm=0.0))
    assert apart.y.size == 2
    assert apart.parent.tolist() == [0, 0]


def test_masked_pixels_neither_detect_nor_hide() -> None:
    difference = make_difference(ratio=1.0)
    difference.frame.variance[:] = 1
    difference.frame.image[:] = 0
    add_stars(difference.frame.image, np.array([100.0]), np.array([80.0]), np.array([2000.0]), np.array([SIGMA]))
    difference.frame.image[20:23, 20:23] = 1e5
    difference.frame.mask[20:23, 20:23] = Mask.SAT
    difference.frame.image[80, 102] = 1e5
    difference.frame.mask[80, 102] = Mask.CR
    found = detect(difference, Workspace())
    assert (found.y.tolist(), found.x.tolist()) == ([80], [100])
    assert found.snr[0] == pytest.approx(2000 / np.sqrt(NOISE_AREA), rel=0.06)


def test_empty_difference_gives_no_rows() -> None:
    difference = make_difference()
    difference.frame.image[:] = 0
    found = detect(difference, Workspace())
    assert found.y.size == found.parent.size == 0
