"""Subtraction: what changed stays with its flux, what did not is noise."""

from dataclasses import replace

import numpy as np
import pytest

from core.contracts.catalogs import SOURCE
from core.contracts.exposure import DifferenceImage, Frame
from core.contracts.psf import polynomial_terms
from core.errors import Outcome, UnusableDataError
from core.flags import Mask
from core.kernels.kernel_fit import basis_stamp
from core.stages.convolve import subtract_convolved
from core.stages.decorrelate import WhiteningConfig, whitening_kernel
from core.stages.difference_background import DifferenceBackgroundConfig, subtract_difference_background
from core.stages.kernel_config import KernelConfig
from core.stages.kernel_field import KernelField
from core.stages.kernel_stars import choose_stars
from core.stages.matching_kernel import fit_kernel, is_white
from core.stages.subtract import SubtractConfig, subtract
from core.workspace import Workspace
from tests.support.difference_scene import Scene, add_stars, gaussian, make_scene
from tests.support.reference import difference as twin

SMALL = SubtractConfig(kernel=KernelConfig(spatial_order=1, min_stars=5, max_snr=2000.0))


def psf_flux(difference: DifferenceImage, x: float, y: float) -> tuple[float, float]:
    """Flux and error of a PSF fit at the nearest pixel, corrected for the offset by the PSF's own correlation."""
    psf = difference.psf.at(x, y).astype(np.float64)
    half, cx, cy = psf.shape[0] // 2, round(x), round(y)
    here = (slice(cy - half, cy + half + 1), slice(cx - half, cx + half + 1))
    image, variance = difference.frame.image[here], difference.frame.variance[here]
    norm = (psf**2 / variance).sum()
    sigma2 = np.sqrt(np.prod(difference.psf.moments(x, y)[:2]))
    loss = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (4 * sigma2))
    return float((psf * image / variance).sum() / norm / loss), float(1 / np.sqrt(norm))


def check_transients(scene: Scene, difference: DifferenceImage) -> None:
    pulls = []
    for x, y, flux in zip(scene.x, scene.y, scene.flux, strict=True):
        measured, error = psf_flux(difference, x, y)
        pulls.append((measured - flux) / error)
        assert measured == pytest.approx(flux, rel=0.35)
    assert abs(np.mean(pulls)) < 1.2
    assert np.std(pulls) < 2.0


def star_residual(scene: Scene, difference: DifferenceImage) -> float:
    """Median chi2 per pixel of the stars' cores."""
    chi2 = []
    far = [np.hypot(scene.x - s["x"], scene.y - s["y"]).min() > 20 for s in scene.stars]
    for star in scene.stars[far]:
        x, y = round(star["x"]), round(star["y"])
        if 20 < x < difference.frame.shape[1] - 20 and 20 < y < difference.frame.shape[0] - 20:
            here = (slice(y - 3, y + 4), slice(x - 3, x + 4))
            chi2.append((difference.frame.image[here] ** 2 / difference.frame.variance[here]).mean())
    return float(np.median(chi2))


@pytest.mark.parametrize(("science_sigma", "template_sigma", "is_convolved"), [(2.0, 1.6, False), (1.6, 2.0, True)])
def test_difference_holds_the_transients_only(science_sigma: float, template_sigma: float, is_convolved: bool) -> None:
    scene = make_scene(science_sigma, template_sigma, template_scale=1.05)
    difference = subtract(scene.exposure, scene.template, scene.stars, Workspace(), SMALL)
    assert difference.is_science_convolved is is_convolved
    assert difference.kernel_sum == pytest.approx(1 / 1.05, rel=0.01)
    check_transients(scene, difference)
    # Without subtraction this is above 100.
    assert star_residual(scene, difference) < 1.6
    assert 0.8 < difference.variance_scale < 1.25
    sky = difference.frame.image[difference.frame.mask == 0]
    assert 1.4826 * np.median(np.abs(sky)) == pytest.approx(scene.sky_sigma, rel=0.25)


def test_shallow_template_gives_white_noise() -> None:
    scene = make_scene(2.2, 1.5, template_noise=20.0)
    always = replace(SMALL, whitening=WhiteningConfig(min_snr_gain=-1.0))
    never = replace(SMALL, whitening=WhiteningConfig(min_snr_gain=9.0))
    noisy = subtract(scene.exposure, scene.template, scene.stars, Workspace(), always)
    coloured = subtract(scene.exposure, scene.template, scene.stars, Workspace(), never)
    assert coarse_to_fine_power(noisy.frame) == pytest.approx(1.0, abs=0.15)
    assert coarse_to_fine_power(coloured.frame) > 1.2
    check_transients(scene, noisy)


def coarse_to_fine_power(frame: Frame) -> float:
    """Variance of means over 4 x 4 pixels times 16, over the variance of pixels: one for white noise."""
    snr = frame.image / np.sqrt(frame.variance)
    blocks = snr.reshape(96, 4, 96, 4).swapaxes(1, 2).reshape(-1, 16)
    marked = frame.mask.reshape(96, 4, 96, 4).swapaxes(1, 2).reshape(-1, 16)
    means = blocks[(marked == 0).all(axis=1)].mean(axis=1)
    spread, fine = (1.4826 * np.median(np.abs(v - np.median(v))) for v in (means, snr[frame.mask == 0]))
    return float(16 * (spread / fine) ** 2)


def test_unrelated_images_are_refused() -> None:
    scene, other = make_scene(2.0, 1.6, seed=1), make_scene(2.0, 1.6, seed=2)
    with pytest.raises(UnusableDataError) as caught:
        subtract(scene.exposure, other.template, scene.stars, Workspace(), SMALL)
    assert caught.value.outcome is Outcome.BAD_SUBTRACTION
    with pytest.raises(UnusableDataError):
        subtract(scene.exposure, scene.template, scene.stars[:0], Workspace(), SMALL)


def test_a_halo_hangs_together_with_its_star() -> None:
    """What is bright beside a saturated star without touching its halo is claimed as anything else is."""
    scene = make_scene(2.0, 1.6)
    template, science = scene.template.frame, scene.exposure.frame
    yy, xx = np.indices(science.shape)
    places = {"saturated": (200.0, 210.0, 3e6), "beside": (241.0, 210.0, 1e5)}
    for frame, sigma in ((template, 1.6), (science, 2.0)):
        for x, y, flux in places.values():
            frame.image[:] += (flux * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * sigma**2)) / sigma**2).astype("f4")
    template.mask[208:213, 198:203] |= np.uint16(Mask.SAT)
    science.mask[208:213, 198:203] |= np.uint16(Mask.SAT)
    frame = subtract(scene.exposure, scene.template, scene.stars, Workspace(), SMALL).frame
    assert frame.mask[210, 195] & Mask.SAT
    assert frame.mask[202, 200] & Mask.SAT_TEMPLATE == 0
    near = (slice(205, 216), slice(236, 247))
    assert 0.2 * template.image[210, 241] > 3 * np.sqrt(frame.variance[300, 300])
    assert not (frame.mask[near] & Mask.SAT).any()


def test_masks_of_the_template_spread_by_the_kernel_only() -> None:
    scene = make_scene(2.0, 1.6)
    scene.template.frame.mask[100:104, 200:204] = Mask.SAT_TEMPLATE
    scene.template.frame.mask[:, :40] = Mask.NODATA
    scene.template.frame.variance[:, :40] = np.inf
    scene.exposure.frame.mask[300, 50] = Mask.CR | Mask.DETECTED
    difference = subtract(scene.exposure, scene.template, scene.stars, Workspace(), SMALL)
    mask = difference.frame.mask
    marked = np.argwhere(mask & Mask.SAT_TEMPLATE)
    assert np.all((marked >= [100 - 5, 200 - 5]) & (marked <= [103 + 5, 203 + 5]))
    assert (mask[99:105, 199:205] & Mask.SAT_TEMPLATE).all()
    assert (mask[:, :40] & Mask.NODATA).all()
    assert not (mask[:, 46:] & Mask.NODATA).any()
    assert mask[300, 50] == Mask.CR
    assert (mask[0] & Mask.EDGE).all()
    assert not (mask[8:-8, 8:-8] & Mask.EDGE).any()
    good = mask & Mask.NODATA == 0
    assert np.isfinite(difference.frame.variance).all()
    assert (difference.frame.variance[good] > 0).all()


def test_kernel_is_recovered_where_the_truth_is_known() -> None:
    rng = np.random.default_rng(3)
    scene = make_scene(2.0, 1.6)
    reference = scene.template.frame
    kernel = gaussian(27, 1.3, 0.3, -0.2)
    field = KernelField(coefficients=kernel.astype(np.float32)[None], shape=reference.shape, order=0)
    image = np.zeros_like(reference.image)
    subtract_convolved(np.zeros_like(image), reference.image, field, None, -1, image, Workspace())
    noisy = image + rng.normal(size=image.shape).astype(np.float32)
    target = Frame(image=noisy, variance=np.ones_like(image), mask=np.zeros(image.shape, np.uint16))
    exact = Frame(image=reference.image, variance=np.full_like(image, 1e-3), mask=reference.mask)
    fit = fit_kernel(
        target, exact, scene.stars, 2.0, 1, Workspace(), KernelConfig(spatial_order=1, systematic_fraction=1e-4)
    )
    local = fit.kernel.at(200, 180)
    middle = local[fit.kernel.half_width - 13 :][:27, fit.kernel.half_width - 13 :][:, :27]
    assert local.sum() == pytest.approx(kernel.sum(), rel=2e-3)
    # A one-pixel difference is what the stars' noise leaves; the true kernel peaks at 0.09.
    assert np.abs(middle - kernel).max() < 4e-3
    assert np.median(fit.chi2) == pytest.approx(1.0, abs=0.15)


def test_wings_of_the_psf_are_matched() -> None:
    """A free constant of each star's stamp would take the wings' light, and every star would keep a plateau."""
    rng = np.random.default_rng(6)
    size, n_side = 640, 7
    grid = (np.arange(n_side) + 0.5) * size / n_side
    x, y = (g.ravel() + rng.uniform(-3, 3, n_side**2) for g in np.meshgrid(grid, grid))
    flux = 10 ** rng.uniform(4, 5, x.size)
    images = [rng.normal(size=(size, size)).astype(np.float32) for _ in range(2)]
    for image, wing in zip(images, (0.06, 0.0), strict=True):
        add_stars(image, x, y, (1 - wing) * flux, np.full(x.size, 2.0))
        add_stars(image, x, y, wing * flux, np.full(x.size, 10.0))
    target, reference = (
        Frame(image=image, variance=np.ones_like(image), mask=np.zeros(image.shape, np.uint16)) for image in images
    )
    stars = np.zeros(x.size, SOURCE)
    stars["x"], stars["y"], stars["snr"] = x, y, 500.0
    fit = fit_kernel(target, reference, stars, 2.0, 1, Workspace(), KernelConfig(spatial_order=1))
    left = np.empty_like(target.image)
    subtract_convolved(target.image, reference.image, fit.kernel, None, 1, left, Workspace())
    yy, xx = np.mgrid[:size, :size]
    total = 0.0
    for sx, sy, f in zip(x, y, flux, strict=True):
        radius = np.hypot(yy - sy, xx - sx)
        ring = (radius > 8) & (radius < 16)
        total += left[ring].mean() * ring.sum() / f
    # the wings hold 6 % of the light, 2.7 % of all in this ring; a free constant leaves 0.8 %
    assert total / x.size == pytest.approx(0.0, abs=1.2e-3)


def test_resampled_noise_is_not_white() -> None:
    rng = np.random.default_rng(9)
    image = rng.normal(size=(400, 400)).astype(np.float32)
    shifted = (0.6 * image + 0.4 * np.roll(image, 1, axis=1)).astype(np.float32)
    frames = [Frame(image=i, variance=np.ones_like(i), mask=np.zeros(i.shape, np.uint16)) for i in (image, shifted)]
    assert [is_white(frame) for frame in frames] == [True, False]


def test_stars_with_defects_are_not_chosen() -> None:
    scene = make_scene(2.0, 1.6)
    config = KernelConfig(max_snr=2000.0)
    frame = scene.exposure.frame
    before = choose_stars(frame, scene.template.frame, scene.stars, 15, 13, 250, config)
    first = scene.stars[before[0]]
    frame.mask[round(first["y"]) + 2, round(first["x"])] = Mask.SAT
    after = choose_stars(frame, scene.template.frame, scene.stars, 15, 13, 250, config)
    assert before[0] not in after
    assert before.size > 10


def test_varying_convolution_agrees_with_its_definition() -> None:
    rng = np.random.default_rng(4)
    shape = (210, 190)
    coefficients = np.stack([gaussian(9, 1.2), 0.2 * gaussian(9, 2.0, 1.0), 0.1 * gaussian(9, 1.5, 0.0, 1.0)])
    field = KernelField(coefficients=coefficients.astype(np.float32), shape=shape, order=1)
    image = rng.normal(size=shape).astype(np.float32)
    plain = rng.normal(size=shape).astype(np.float32)
    out = np.empty(shape, np.float32)
    subtract_convolved(plain, image, field, None, 1, out, Workspace())

    def kernel_at(x: int, y: int) -> np.ndarray:
        return np.tensordot(polynomial_terms(x, y, shape, 1), coefficients, axes=1)

    for y, x in ((0, 0), (100, 90), (171, 12), (209, 189), (166, 166)):
        expected = plain[y, x] - twin.varying_convolution(image.astype(float), kernel_at, y, x)
        assert out[y, x] == pytest.approx(expected, abs=2e-5)


def test_basis_stamps_agree_with_direct_correlation() -> None:
    rng = np.random.default_rng(5)
    image = rng.normal(size=(60, 60)).astype(np.float32)
    axis = np.arange(-6, 7)
    profiles = np.zeros((2, 3, 13), np.float32)
    for g, sigma in enumerate((0.8, 1.8)):
        for p in range(3):
            profiles[g, p] = (axis / sigma) ** p * np.exp(-0.5 * (axis / sigma) ** 2)
    degrees, half_widths = np.array([2, 1], np.int32), np.array([6, 6], np.int32)
    out = np.empty((9, 11, 11), np.float32)
    basis_stamp(image, 30, 28, 5, profiles, degrees, half_widths, np.empty(3 * 23**2, np.float32), out)
    kernels = [np.outer(profiles[g, q], profiles[g, p]) for g, d in ((0, 2), (1, 1)) for p in range(d + 1)
               for q in range(d + 1 - p)]  # fmt: skip
    np.testing.assert_allclose(out, twin.basis_stamp(image.astype(float), 30, 28, 5, np.array(kernels)), atol=2e-4)


def test_whitening_flattens_the_power_it_models() -> None:
    kernel = KernelField(coefficients=gaussian(21, 1.5).astype(np.float32)[None], shape=(100, 100), order=0)
    variance_plain, variance_convolved = np.full((3, 3), 1.0), np.full((3, 3), 4.0)
    white = whitening_kernel(kernel, variance_plain, variance_convolved, WhiteningConfig(n_side=3, order=0)).at(50, 50)
    power_kernel = np.abs(np.fft.fft2(gaussian(21, 1.5), s=(64, 64))) ** 2
    power = np.abs(np.fft.fft2(white, s=(64, 64))) ** 2 * (1.0 + 4.0 * power_kernel)
    np.testing.assert_allclose(power, 5.0, rtol=0.03)


def test_background_of_the_difference_is_removed_and_sources_are_not() -> None:
    rng = np.random.default_rng(6)
    yy, xx = np.mgrid[:512, :512]
    image = (rng.normal(size=(512, 512)) + 0.5 * xx / 512 - 0.3 * yy / 512 + 0.4).astype(np.float32)
    image[200:206, 200:206] += 50
    frame = Frame(image=image, variance=np.ones_like(image), mask=np.zeros(image.shape, np.uint16))
    subtract_difference_background(frame, Workspace(2), DifferenceBackgroundConfig(mesh_size_pix=64))
    assert frame.image[200:206, 200:206].mean() == pytest.approx(50, abs=1.0)
    assert abs(np.median(frame.image)) < 0.02
    assert abs(np.median(frame.image[64:-64, -128:])) < 0.12


def test_wings_of_sources_do_not_lower_the_sky() -> None:
    """Two hundred changes in a cell's worth of sky: their wings raise its median, unless the sources are known."""
    rng = np.random.default_rng(10)
    shape, n = (1024, 1024), 200
    wings = gaussian(41, 3.0)
    y, x = (rng.integers(25, 1000, n) for _ in range(2))
    image = np.zeros(shape)
    for j, i in zip(y, x, strict=True):
        image[j - 20 : j + 21, i - 20 : i + 21] += 300 * wings
    image += rng.normal(size=shape)
    sources = np.zeros(n, SOURCE)
    sources["y"], sources["x"], sources["snr"] = y, x, 300 / np.sqrt(4 * np.pi * 9)
    removed = []
    for known in (None, sources):
        mask = np.zeros(shape, np.uint16)
        frame = Frame(image=image.astype(np.float32), variance=np.ones(shape, np.float32), mask=mask)
        mesh = subtract_difference_background(frame, Workspace(), None, known, 2.3548 * 3.0)
        removed.append(float(mesh.mean()))
        assert not mask.any()
    assert removed[0] > 0.02
    assert abs(removed[1]) < 0.25 * removed[0]
    # where sources are everywhere, none is left out
    sources["snr"] = 1e4
    config = DifferenceBackgroundConfig(max_source_share=0.1)
    frame = Frame(image=image.astype(np.float32), variance=np.ones(shape, np.float32), mask=np.zeros(shape, np.uint16))
    crowded = subtract_difference_background(frame, Workspace(), config, sources, 2.3548 * 3.0)
    assert float(crowded.mean()) == pytest.approx(removed[0], abs=1e-6)
