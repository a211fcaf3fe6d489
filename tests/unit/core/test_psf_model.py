"""The PSF model against analytic Gaussians."""

import numpy as np
import pytest

from core.contracts.psf import PsfModel, n_terms, polynomial_terms
from core.errors import RejectedInputError


def gaussian(k: int, sxx: float, syy: float, sxy: float = 0.0) -> np.ndarray:
    axis = np.arange(k) - k // 2
    yy, xx = np.meshgrid(axis, axis, indexing="ij")
    det = sxx * syy - sxy**2
    image = np.exp(-(syy * xx**2 - 2 * sxy * xx * yy + sxx * yy**2) / (2 * det))
    return image / image.sum()


def test_moments_of_a_gaussian() -> None:
    model = PsfModel(coefficients=gaussian(41, 9.0, 6.0, 1.5)[None].astype(np.float32), shape=(100, 200), order=0)
    assert model.moments(10, 10) == pytest.approx((9.0, 6.0, 1.5), rel=1e-3)
    assert model.fwhm_pix() == pytest.approx(2.3548 * (9 * 6 - 1.5**2) ** 0.25, rel=1e-3)


def test_noise_area_of_a_gaussian_is_4_pi_sigma2() -> None:
    model = PsfModel(coefficients=gaussian(41, 4.0, 4.0)[None].astype(np.float32), shape=(100, 100), order=0)
    assert model.noise_area_pix(5, 5) == pytest.approx(4 * np.pi * 4, rel=1e-3)


def test_polynomial_varies_the_image_and_keeps_unit_sum() -> None:
    coefficients = np.zeros((n_terms(1), 41, 41), np.float32)
    coefficients[0] = gaussian(41, 4.0, 4.0)
    coefficients[1] = gaussian(41, 5.0, 5.0) - gaussian(41, 4.0, 4.0)
    model = PsfModel(coefficients=coefficients, shape=(101, 201), order=1)
    np.testing.assert_allclose(model.at(200, 50), gaussian(41, 5.0, 5.0), atol=1e-7)
    many = model.at_many([0, 100, 200], [50, 50, 50])
    np.testing.assert_allclose(many.sum(axis=(1, 2)), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(many[1], model.at(100, 50))


def test_terms_count_and_corners() -> None:
    assert polynomial_terms(0, 0, (11, 21), 3).shape == (n_terms(3),)
    np.testing.assert_array_equal(polynomial_terms(20, 0, (11, 21), 1), [1, 1, -1])


def test_bad_shapes_are_rejected() -> None:
    with pytest.raises(RejectedInputError):
        PsfModel(coefficients=np.ones((1, 4, 4), np.float32), shape=(10, 10), order=0)
    with pytest.raises(RejectedInputError):
        PsfModel(coefficients=np.ones((1, 5, 5)), shape=(10, 10), order=0)  # type: ignore[arg-type]
