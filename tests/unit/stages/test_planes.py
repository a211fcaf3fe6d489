"""Planes of the difference and of the exposure: kernels against their plain twins, and what they promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.contracts.exposure import DifferenceImage, Frame
from core.contracts.psf import PsfModel
from core.flags import Mask
from core.kernels.background import subtract_mesh
from core.kernels.difference import BLOCK, combine_variance, grow_saturated, smooth_variance
from core.kernels.illumination import scale_planes
from core.kernels.isr import restore_boundaries
from core.kernels.peaks import refine_peaks
from core.kernels.snr_map import snr_block
from core.stages.subtract import SubtractConfig, limit_claims
from tests.support.difference_scene import gaussian
from tests.support.reference import difference as twin
from tests.support.reference import illumination, isr

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), radius=st.integers(0, 4), share=st.sampled_from([0.0, 0.001, 0.05, 0.7]))
def test_saturation_grows_by_a_disk(seed: int, radius: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    mask = np.where(rng.random((31, 1100)) < share, Mask.SAT | Mask.SUSPECT, 0).astype(np.uint16)
    mask[rng.random(mask.shape) < 0.1] |= np.uint16(Mask.CR)
    mask[10:22, 505:520] |= np.uint16(Mask.SAT)
    before = mask.copy()
    grow_saturated(mask, radius)
    grown = twin.grow_by_disk((before & np.uint16(Mask.SAT)) != 0, radius)
    np.testing.assert_array_equal(mask, before | np.where(grown, Mask.SAT, 0).astype(np.uint16))


def test_claims_end_a_margin_beyond_saturation() -> None:
    shape = (40, 40)
    frame = Frame(
        image=np.zeros(shape, np.float32), variance=np.ones(shape, np.float32), mask=np.zeros(shape, np.uint16)
    )
    psf = PsfModel(coefficients=gaussian(15, 1.8).astype(np.float32)[None], shape=shape, order=0)
    frame.mask[20, 20] = Mask.SAT
    frame.mask[5, 5] = Mask.SAT_TEMPLATE
    difference = DifferenceImage(
        frame=frame, psf=psf, kernel_sum=1.0, is_science_convolved=False, variance_scale=1.0
    )  # fmt: skip
    limit_claims(difference, SubtractConfig(saturation_margin_pix=2))
    y, x = np.nonzero(frame.mask & np.uint16(Mask.SAT))
    assert np.hypot(y - 20, x - 20).max() == 2
    assert y.size == 13


@pytest.mark.parametrize("bands", [[(0, 45)], [(23, 45), (0, 23)]], ids=["whole", "bands"])
@pytest.mark.parametrize(("is_plain_science", "scale"), [(True, 1.0), (False, 1.3)])
def test_variance_of_the_difference_agrees_with_its_plain_twin(
    is_plain_science: bool, scale: float, bands: list[tuple[int, int]]
) -> None:
    rng = np.random.default_rng(2)
    shape = (45, 53)
    plain_image, difference = (rng.normal(100, 40, shape).astype(np.float32) for _ in range(2))
    plain, convolved = (rng.uniform(20, 60, shape).astype(np.float32) for _ in range(2))
    mask = np.zeros(shape, np.uint16)
    mask[7, 9] = Mask.NODATA
    fractions = rng.uniform(0.001, 0.005, (6, 7)).astype(np.float32)
    fractions[2:4, 4:6] = 0.1
    taps = np.array([0.4, 0.2, 0.1], np.float32)
    smoothed, variance = np.empty(shape, np.float32), np.empty(shape, np.float32)
    smooth_variance(convolved, mask, taps, np.empty(shape[1] + 4, np.float32), smoothed)
    flux = (plain_image - difference if is_plain_science else plain_image).astype(float)
    scaled = difference.copy()
    for first, last in bands:
        combine_variance(
            plain_image, plain, smoothed, taps, 0.7, fractions, 0.05, is_plain_science, scale, 0.1, first, last,
            np.empty((3, shape[1] + 2), np.float32), scaled, variance, mask,
        )  # fmt: skip
    by_pixel = np.kron(fractions, np.ones((BLOCK, BLOCK)))[: shape[0], : shape[1]]
    with_data = np.where(mask & np.uint16(Mask.NODATA), 0, convolved)
    expected, is_lost = twin.difference_variance(flux, plain, with_data, taps.astype(float), 0.7, by_pixel, 0.05)
    np.testing.assert_allclose(variance, scale**2 * expected, rtol=1e-4)
    np.testing.assert_allclose(scaled, scale * difference, rtol=1e-6)
    halo = by_pixel >= 0.1
    assert 0 < (is_lost & halo).sum() < halo.sum()
    np.testing.assert_array_equal((mask & np.uint16(Mask.SAT)) != 0, is_lost & halo)


def test_illumination_agrees_with_its_plain_twin() -> None:
    rng = np.random.default_rng(3)
    image, variance = rng.normal(100, 10, (37, 61)).astype(np.float32), rng.uniform(1, 9, (37, 61)).astype(np.float32)
    magnitudes = np.array([0.004, -0.01, 0.02, 0.01, -0.006, -0.015])
    factor = illumination.scale_at(image.shape, 0.57, magnitudes)
    expected = image * factor, variance * factor**2
    scale_planes(image, variance, 0.57, magnitudes)
    np.testing.assert_allclose(image, expected[0], rtol=1e-6)
    np.testing.assert_allclose(variance, expected[1], rtol=1e-6)


def test_charge_that_was_pushed_away_comes_back() -> None:
    rng = np.random.default_rng(4)
    image = (rng.uniform(500, 1500, (40, 33)) + 9e4 * np.pad(gaussian(21, 2.0), ((4, 15), (6, 6)))).astype(np.float32)
    image[30, 20] = 3e5
    before = image.astype(float)
    restore_boundaries(image, 4e-7, 2e5, *np.empty((2, 33), np.float32))
    np.testing.assert_allclose(image, isr.restore_boundaries(before, 4e-7, 2e5), rtol=2e-6)
    assert image.sum(dtype=float) == pytest.approx(before.sum(), rel=1e-6)
    # a peak gets back what it lost, its surroundings give it
    assert image[14, 16] > before[14, 16]
    assert image[14, 11] < before[14, 11]


def test_brighter_fatter_is_undone_to_a_tenth() -> None:
    truth = 800 + 6e5 * gaussian(41, 1.8)
    # the forward effect: boundaries shift by the charges' difference, charge follows
    pushed = isr.restore_boundaries(truth, -4e-7, 1e9)
    image = pushed.astype(np.float32)
    restore_boundaries(image, 4e-7, 2e5, *np.empty((2, 41), np.float32))
    assert pushed.max() < 0.995 * truth.max()
    assert np.abs(image - truth).max() < 0.1 * np.abs(pushed - truth).max()


def test_peaks_between_pixels_agree_with_their_plain_twin() -> None:
    rng = np.random.default_rng(5)
    snr = np.zeros((40, 200), np.float32)
    x, y = np.arange(10, 190, 12, dtype=np.int32), np.full(15, 20, np.int32)
    offsets = rng.uniform(-0.5, 0.5, (15, 2))
    height = np.where(np.arange(15) % 2, 9.0, -7.0)
    area = 2 * np.pi * 2.4**2
    for n in range(15):
        stamp = gaussian(11, 2.4, *offsets[n]) * area * height[n]
        snr[15:26, x[n] - 5 : x[n] + 6] += stamp.astype(np.float32)
    refined = np.empty(15, np.float32)
    refine_peaks(snr, y, x, 1.06, refined)
    nine = [snr[19:22, i - 1 : i + 2].astype(float) for i in x]
    np.testing.assert_allclose(refined, [twin.height_between_pixels(part) for part in nine], rtol=1e-5)
    # the map's own pixels miss up to 4 %
    np.testing.assert_allclose(refined, height, rtol=3e-3)
    assert np.abs(snr[y, x] / height - 1).max() > 0.02


def test_a_refined_peak_stays_between_its_pixel_and_the_limit() -> None:
    snr = np.zeros((5, 20), np.float32)
    snr[2, 5], snr[2, 6] = 6, 5.99  # a parabola through these is far too high
    snr[2, 14] = 5
    snr[1, 13] = snr[3, 15] = 4.9  # a saddle
    refined = np.empty(2, np.float32)
    refine_peaks(snr, np.array([2, 2], np.int32), np.array([5, 14], np.int32), 1.04, refined)
    assert 6 <= refined[0] <= np.float32(6 * 1.04)
    assert refined[1] == 5


def snr_of(image: Float32, variance: Float32, mask: NDArray[np.uint16], photon_noise: float) -> Float32:
    """The map of a round Gaussian of sigma 1.8."""
    line = gaussian(17, 1.8)[8] / np.sqrt(gaussian(17, 1.8)[8, 8])
    taps = line.astype(np.float32)[None]
    ny, nx = image.shape
    scratch, snr = np.empty(6 * (ny + 16) * (nx + 16), np.float32), np.empty(image.shape, np.float32)
    snr_block(
        image, variance, mask, int(Mask.CR), photon_noise, taps, taps, taps**2, taps**2, 0, ny, 0, nx, scratch, snr
    )
    return snr


@pytest.mark.parametrize("photon_noise", [0.0, 0.8])
def test_snr_without_the_sources_own_photons_agrees_with_its_plain_twin(photon_noise: float) -> None:
    rng = np.random.default_rng(6)
    shape = (50, 64)
    signal = np.pad(4000 * gaussian(41, 1.8), ((5, 4), (12, 11)))
    variance = (100 + photon_noise * signal + rng.uniform(0, 5, shape)).astype(np.float32)
    image = (signal + rng.normal(size=shape) * np.sqrt(variance)).astype(np.float32)
    mask = np.where(rng.random(shape) < 0.03, Mask.CR, 0).astype(np.uint16)
    snr = snr_of(image, variance, mask, photon_noise)
    empty = twin.without_own_photons(image.astype(float), variance.astype(float), photon_noise)
    expected = twin.snr_map(image.astype(float), empty, mask == 0, gaussian(17, 1.8))
    np.testing.assert_allclose(snr, expected, atol=2e-3)


def test_the_map_of_a_bright_source_is_that_of_the_sky_s_noise() -> None:
    signal = 4000 * gaussian(41, 1.8)
    image, variance = signal.astype(np.float32), (100 + signal).astype(np.float32)
    mask = np.zeros(image.shape, np.uint16)
    true = 4000 * np.sqrt(np.square(gaussian(17, 1.8)).sum()) / 10
    assert snr_of(image, variance, mask, 1.0)[20, 20] == pytest.approx(true, rel=0.13)
    assert snr_of(image, variance, mask, 0.0)[20, 20] < 0.85 * true
    # a source that faded took its photons along: a pixel without that change has more noise
    assert -snr_of(-image / 4, 100 - image / 4, mask, 1.0)[20, 20] == pytest.approx(true / 4, rel=0.05)
    assert -snr_of(-image / 4, 100 - image / 4, mask, 0.0)[20, 20] > 1.08 * true / 4


@pytest.mark.parametrize("photon_noise", [0.0, 1.0])
def test_variance_follows_the_sky_only_by_the_photons_noise(photon_noise: float) -> None:
    rng = np.random.default_rng(7)
    sky, sigma = 400.0, 20.0
    image = rng.normal(sky, sigma, (64, 64)).astype(np.float32)
    image[30, 30] = sky + 2000
    variance = np.where(photon_noise, image, sigma**2).astype(np.float32)
    before, values = variance.copy(), image - np.float32(sky)
    mask, mesh = np.zeros(image.shape, np.uint16), np.full((6, 6), sky, np.float32)
    mask[5, 5] = Mask.NODATA
    subtract_mesh(image, variance, mask, mesh, sigma, photon_noise)
    expected = before - photon_noise * np.clip(2 - values / (2 * sigma), 0, 1) * values
    np.testing.assert_allclose(variance, np.maximum(expected, before / 2), rtol=1e-5)
    assert image[5, 5] == 0
    image[5, 5] = values[5, 5]
    np.testing.assert_allclose(image, values, atol=1e-3)
    if photon_noise == 0:
        np.testing.assert_array_equal(variance, before)
