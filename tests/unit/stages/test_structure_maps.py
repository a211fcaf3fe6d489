"""Stars whose widths, shapes and shifts vary as known: the PSF's and the kernel's maps find them."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from core.contracts.catalogs import SOURCE
from core.contracts.exposure import Frame
from core.contracts.psf import PsfModel
from core.stages.kernel_config import KernelConfig
from core.stages.kernel_field import KernelField
from core.stages.kernel_maps import KernelMapsConfig, map_kernel
from core.stages.matching_kernel import fit_kernel
from core.stages.psf_structure import StructureConfig, map_structure, slopes, stretch_modes, widen
from core.workspace import Workspace
from tests.support.difference_scene import gaussian

Float64 = NDArray[np.float64]

SHAPE = (1200, 1200)
SIGMA = 2.0
SKY_SIGMA = 10.0
N_STARS = 220


def field(x: Float64, y: Float64) -> Float64:
    return np.asarray(np.sin(x / 230) * np.cos(y / 260), np.float64)


def star_places(seed: int, n: int = N_STARS) -> tuple[Float64, Float64, Float64]:
    """(x, y, flux) on a jittered grid, S/N of hundreds."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(n)))
    step = (SHAPE[0] - 80) / side
    places = 40 + step * (np.stack(np.mgrid[:side, :side], -1).reshape(-1, 2)[:n] + rng.uniform(0.1, 0.9, (n, 2)))
    return places[:, 1], places[:, 0], np.exp(rng.uniform(np.log(2e4), np.log(3e5), n))


def draw(x: Float64, y: Float64, flux: Float64, sigma_x: Float64, sigma_y: Float64, seed: int) -> Frame:
    """Gaussian stars on flat noise; the variance is that of the expected counts."""
    rng = np.random.default_rng(seed)
    image = np.zeros(SHAPE)
    axis = np.arange(-15, 16)
    for n in range(x.size):
        cx, cy = round(x[n]), round(y[n])
        across = np.exp(-0.5 * ((axis - (x[n] - cx)) / sigma_x[n]) ** 2)
        down = np.exp(-0.5 * ((axis - (y[n] - cy)) / sigma_y[n]) ** 2)
        peak = flux[n] / (2 * np.pi * sigma_x[n] * sigma_y[n])
        image[cy - 15 : cy + 16, cx - 15 : cx + 16] += peak * np.outer(down, across)
    variance = SKY_SIGMA**2 + image
    noisy = image + rng.normal(size=SHAPE) * np.sqrt(variance)
    return Frame(image=noisy.astype(np.float32), variance=variance.astype(np.float32), mask=np.zeros(SHAPE, np.uint16))


def mean_psf() -> PsfModel:
    image = gaussian(31, SIGMA)
    return PsfModel(coefficients=(image / image.sum()).astype(np.float32)[None], shape=SHAPE, order=0)


def test_slopes_and_stretches_are_those_of_a_gaussian() -> None:
    image = gaussian(41, SIGMA)
    by_x, by_y = slopes(image)
    axis = np.arange(41) - 20
    np.testing.assert_allclose(by_x, -axis[None, :] / SIGMA**2 * image, atol=1e-6)
    np.testing.assert_allclose(by_y, by_x.T, atol=1e-10)
    modes = stretch_modes(image)
    np.testing.assert_allclose(modes.sum(axis=(1, 2)), 0, atol=1e-9)
    wider = (gaussian(41, 1.001 * SIGMA) - gaussian(41, 0.999 * SIGMA)) / 0.002
    np.testing.assert_allclose(modes[0], wider, atol=2e-5)
    flatter = (
        gaussian(41, 1.001 * SIGMA, ratio=0.999 / 1.001) - gaussian(41, 0.999 * SIGMA, ratio=1.001 / 0.999)
    ) / 2e-3
    np.testing.assert_allclose(modes[1], flatter, atol=2e-5)


def test_width_and_ellipticity_are_mapped() -> None:
    x, y, flux = star_places(1)
    width, ellipticity = 0.02 * field(x, y), 0.015 * field(y + 400, x)
    frame = draw(x, y, flux, SIGMA * (1 + width + ellipticity), SIGMA * (1 + width - ellipticity), 2)
    psf, widths = map_structure(
        frame, mean_psf(), (x, y, flux), 2.3548 * SIGMA, np.uint16(1), Workspace(), StructureConfig()
    )
    assert psf.maps is not None
    assert (widths - width).std() < 0.6 * width.std()
    assert abs((widths - width).mean()) < 0.002
    found = psf.maps.at(x, y)
    for found_one, true in ((found[:, 0], width), (found[:, 1], ellipticity)):
        assert (found_one - true).std() < 0.3 * true.std()
    assert found[:, 2].std() < 0.003
    # the images follow: their moments are the stars'
    for n in range(0, N_STARS, 60):
        ixx, iyy, _ = psf.moments(x[n], y[n])
        expected = SIGMA * (1 + width[n] + ellipticity[n]), SIGMA * (1 + width[n] - ellipticity[n])
        assert np.sqrt([ixx, iyy]) == pytest.approx(expected, rel=0.012)
        assert psf.at(x[n], y[n]).sum() == pytest.approx(1.0, abs=1e-5)


def test_a_psf_without_structure_or_stars_stays_as_it_is() -> None:
    x, y, flux = star_places(3)
    frame = draw(x, y, flux, np.full(N_STARS, SIGMA), np.full(N_STARS, SIGMA), 4)
    psf, fwhm, skip = mean_psf(), 2.3548 * SIGMA, np.uint16(1)
    few = (x[:30], y[:30], flux[:30])
    assert map_structure(frame, psf, few, fwhm, skip, Workspace(), StructureConfig())[0] is psf
    off = StructureConfig(is_mapped=False)
    unmapped, widths = map_structure(frame, psf, (x, y, flux), fwhm, skip, Workspace(), off)
    assert unmapped is psf
    assert np.isnan(widths).all()
    mapped, _ = map_structure(frame, psf, (x, y, flux), fwhm, skip, Workspace(), StructureConfig())
    assert mapped.maps is None or mapped.maps.values.std() < 0.002


def test_a_widened_psf_is_that_of_a_wider_star() -> None:
    wide = widen(mean_psf(), 0.01)
    np.testing.assert_allclose(wide.center(), gaussian(31, 1.01 * SIGMA), atol=2e-5)
    assert wide.center().sum() == pytest.approx(1.0, abs=1e-6)
    assert widen(mean_psf(), 0.0).center() == pytest.approx(mean_psf().center())


def test_noise_of_the_reference_does_not_narrow_the_kernel() -> None:
    x, y, flux = star_places(10)
    same, faint = np.ones(N_STARS), 0.03 * flux
    # a field there must be, or nothing is mapped
    shift = 0.3 * field(x, y)
    reference, target = (
        draw(x, y, faint, 1.6 * same, 1.6 * same, 11),
        draw(x + shift, y, faint, SIGMA * same, SIGMA * same, 13),
    )
    image = gaussian(21, np.sqrt(SIGMA**2 - 1.6**2))
    plain = KernelField(coefficients=image.astype(np.float32)[None], shape=SHAPE, order=0)
    bias = {}
    for removed in (0.0, 1.0):
        kernel = map_kernel(plain, target, reference, x, y, 9, removed, KernelMapsConfig(model_error=0.0))
        assert kernel.maps is not None
        axis = np.arange(kernel.coefficients.shape[1]) - kernel.half_width
        kernels = np.tensordot(kernel.terms(x, y), kernel.coefficients, axes=1)
        second = (kernels.sum(axis=1) + kernels.sum(axis=2)) @ axis**2 / kernels.sum(axis=(1, 2)) / 2
        bias[removed] = float(np.mean(second)) - (SIGMA**2 - 1.6**2)
    assert bias[0.0] > 0.02
    assert abs(bias[1.0]) < 0.3 * bias[0.0]


def test_noise_of_the_reference_does_not_smear_the_kernel() -> None:
    """Stars of S/N 40 to 200: without the correction each would keep a part of its peak."""
    x, y, flux = star_places(14)
    same, faint = np.ones(N_STARS), 0.15 * flux
    reference, target = draw(x, y, faint, 1.3 * same, 1.3 * same, 15), draw(x, y, faint, 1.5 * same, 1.5 * same, 16)
    stars = np.zeros(N_STARS, SOURCE)
    stars["x"], stars["y"], stars["snr"] = x, y, faint / (SKY_SIGMA * np.sqrt(4 * np.pi * 1.5**2))
    peak_left = {}
    for removed in (0.0, 0.95):
        config = KernelConfig(
            spatial_order=0, max_stars=250, noise_removed=removed, local=KernelMapsConfig(is_mapped=False)
        )
        kernel = fit_kernel(target, reference, stars, 1.5, 0, Workspace(), config).kernel.at(600, 600)
        matched = fftconvolve(gaussian(31, 1.3), kernel, mode="same")
        peak_left[removed] = 1 - float(matched.max() / gaussian(31, 1.5).max())
    assert peak_left[0.0] > 0.01
    assert abs(peak_left[0.95]) < 0.4 * peak_left[0.0]


def test_the_kernel_follows_shifts_and_widths() -> None:
    x, y, flux = star_places(5)
    shift, width = 0.06 * field(x, y), 0.02 * field(y + 400, x)
    same = np.ones(N_STARS)
    reference = draw(x, y, flux, 1.6 * same, 1.6 * same, 6)
    target = draw(x + shift, y, flux, SIGMA * (1 + width), SIGMA * (1 + width), 7)
    image = gaussian(21, np.sqrt(SIGMA**2 - 1.6**2))
    plain = KernelField(coefficients=image.astype(np.float32)[None], shape=SHAPE, order=0)
    kernel = map_kernel(plain, target, reference, x, y, 9, 0.0, KernelMapsConfig())
    assert kernel.maps is not None
    axis = np.arange(kernel.coefficients.shape[1]) - kernel.half_width
    kernels = np.tensordot(kernel.terms(x, y), kernel.coefficients, axes=1)
    norm = kernels.sum(axis=(1, 2))
    centroid_x, centroid_y = kernels.sum(axis=1) @ axis / norm, kernels.sum(axis=2) @ axis / norm
    assert (centroid_x - shift).std() < 0.35 * shift.std()
    assert centroid_y.std() < 0.2 * shift.std()
    second = (kernels.sum(axis=1) + kernels.sum(axis=2)) @ axis**2 / norm / 2
    true = SIGMA**2 * (1 + width) ** 2 - 1.6**2
    assert (second - true).std() < 0.4 * true.std()
    np.testing.assert_allclose(norm, norm.mean(), rtol=1e-4)


def test_few_stars_or_no_maps_leave_the_kernel() -> None:
    x, y, flux = star_places(8, n=30)
    frame = draw(x, y, flux, np.full(30, SIGMA), np.full(30, SIGMA), 9)
    plain = KernelField(coefficients=gaussian(21, 0.5).astype(np.float32)[None], shape=SHAPE, order=0)
    assert map_kernel(plain, frame, frame, x, y, 9, 0.0, KernelMapsConfig()) is plain
    config = KernelMapsConfig(is_mapped=False)
    assert map_kernel(plain, frame, frame, *star_places(8)[:2], 9, 0.0, replace(config)) is plain
