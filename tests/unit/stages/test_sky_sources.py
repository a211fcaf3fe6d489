"""The noise check on known noise."""

from dataclasses import replace

import numpy as np
import pytest

from core.contracts.exposure import DifferenceImage, Frame
from core.flags import Mask
from core.stages.sky_sources import SkyConfig, check_sky
from tests.support.sky_scene import VISIT, Scene

MANY = SkyConfig(n_positions=1500, n_tries=1600)


def test_pure_noise_is_normal() -> None:
    difference, _, _ = Scene(shape=(510, 510)).build()
    check = check_sky(difference, VISIT, MANY)
    assert check.n > 1400
    assert check.mean == pytest.approx(0, abs=0.15)
    assert check.sd == pytest.approx(1, abs=0.1)


def test_a_wrong_variance_is_seen() -> None:
    difference, _, _ = Scene(shape=(510, 510)).build()
    frame = difference.frame
    wrong = Frame(image=frame.image, variance=frame.variance * np.float32(4), mask=frame.mask)
    assert check_sky(replace(difference, frame=wrong), VISIT, MANY).sd == pytest.approx(0.5, abs=0.05)


def test_variance_made_from_the_counts_does_not_bias_the_flux() -> None:
    # electrons: variance = counts + read noise, correlated with the noise itself; few counts make it worst
    random = np.random.default_rng(6)
    counts = random.poisson(40.0, (510, 510)).astype(np.float32)
    frame = Frame(image=counts - 40, variance=counts + 36, mask=np.zeros((510, 510), np.uint16))
    model = Scene(shape=(510, 510)).build()[0].psf
    difference = DifferenceImage(frame=frame, psf=model, kernel_sum=1.0, is_science_convolved=False, variance_scale=1.0)
    check = check_sky(difference, VISIT, MANY)
    assert check.mean == pytest.approx(0, abs=0.15)


def test_occupied_places_are_avoided_and_the_choice_repeats() -> None:
    difference, _, _ = Scene().build()
    difference.frame.mask[:, :128] = int(Mask.DETECTED)
    difference.frame.image[:, :128] = 1e6
    first = check_sky(difference, VISIT)
    assert first.n == 100
    assert abs(first.mean) < 0.5
    assert check_sky(difference, VISIT) == first
    assert check_sky(difference, replace(VISIT, detector=95)) != first


def test_no_sky_gives_nan() -> None:
    difference, _, _ = Scene(shape=(64, 64)).build()
    difference.frame.mask[:] = int(Mask.NODATA)
    check = check_sky(difference, VISIT)
    assert check.n == 0
    assert np.isnan(check.sd)
