"""Adaptive moments against ellipses of known shape, the PSF model's own moments and the twin."""

import numpy as np
import pytest

from core.kernels.moments import SHAPE_NOT_CONTAINED, SHAPE_NOT_CONVERGED, SHAPE_OK, adaptive_moments
from core.stages.moments import Shapes, extendedness, measure_shapes, psf_moments, sky_jacobians, to_sky
from core.stages.point_source import PsfOnFrame
from tests.support.reference.measurement import adaptive_moments as twin
from tests.support.sky_scene import Scene, psf_model, tilted_wcs


def ellipse(shape: tuple[int, int], x: float, y: float, moments: tuple[float, float, float]) -> np.ndarray:
    inverse = np.linalg.inv([[moments[0], moments[2]], [moments[2], moments[1]]])
    yy, xx = np.indices(shape)
    dx, dy = xx - x, yy - y
    return np.exp(-0.5 * (inverse[0, 0] * dx**2 + inverse[1, 1] * dy**2 + 2 * inverse[0, 1] * dx * dy))


def run(image: np.ndarray, x: float, y: float, sign: float = 1.0, reach: int = 20) -> tuple[np.ndarray, int]:
    moments, status = np.empty((1, 3)), np.empty(1, np.uint8)
    plane = image.astype(np.float32)
    adaptive_moments(
        plane, np.ones_like(plane), np.zeros(plane.shape, np.uint16), 1, np.array([x]), np.array([y]),
        np.array([sign]), np.array([[4.0, 4.0, 0.0]]), np.array([reach]), moments, status,
    )  # fmt: skip
    return moments[0], int(status[0])


@pytest.mark.parametrize("truth", [(4.0, 4.0, 0.0), (9.0, 5.0, 2.0), (5.0, 12.0, -3.0)])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_moments_of_a_gaussian(truth: tuple[float, float, float], sign: float) -> None:
    measured, status = run(sign * ellipse((64, 64), 31.3, 30.6, truth), 31.3, 30.6, sign)
    assert status == SHAPE_OK
    np.testing.assert_allclose(measured, truth, rtol=0.01, atol=0.02)


def test_noisy_moments_equal_the_twin() -> None:
    random = np.random.default_rng(4)
    image = ellipse((64, 64), 31.0, 30.0, (7.0, 4.0, 1.0)) + random.normal(0, 0.03, (64, 64))
    measured, status = run(image, 31.0, 30.0)
    assert status == SHAPE_OK
    np.testing.assert_allclose(measured, twin(image, 31.0, 30.0, np.array([4.0, 4.0, 0.0]), 20), rtol=5e-3, atol=5e-3)


def test_a_hole_or_the_wrong_sign_fails() -> None:
    image = ellipse((64, 64), 31.0, 30.0, (4.0, 4.0, 0.0))
    assert run(-image, 31.0, 30.0)[1] == SHAPE_NOT_CONVERGED
    assert run(image, 90.0, 30.0)[1] == SHAPE_NOT_CONTAINED


def test_psf_moments_follow_the_model() -> None:
    model = psf_model(4.0, (256, 256), gradient=0.15)
    scene = Scene(gradient=0.15)
    difference, _, _ = scene.build()
    plane = PsfOnFrame.of(difference.frame, model)
    x, y = np.array([10.0, 128.0, 250.0]), np.array([20.0, 100.0, 200.0])
    measured = psf_moments(plane, x, y, reach=12)
    for i in range(3):
        np.testing.assert_allclose(measured[i], model.moments(x[i], y[i]), rtol=0.01, atol=0.02)


def test_error_of_the_trace_is_two_over_snr() -> None:
    snr, n = 25.0, 14
    scene = Scene(shape=(510, 510))
    ticks = 34 * (np.arange(n) + 1)
    x, y = (g.ravel().astype(np.float64) for g in np.meshgrid(ticks, ticks))
    for xi, yi in zip(x, y, strict=True):
        scene.add_point(xi, yi, scene.flux_of_snr(snr))
    difference, _, _ = scene.build()
    shapes = measure_shapes(PsfOnFrame.of(difference.frame, difference.psf), x, y, np.ones(x.size), np.full(x.size, 13))
    good = shapes.status == SHAPE_OK
    assert good.mean() > 0.98
    ratio = shapes.size_ratio[good]
    # Moffat wings give the matched Gaussian somewhat less than the point's whole SNR
    assert 1.4826 * np.median(np.abs(ratio - np.median(ratio))) * snr == pytest.approx(2.2, abs=0.4)
    assert np.median(ratio) == pytest.approx(1.0, abs=0.03)
    assert extendedness(shapes, np.full(x.size, snr))[good].max() < 0.6


def test_extended_sources_are_told_from_points() -> None:
    shapes = Shapes(
        source=np.array([[4.0, 4.0, 0.0], [9.0, 7.0, 1.0], [np.nan] * 3]), psf=np.tile([4.0, 4.0, 0.0], (3, 1)),
        status=np.array([SHAPE_OK, SHAPE_OK, SHAPE_NOT_CONVERGED], np.uint8),
    )  # fmt: skip
    values = extendedness(shapes, np.full(3, 50.0))
    assert values[0] < 0.01
    assert values[1] > 0.99
    assert np.isnan(values[2])


def test_moments_turn_with_the_sky() -> None:
    # +x points 30 degrees from east, so an object along x has its long axis on that bearing
    wcs = tilted_wcs((200, 200), rotation_deg=0.0)
    jacobians = sky_jacobians(wcs, np.array([100.0]), np.array([100.0]))
    np.testing.assert_allclose(jacobians[0] * 3600, [[-0.2, 0.0], [0.0, 0.2]], atol=1e-8)
    on_sky = to_sky(np.array([[9.0, 4.0, 1.0]]), jacobians)
    np.testing.assert_allclose(on_sky[0], [9 * 0.04, 4 * 0.04, -0.04], rtol=1e-6)
    turned = sky_jacobians(tilted_wcs((200, 200), rotation_deg=90.0), np.array([100.0]), np.array([100.0]))
    np.testing.assert_allclose(to_sky(np.array([[9.0, 4.0, 0.0]]), turned)[0], [4 * 0.04, 9 * 0.04, 0.0], atol=1e-6)


def test_jacobians_equal_the_single_ones() -> None:
    wcs = tilted_wcs((4000, 4000), rotation_deg=12.0)
    many = sky_jacobians(wcs, np.array([10.0, 3900.0]), np.array([20.0, 3000.0]))
    np.testing.assert_allclose(many[1], wcs.local_cd(3900.0, 3000.0), rtol=1e-7, atol=1e-12)
