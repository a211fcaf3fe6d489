"""Maps of a field that is known, from few stars and from far too many."""

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from core.stages.local_maps import LocalMapsConfig, fit_maps

SHAPE = (2000, 2000)
Float64 = NDArray[np.float64]


def wave(x: Float64, y: Float64) -> Float64:
    return np.asarray(0.1 * np.sin(x / 300) * np.cos(y / 300), np.float64)


def made(n: int, seed: int = 4) -> tuple[Float64, Float64, Float64, Float64]:
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, SHAPE[1], n), rng.uniform(0, SHAPE[0], n)
    error = np.where(np.arange(n) % 3 == 0, 0.01, 0.1)
    return x, y, wave(x, y) + rng.normal(0, error), error


@pytest.mark.parametrize("n", [600, 20_000])
def test_the_field_comes_back_whatever_the_number_of_stars(n: int) -> None:
    x, y, value, error = made(n)
    begin = time.process_time()
    maps = fit_maps(x, y, value[:, None], error[:, None], SHAPE, LocalMapsConfig())
    assert time.process_time() - begin < 5.0
    assert maps is not None
    node_y, node_x = (np.arange(k) * float(maps.step_pix) for k in maps.values.shape[1:])
    inside = (slice(2, -3), slice(2, -3))
    expected = wave(*np.meshgrid(node_x, node_y))
    assert np.abs(maps.values[0] - expected)[inside].std() < 0.02


def test_of_too_many_the_good_ones_everywhere_are_taken() -> None:
    x, y, value, error = made(9000)
    few = LocalMapsConfig(max_stars=300)
    maps = fit_maps(x, y, value[:, None], error[:, None], SHAPE, few)
    assert maps is not None
    bad = error > 0.05
    value[bad] = np.random.default_rng(1).normal(0, 0.1, bad.sum())
    again = fit_maps(x, y, value[:, None], error[:, None], SHAPE, few)
    assert again is not None
    np.testing.assert_array_equal(again.values, maps.values)


def test_noise_as_large_as_the_field_is_seen_through() -> None:
    rng = np.random.default_rng(6)
    x, y = rng.uniform(0, SHAPE[1], 800), rng.uniform(0, SHAPE[0], 800)
    true = np.stack([wave(x, y), wave(y + 500, x)], axis=-1)
    error = np.full_like(true, true.std())
    value = true + rng.normal(0, error)
    value[:20] = np.nan
    value[20:30] += 30 * true.std()
    maps = fit_maps(x, y, value, error, SHAPE, LocalMapsConfig())
    assert maps is not None
    left = maps.at(x, y) - true
    # the mean of the field would leave all of it
    assert (left.std(axis=0) < 0.45 * true.std(axis=0)).all()


def test_noise_without_a_field_makes_next_to_no_map() -> None:
    rng = np.random.default_rng(7)
    x, y = rng.uniform(0, SHAPE[1], 500), rng.uniform(0, SHAPE[0], 500)
    error = np.full((500, 1), 0.05)
    maps = fit_maps(x, y, rng.normal(0, error), error, SHAPE, LocalMapsConfig())
    assert maps is not None
    assert np.abs(maps.values).std() < 0.015


def test_few_stars_give_no_maps() -> None:
    x, y, value, error = made(39)
    assert fit_maps(x, y, value[:, None], error[:, None], SHAPE, LocalMapsConfig(min_stars=40)) is None
    many = made(60)
    lost = np.where(np.arange(60) < 30, np.nan, many[2])
    maps = fit_maps(many[0], many[1], lost[:, None], many[3][:, None], SHAPE, LocalMapsConfig(min_stars=40))
    assert maps is not None
    assert not maps.values.any()
