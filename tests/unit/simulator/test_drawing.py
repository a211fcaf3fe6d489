"""The PSF and its drawing against integrals known beforehand."""

import numpy as np
import pytest

from benchmarks.simulator.drawing import draw, psf_images
from benchmarks.simulator.psf import basis_weights, make_basis
from benchmarks.simulator.randomness import WaveField, stream

NOMINAL = basis_weights(*[np.zeros(1)] * 5)


def star(x: float, y: float, flux: float = 1e6, size: int = 301) -> np.ndarray:
    canvas = np.zeros((size, size), np.float32)
    basis = make_basis(0.8, 622.0, 0.2, aureole=True)
    draw(canvas, basis, NOMINAL, np.array([x]), np.array([y]), np.array([flux]), 1e-3)
    return canvas


def test_delivered_width_is_the_one_asked_for() -> None:
    for fwhm in (0.55, 1.1):
        basis = make_basis(fwhm, 622.0, 0.2, aureole=True)
        half = basis.profile[0] / 2
        radius = float(np.interp(-half, -basis.profile[:40], np.arange(40) * 0.5))
        assert 2 * radius * 0.2 == pytest.approx(fwhm, rel=0.04)


def test_flux_and_centroid_do_not_depend_on_the_subpixel_position() -> None:
    yy, xx = np.mgrid[:301, :301]
    core = np.hypot(yy - 150, xx - 150) < 24
    totals = []
    for dx in (0.0, 0.2, 0.5, 0.77):
        image = star(150.0 + dx, 150.3)
        totals.append(image.sum())
        centroid = (image * xx * core).sum() / (image * core).sum()
        assert centroid == pytest.approx(150.0 + dx, abs=0.02)
    # the aureole outside the canvas holds half a percent
    assert totals[0] == pytest.approx(1e6, rel=0.01)
    np.testing.assert_allclose(totals, totals[0], rtol=1e-5)


def test_wing_joins_the_core_smoothly() -> None:
    profile = star(150.0, 150.0)[150, 150:]
    falling = -np.diff(np.log(profile[14:60]))
    assert (falling > 0).all()
    assert np.abs(np.diff(falling)).max() < 0.025


def test_points_share_the_flux_and_a_psf_image_is_a_drawn_star() -> None:
    basis = make_basis(0.8, 622.0, 0.2, aureole=True)
    one, where = np.array([1.0]), np.array([20.0])
    spread = np.zeros((41, 41), np.float32)
    points = (np.array([0, 2]), np.array([-0.5, 0.5], np.float32), np.zeros(2, np.float32))
    draw(spread, basis, NOMINAL, where, where, one, 1e-9, points)
    halves = sum(psf_images(basis, NOMINAL, np.array([20.0 + d]), where, 41)[0] * 0.5 for d in (-0.499, 0.499))
    np.testing.assert_allclose(spread, halves, atol=3e-4)


def test_widths_and_shapes_follow_the_weights() -> None:
    basis = make_basis(0.8, 622.0, 0.2, aureole=False)
    zero = np.zeros(3)
    weights = basis_weights(np.array([-0.1, 0.0, 0.1]), zero, zero, zero, zero)
    peaks = psf_images(basis, weights, zero, zero, 41).max(axis=(1, 2))
    assert peaks[0] > peaks[1] > peaks[2]
    assert peaks[0] / peaks[2] == pytest.approx((1.1 / 0.9) ** 2, rel=0.12)
    e1 = basis_weights(zero, np.array([0.1, 0.0, -0.1]), zero, zero, zero)
    images = psf_images(basis, e1, zero, zero, 41)
    axis = np.arange(41) - 20
    core = np.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / 18.0)
    q = [(im * core * (axis[None, :] ** 2 - axis[:, None] ** 2)).sum() for im in images]
    assert q[0] * q[2] < 0
    assert abs(q[0] - q[2]) > 5 * abs(q[1])


def test_random_fields_have_unit_variance_and_their_wavelengths() -> None:
    field = WaveField.draw(stream(1, "field"), 120.0, 400.0)
    x, y = (g.ravel() for g in np.meshgrid(np.arange(0, 6000, 40.0), np.arange(0, 6000, 40.0)))
    values = field(x, y)
    assert values.std() == pytest.approx(1.0, abs=0.1)
    near = np.corrcoef(values, field(x + 15, y))[0, 1]
    far = np.corrcoef(values, field(x + 200, y))[0, 1]
    assert near > 0.85
    assert abs(far) < 0.5


def test_streams_differ_by_name_and_repeat() -> None:
    assert stream(1, "a", 2).random() == stream(1, "a", 2).random()
    assert stream(1, "a", 2).random() != stream(1, "b", 2).random()
