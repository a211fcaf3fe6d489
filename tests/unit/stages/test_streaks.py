"""Streaks: what crosses the frame is masked, stars, noise and short trails are not."""

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.simulator.streaks import STREAK, paint_streaks, profile_across
from core.contracts.exposure import Frame
from core.flags import Mask
from core.kernels import streaks as kernels
from core.stages.streaks import StreakConfig, mask_streaks
from core.workspace import Workspace
from tests.support.reference import streaks as twin

Float64 = NDArray[np.float64]

SIGMA = 10.0
FWHM = 5.0
LINES = [(1.0, 0.0), (0.96, 0.28), (0.6, 0.8), (-0.28, 0.96), (0.0, 1.0), (-np.sqrt(0.5), np.sqrt(0.5))]


def make_frame(side: int, seed: int, n_stars: int = 60) -> Frame:
    """Noise of ``SIGMA`` and the residuals of stars, positive and negative."""
    rng = np.random.default_rng(seed)
    image = rng.standard_normal((side, side), dtype=np.float32) * np.float32(SIGMA)
    axis = np.arange(-9, 10)
    psf = np.exp(-0.5 * (axis[:, None] ** 2 + axis[None, :] ** 2) / (FWHM / 2.3548) ** 2)
    for _ in range(n_stars):
        y, x = rng.integers(10, side - 10, 2)
        image[y - 9 : y + 10, x - 9 : x + 10] += (rng.choice([-1, 1]) * SIGMA * np.exp(rng.uniform(0, 6)) * psf).astype(
            np.float32
        )
    variance = np.full(image.shape, SIGMA**2, np.float32)
    return Frame(image=image, variance=variance, mask=np.zeros(image.shape, np.uint16))


def add_streak(frame: Frame, line: Float64, peak_sigma: float) -> NDArray[np.bool_]:
    """Paint a track along ``x c + y s = r``; gives the pixels within its half width."""
    c, s, r = line
    table = np.zeros(1, STREAK)
    reach = 2.0 * max(frame.shape)
    table["x0"], table["y0"] = r * c + reach * s, r * s - reach * c
    table["x1"], table["y1"] = r * c - reach * s, r * s + reach * c
    table["peak"] = peak_sigma * SIGMA
    # a satellite at 1000 km: 1.7 arcsec of defocus beside seeing of one
    paint_streaks(frame.image, table, [profile_across(FWHM / 2.3548, 8.0)])
    return np.asarray(np.abs(twin.distance(frame.shape, line)) < FWHM / 2)


def line_through(x: float, y: float, angle_deg: float) -> Float64:
    """The line through a pixel whose normal has this angle."""
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    return np.array([c, s, x * c + y * s])


def streak_bits(frame: Frame) -> NDArray[np.bool_]:
    return np.asarray((frame.mask & np.uint16(Mask.STREAK)) != 0)


@pytest.mark.parametrize("peak_sigma", [0.6, 4.0, 300.0])
@pytest.mark.parametrize("angle_deg", [0.0, 12.0, 45.0, 83.0, 90.0, 134.0, 171.0])
def test_a_track_is_masked_all_along(angle_deg: float, peak_sigma: float) -> None:
    frame = make_frame(1024, seed=int(angle_deg))
    track = add_streak(frame, line_through(530.0, 480.0, angle_deg), peak_sigma)
    assert mask_streaks(frame, Workspace()) >= 1
    masked = streak_bits(frame)
    assert masked[track].mean() > 0.95
    assert masked.mean() < 0.12


def test_two_tracks_are_found() -> None:
    frame = make_frame(1024, seed=5)
    tracks = [
        add_streak(frame, line_through(300.0, 500.0, 20.0), 3.0),
        add_streak(frame, line_through(600.0, 400.0, 110.0), 20.0),
    ]
    assert mask_streaks(frame, Workspace()) == 2
    assert all(streak_bits(frame)[track].mean() > 0.95 for track in tracks)


def test_a_track_of_less_than_half_the_noise_is_mostly_found() -> None:
    rng = np.random.default_rng(7)
    found = 0
    for seed in range(12):
        frame = make_frame(1024, seed, n_stars=20)
        track = add_streak(frame, line_through(*rng.uniform(450, 574, 2), rng.uniform(0, 180)), 0.4)
        mask_streaks(frame, Workspace())
        found += streak_bits(frame)[track].mean() > 0.9
    assert found >= 10


def test_stars_and_noise_are_no_streak() -> None:
    workspace = Workspace()
    for seed in range(20):
        frame = make_frame(768, seed)
        assert mask_streaks(frame, workspace) == 0
        assert not frame.mask.any()


def test_a_row_of_stars_and_a_short_trail_are_no_streak() -> None:
    frame = make_frame(768, seed=3)
    for length, y0 in ((60, 300), (60, 500)):
        trail = make_frame(768, seed=4, n_stars=0)
        trail.image[:] = 0
        add_streak(trail, line_through(400.0, y0, 75.0), 20.0)
        frame.image[:, 400 - length // 2 : 400 + length // 2] += trail.image[:, 400 - length // 2 : 400 + length // 2]
    frame.image[200:204, 50:760:120] += 500 * SIGMA
    assert mask_streaks(frame, Workspace()) == 0


def test_a_track_is_found_beside_masked_pixels_and_never_under_them() -> None:
    frame = make_frame(1024, seed=8)
    track = add_streak(frame, line_through(500.0, 500.0, 30.0), 2.0)
    frame.mask[:, :300] = np.uint16(Mask.NODATA)
    frame.image[:, :300] = 0
    assert mask_streaks(frame, Workspace()) == 1
    assert streak_bits(frame)[:, 300:][track[:, 300:]].mean() > 0.95
    empty = make_frame(512, seed=8)
    empty.mask[:] = np.uint16(Mask.NODATA)
    assert mask_streaks(empty, Workspace()) == 0


def test_a_frame_of_few_cells_is_left_alone() -> None:
    frame = make_frame(256, seed=1)
    add_streak(frame, line_through(100.0, 100.0, 30.0), 50.0)
    assert mask_streaks(frame, Workspace(), StreakConfig()) == 0


def test_cells_agree_with_their_plain_twin() -> None:
    rng = np.random.default_rng(2)
    frame = make_frame(100, seed=2, n_stars=4)
    frame.mask[rng.random(frame.shape) < 0.3] = Mask.CR
    frame.mask[:16, :16] = Mask.BAD
    out = np.empty((6, 6), np.float32)
    kernels.bin_snr(frame.image, frame.variance, frame.mask, int(Mask.CR | Mask.BAD), 16, 4.0, out)
    expected = twin.bin_snr(frame.image.astype(float), frame.variance.astype(float), frame.mask == 0, 16, 4.0)
    assert np.isnan(out[0, 0])
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


def test_sums_along_lines_agree_with_their_plain_twin() -> None:
    rng = np.random.default_rng(3)
    snr = rng.normal(size=(17, 23))
    snr[rng.random(snr.shape) < 0.2] = np.nan
    slopes = np.array([-1.0, -0.63, 0.0, 0.2, 1.0])
    total, count = np.empty((2, slopes.size, 23 + 34), np.float32)
    usable = np.isfinite(snr)
    kernels.sum_lines(np.nan_to_num(snr).astype(np.float32), usable.astype(np.float32), slopes, total, count)
    expected = twin.sum_lines(snr, slopes)
    np.testing.assert_allclose(total, expected[0], atol=1e-5)
    np.testing.assert_array_equal(count, expected[1])


@pytest.mark.parametrize("normal", LINES)
def test_profile_and_mask_of_a_line_agree_with_their_plain_twins(normal: tuple[float, float]) -> None:
    rng = np.random.default_rng(4)
    frame = make_frame(90, seed=4, n_stars=3)
    frame.mask[rng.random(frame.shape) < 0.1] = Mask.SAT
    frame.variance[5, 5] = 0
    line = np.array([*normal, 52.3 * normal[0] + 31.8 * normal[1]])
    total, count = np.empty((2, 4, 19))
    kernels.profile_along(frame.image, frame.variance, frame.mask, int(Mask.SAT), line, 9, 3.0, total, count)
    with np.errstate(divide="ignore"):
        expected = twin.profile_along(
            frame.image.astype(float), frame.variance.astype(float), frame.mask == 0, line, 9, 3.0, 4
        )
    np.testing.assert_array_equal(count, expected[1])
    np.testing.assert_allclose(total, expected[0], atol=1e-4)
    n = kernels.mask_line(frame.mask, line, -3.5, 6.25)
    distance = twin.distance(frame.shape, line)
    np.testing.assert_array_equal(streak_bits(frame), (distance >= -3.5) & (distance <= 6.25))
    assert n == np.count_nonzero(streak_bits(frame))
