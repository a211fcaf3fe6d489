"""A known sky comes off; sources and their neighbourhood stay."""

import numpy as np
import pytest
import sep
from numpy.typing import NDArray

from core.contracts.exposure import Frame
from core.errors import Outcome, UnusableDataError
from core.flags import Mask
from core.stages.background import BackgroundConfig, subtract_background
from core.workspace import Workspace
from tests.support.starfield import draw_stars

Float64 = NDArray[np.float64]

SHAPE = (448, 512)


def make_frame(seed: int = 3, *, stars: bool = True) -> tuple[Frame, Float64, Float64]:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    sky = 900 + 20 * (x / SHAPE[1]) - 15 * (y / SHAPE[0]) + 12 * (x / SHAPE[1] - 0.5) ** 2
    signal = np.zeros(SHAPE)
    if stars:
        places = rng.uniform(10, 440, (2, 60))
        signal = draw_stars(SHAPE, places[0], places[1], np.exp(rng.uniform(6, 11, 60)), 4.0)
    image = rng.normal(sky + signal, np.sqrt(sky + signal + 36))
    frame = Frame(
        image=image.astype(np.float32),
        variance=(np.maximum(image, 0) + 36).astype(np.float32),
        mask=np.zeros(SHAPE, np.uint16),
    )
    return frame, sky, signal


def test_sky_comes_off_under_stars() -> None:
    frame, sky, signal = make_frame()
    result = subtract_background(frame, Workspace(), BackgroundConfig())
    left = (frame.image - signal)[signal < 1]
    assert abs(left.mean()) < 1.5
    assert left.std() < 1.03 * np.sqrt(sky.mean() + 36)
    np.testing.assert_allclose(result.level, np.median(sky), atol=3)
    np.testing.assert_allclose(result.sigma, np.sqrt(sky.mean() + 36), rtol=0.04)
    assert result.mesh.shape == (4, 4)


def test_the_gradient_is_followed_to_the_edges() -> None:
    frame, _, signal = make_frame(stars=False)
    subtract_background(frame, Workspace(), BackgroundConfig(filter_cells=1))
    blocks = (frame.image - signal).reshape(14, 32, 16, 32).mean(axis=(1, 3))
    # 32 pixels squared average the noise down to 1 e-
    assert np.abs(blocks).max() < 5


def test_variance_becomes_that_of_the_sky_and_stays_that_of_stars() -> None:
    frame, sky, signal = make_frame()
    subtract_background(frame, Workspace(), BackgroundConfig())
    faint, bright = signal < 1, signal > 1000
    assert (frame.variance[faint]).std() < 0.25 * np.sqrt(sky.mean())
    np.testing.assert_allclose(frame.variance[faint].mean(), (sky + 36)[faint].mean(), rtol=0.01)
    np.testing.assert_allclose(frame.variance[bright].mean(), (sky + signal + 36)[bright].mean(), rtol=0.02)
    correlation = np.corrcoef(frame.image[faint], frame.variance[faint])[0, 1]
    assert abs(correlation) < 0.3


def test_a_bright_galaxy_digs_no_ring() -> None:
    shape = (1152, 1152)
    rng = np.random.default_rng(8)
    y, x = np.mgrid[: shape[0], : shape[1]]
    radius = np.hypot(x - 570, y - 580)
    galaxy = 6000 * np.exp(-radius / 18)
    image = rng.normal(900 + galaxy, np.sqrt(936 + galaxy))
    frame = Frame(
        image=image.astype(np.float32),
        variance=(image + 36).astype(np.float32),
        mask=np.zeros(shape, np.uint16),
    )
    subtract_background(frame, Workspace(), BackgroundConfig())
    ring = (radius > 130) & (radius < 200)
    assert abs((frame.image - galaxy)[ring].mean()) < 2.0


def test_masked_cells_take_their_neighbours_sky() -> None:
    frame, _, _ = make_frame(stars=False)
    frame.image[:130, :130] = 50_000
    frame.mask[:130, :130] = Mask.NODATA
    subtract_background(frame, Workspace(), BackgroundConfig())
    assert (frame.image[:130, :130] == 0).all()
    assert abs(frame.image[150:, 150:].mean()) < 1.5


def test_a_frame_without_a_usable_cell_is_unusable() -> None:
    frame, _, _ = make_frame(stars=False)
    frame.mask[:] = Mask.BAD
    with pytest.raises(UnusableDataError) as caught:
        subtract_background(frame, Workspace(), BackgroundConfig())
    assert caught.value.outcome is Outcome.BAD_RAW


def test_the_mesh_agrees_with_sep() -> None:
    frame, _, _ = make_frame()
    reference = sep.Background(frame.image.copy(), bw=128, bh=128, fw=1, fh=1)
    level = reference.back()
    before = frame.image.copy()
    result = subtract_background(frame, Workspace(), BackgroundConfig(filter_cells=1, row_step=1))
    inner = np.s_[64:-64, 64:-64]
    assert np.abs((before - frame.image) - level)[inner].mean() < 1.0
    np.testing.assert_allclose(result.sigma, reference.globalrms, rtol=0.03)
