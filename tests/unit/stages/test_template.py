"""The template on the science grid: flux, place, masks, PSF, against the definition and the WCS."""

from typing import Literal

import numpy as np
import pytest

from core.contracts.exposure import Frame, Template
from core.contracts.psf import PsfModel
from core.errors import Outcome, UnusableDataError
from core.flags import Mask
from core.kernels.warp import sinc_table, warp_psf
from core.stages.template import TemplateConfig, map_grid, warp_template
from core.workspace import Workspace
from tests.support.difference_scene import add_stars, gaussian, simple_wcs
from tests.support.reference.sinc import sinc_at

SHAPE = (200, 232)
TEMPLATE_SHAPE = (420, 400)


def make_template(image: np.ndarray, scale_arcsec: float = 0.2, ratio: float = 1.0) -> Template:
    k = 25
    cell = gaussian(k, 1.8, ratio=ratio).astype(np.float32)
    return Template(
        frame=Frame(
            image=image.astype(np.float32),
            variance=np.full(image.shape, 4.0, np.float32),
            mask=np.zeros(image.shape, np.uint16),
        ),
        wcs=simple_wcs((200.0, 210.0), scale_arcsec=scale_arcsec),
        psf_cells=np.broadcast_to(cell / cell.sum(), (5, 5, k, k)).astype(np.float32),
        cell_size_pix=100,
        cell_offset_pix=(30, 40),
        n_inputs=5,
        epoch_mjd_tai=59000.0,
    )


@pytest.mark.parametrize("order", [3, 4])
@pytest.mark.parametrize("window", ["kaiser", "lanczos"])
@pytest.mark.parametrize("rotation_deg", [0.7, 33.0, 90.0, 200.0])
def test_pixels_are_the_sinc_sum_at_the_mapped_position(
    rotation_deg: float, window: Literal["kaiser", "lanczos"], order: Literal[3, 4]
) -> None:
    rng = np.random.default_rng(1)
    image = np.zeros(TEMPLATE_SHAPE, np.float32)
    n = 300
    add_stars(image, rng.uniform(0, 400, n), rng.uniform(0, 420, n), rng.uniform(1e2, 1e4, n), np.full(n, 1.8))
    template, wcs = make_template(image), simple_wcs((110.0, 95.0), rotation_deg)
    warped = warp_template(template, wcs, SHAPE, Workspace(), TemplateConfig(sinc_order=order, sinc_window=window))
    y, x = rng.integers(20, 180, 200), rng.integers(20, 210, 200)
    tx, ty = template.wcs.sky_to_pixel(*wcs.pixel_to_sky(x, y))
    expected = [sinc_at(image, u, v, order, window) for u, v in zip(tx, ty, strict=True)]
    # 512 phases: half a phase is 0.001 pixel, of gradients up to 700 a pixel.
    np.testing.assert_allclose(warped.frame.image[y, x], expected, rtol=1e-3, atol=1.0)
    np.testing.assert_allclose(warped.frame.variance[y, x], 4.0, rtol=1e-3)
    assert warped.coverage == 1.0
    assert not warped.frame.mask.any()


@pytest.mark.parametrize("order", [3, 4])
def test_cells_without_checks_equal_those_with_them(order: Literal[3, 4]) -> None:
    """One pixel without data in each block of the template sends every cell down the slow path."""
    image = np.random.default_rng(5).normal(0, 100, TEMPLATE_SHAPE)
    wcs, config = simple_wcs((110.0, 95.0), 33.0), TemplateConfig(sinc_order=order)
    template = make_template(image)
    template.frame.mask[::32, ::32] = Mask.SUSPECT
    template.frame.mask[7::32, 3::32] = Mask.SAT
    fast = warp_template(template, wcs, SHAPE, Workspace(), config).frame
    template.frame.mask[16::32, 16::32] = Mask.NODATA
    slow = warp_template(template, wcs, SHAPE, Workspace(), config).frame
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    tx, ty = template.wcs.sky_to_pixel(*wcs.pixel_to_sky(xx.ravel(), yy.ravel()))
    far = (np.maximum(np.abs(tx % 32 - 16), np.abs(ty % 32 - 16)) > order + 1).reshape(SHAPE)
    assert far.mean() > 0.6
    assert 0 < np.count_nonzero(fast.mask & Mask.SUSPECT) < 0.05 * fast.mask.size
    assert 0 < np.count_nonzero(fast.mask & Mask.SAT_TEMPLATE) < 0.05 * fast.mask.size
    # a position may round to the pixel's other side
    assert np.count_nonzero(fast.mask[far] != slow.mask[far]) < 1e-4 * far.sum()
    # both sample the table at one of 512 phases, which rounding may choose differently
    assert np.percentile(np.abs(fast.image - slow.image)[far], 99) < 1e-2
    np.testing.assert_allclose(fast.image[far], slow.image[far], atol=2.0)
    np.testing.assert_allclose(fast.variance[far], slow.variance[far], rtol=1e-4)


@pytest.mark.parametrize("order", [3, 4])
def test_psf_is_the_sinc_sum_of_its_cell(order: Literal[3, 4]) -> None:
    rng = np.random.default_rng(8)
    cell = gaussian(25, 1.8).astype(np.float32) * rng.uniform(0.8, 1.2, (25, 25)).astype(np.float32)
    angle = np.radians(20)
    jacobian = np.array([[[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]])
    out = np.empty((1, 25, 25), np.float32)
    warp_psf(cell[None], jacobian, sinc_table(order), order, out)
    padded = np.pad(cell.astype(float), 20)
    axis = np.arange(25) - 12
    expected = np.array([
        [sinc_at(padded, *(jacobian[0] @ (u, v) + 32), order) for u in axis] for v in axis
    ])  # fmt: skip
    np.testing.assert_allclose(out[0], expected / expected.sum(), atol=2e-3 * out.max())


def test_flux_and_position_survive_another_pixel_scale() -> None:
    image = np.zeros(TEMPLATE_SHAPE, np.float32)
    add_stars(image, np.array([215.3]), np.array([190.6]), np.array([5000.0]), np.array([1.8]))
    template, wcs = make_template(image, scale_arcsec=0.22), simple_wcs((110.0, 95.0), 20.0)
    warped = warp_template(template, wcs, SHAPE, Workspace()).frame.image.astype(np.float64)
    x, y = wcs.sky_to_pixel(*template.wcs.pixel_to_sky(215.3, 190.6))
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    assert warped.sum() == pytest.approx(5000.0, rel=2e-3)
    assert (warped * xx).sum() / warped.sum() == pytest.approx(float(x), abs=0.01)
    assert (warped * yy).sum() / warped.sum() == pytest.approx(float(y), abs=0.01)


def test_bad_pixels_stay_where_they_are() -> None:
    image = np.full(TEMPLATE_SHAPE, 10.0, np.float32)
    template = make_template(image)
    template.frame.image[200:203, 190:193] = 1e6
    template.frame.mask[200:203, 190:193] = Mask.SAT
    template.frame.image[:, 250:] = np.nan
    template.frame.mask[:, 250:] = Mask.NODATA
    wcs = simple_wcs((110.0, 95.0), 0.0)  # science (x, y) = template - (90, 115), by one pixel off the center
    warped = warp_template(template, wcs, SHAPE, Workspace())
    mask = warped.frame.mask
    saturated = np.argwhere(mask & Mask.SAT_TEMPLATE)
    assert np.all((saturated >= [85 - 2, 100 - 2]) & (saturated <= [87 + 2, 102 + 2]))
    assert (mask[85:88, 100:103] & Mask.SAT_TEMPLATE).all()
    assert not (mask & Mask.SAT).any()
    no_data = (mask & Mask.NODATA) > 0
    assert no_data[:, 162:].all()
    assert not no_data[:, :157].any()
    assert np.isfinite(warped.frame.image).all()
    assert warped.coverage == pytest.approx(1 - no_data.mean())


def test_psf_turns_with_the_field() -> None:
    template = make_template(np.zeros(TEMPLATE_SHAPE, np.float32), ratio=1.3)
    straight = warp_template(template, simple_wcs((110.0, 95.0), 0.0), SHAPE, Workspace()).psf.moments(100, 100)
    turned = warp_template(template, simple_wcs((110.0, 95.0), 90.0), SHAPE, Workspace()).psf.moments(100, 100)
    assert straight[1] / straight[0] == pytest.approx(1.69, rel=0.01)
    assert turned[0] / turned[1] == pytest.approx(1.69, rel=0.01)
    assert abs(turned[2]) < 0.02


def test_mapping_is_bilinear_to_a_tenth_of_a_millipixel() -> None:
    wcs, template_wcs = simple_wcs((2000.0, 2048.0), 37.0), simple_wcs((3000.0, 2900.0))
    grid_x, grid_y = map_grid(wcs, template_wcs, (4096, 4004))
    true_x, true_y = template_wcs.sky_to_pixel(*wcs.pixel_to_sky(64 + 16, 96 + 16))
    assert np.mean([grid_x[3, 2], grid_x[3, 3], grid_x[4, 2], grid_x[4, 3]]) == pytest.approx(float(true_x), abs=1e-4)
    assert np.mean([grid_y[3, 2], grid_y[3, 3], grid_y[4, 2], grid_y[4, 3]]) == pytest.approx(float(true_y), abs=1e-4)


def test_no_overlap_is_no_template() -> None:
    template = make_template(np.zeros(TEMPLATE_SHAPE, np.float32))
    with pytest.raises(UnusableDataError) as caught:
        warp_template(template, simple_wcs((5000.0, 95.0)), SHAPE, Workspace())
    assert caught.value.outcome is Outcome.NO_TEMPLATE


def test_psf_model_sums_to_one() -> None:
    template = make_template(np.zeros(TEMPLATE_SHAPE, np.float32))
    psf = warp_template(template, simple_wcs((110.0, 95.0), 33.0), SHAPE, Workspace()).psf
    assert isinstance(psf, PsfModel)
    assert psf.at(20, 150).sum() == pytest.approx(1.0, abs=1e-5)
