"""Bring the template to the science image's grid."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from core.contracts.exposure import Frame, Template, WarpedTemplate
from core.contracts.psf import PsfModel, n_terms, polynomial_terms
from core.contracts.wcs import Wcs
from core.errors import Outcome, UnusableDataError
from core.flags import MASK_DTYPE
from core.kernels.warp import CELL, block_mask, flag_high_variance, sinc_table, warp_psf, warp_template_pixels
from core.workspace import Workspace, bands

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

MIN_PSF_SPREAD: Final = 0.5
"""Part of the detector's height and width that the cells must span for a PSF that varies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateConfig:
    """How the template is resampled."""

    sinc_order: Literal[3, 4] = 3
    """Half width of the interpolating sinc [pixel]."""
    sinc_window: Literal["kaiser", "lanczos"] = "kaiser"
    """What the sinc fades with. Kaiser's changes a star by half as much from place to place between the pixels."""
    psf_order: int = 2
    min_coverage: float = 0.05
    """Less of the detector than this fraction under template data is as good as no template."""
    high_variance_factor: float = 4.0
    """HIGH_VARIANCE above this multiple of the median variance."""
    max_psf_cells: int = 100


def warp_template(
    template: Template, wcs: Wcs, shape: tuple[int, int], workspace: Workspace, config: TemplateConfig | None = None
) -> WarpedTemplate:
    """Resample the template to the science grid of ``wcs`` and ``shape`` (ny, nx) by a windowed sinc, conserving flux.

    The composed mapping science -> sky -> template is sampled every 32 pixels and bilinear in between (error below
    1e-4 pixel for LSST-like distortion). Uses the workspace arrays ``template.*``; the result lives in them.
    """
    config = config or TemplateConfig()
    grid_x, grid_y = map_grid(wcs, template.wcs, shape)
    out = Frame(
        image=workspace.array("template.image", shape),  # type: ignore[arg-type]
        variance=workspace.array("template.variance", shape),  # type: ignore[arg-type]
        mask=workspace.array("template.mask", shape, MASK_DTYPE),  # type: ignore[arg-type]
    )
    source = template.frame
    blocks = np.empty((-(-source.shape[0] // CELL), -(-source.shape[1] // CELL)), MASK_DTYPE)
    block_mask(source.mask, blocks)
    table = sinc_table(config.sinc_order, config.sinc_window)

    def warp(rows: tuple[int, int]) -> None:
        warp_template_pixels(
            source.image, source.variance, source.mask, blocks, grid_x, grid_y, table, config.sinc_order, *rows,
            out.image, out.variance, out.mask,
        )  # fmt: skip

    workspace.share(warp, bands(grid_x.shape[0] - 1, workspace.n_threads))
    sample = out.variance[::16, ::16]
    sample = sample[np.isfinite(sample)]
    limit = config.high_variance_factor * float(np.median(sample)) if sample.size else np.inf
    coverage = flag_high_variance(out.variance, out.mask, limit) / out.image.size
    if coverage < config.min_coverage:
        raise UnusableDataError(
            "the template does not cover the detector", outcome=Outcome.NO_TEMPLATE, coverage=coverage
        )
    return WarpedTemplate(frame=out, psf=_warp_psf_cells(template, wcs, shape, table, config), coverage=coverage)


def map_grid(wcs: Wcs, template_wcs: Wcs, shape: tuple[int, int]) -> tuple[Float64, Float64]:
    """Template pixel (x, y) of every 32nd science pixel: two arrays (ceil(ny/32) + 1, ceil(nx/32) + 1)."""
    y = np.arange(0, -(-shape[0] // CELL) + 1) * CELL
    x = np.arange(0, -(-shape[1] // CELL) + 1) * CELL
    xx, yy = np.meshgrid(x.astype(np.float64), y.astype(np.float64))
    tx, ty = template_wcs.sky_to_pixel(*wcs.pixel_to_sky(xx, yy))
    # Positions beyond the tangent plane's hemisphere are NaN: far outside any template.
    return np.nan_to_num(tx, nan=-1e6).clip(-1e6, 1e6), np.nan_to_num(ty, nan=-1e6).clip(-1e6, 1e6)


def _warp_psf_cells(
    template: Template, wcs: Wcs, shape: tuple[int, int], table: Float32, config: TemplateConfig
) -> PsfModel:
    """Fit a polynomial over the science grid to the cells' PSFs, each resampled with the local Jacobian."""
    cells = template.psf_cells
    n_cy, n_cx, k = cells.shape[0], cells.shape[1], cells.shape[2]
    cy, cx = np.meshgrid(np.arange(n_cy), np.arange(n_cx), indexing="ij")
    ty = (cy + 0.5) * template.cell_size_pix - 0.5 - template.cell_offset_pix[0]
    tx = (cx + 0.5) * template.cell_size_pix - 0.5 - template.cell_offset_pix[1]
    sx, sy = wcs.sky_to_pixel(*template.wcs.pixel_to_sky(tx, ty))
    margin = template.cell_size_pix / 2
    is_used = (sx > -margin) & (sx < shape[1] + margin) & (sy > -margin) & (sy < shape[0] + margin)
    is_used &= cells.sum(axis=(2, 3)) > 0
    rows = np.flatnonzero(is_used)
    if rows.size == 0:
        raise UnusableDataError("the template has no PSF here", outcome=Outcome.NO_TEMPLATE)
    rows = rows[:: max(1, rows.size // config.max_psf_cells)]
    x, y = sx.ravel()[rows], sy.ravel()[rows]
    jacobian = np.empty((rows.size, 2, 2))
    for axis, (dx, dy) in enumerate(((1.0, 0.0), (0.0, 1.0))):
        ahead = template.wcs.sky_to_pixel(*wcs.pixel_to_sky(x + dx, y + dy))
        behind = template.wcs.sky_to_pixel(*wcs.pixel_to_sky(x - dx, y - dy))
        jacobian[:, 0, axis] = (ahead[0] - behind[0]) / 2
        jacobian[:, 1, axis] = (ahead[1] - behind[1]) / 2
    stamps = np.empty((rows.size, k, k), np.float32)
    warp_psf(np.ascontiguousarray(cells.reshape(-1, k, k)[rows]), jacobian, table, config.sinc_order, stamps)
    # With data on one side only a polynomial runs away on the other: there a constant is safer.
    spread = min(float(np.ptp(x)) / shape[1], float(np.ptp(y)) / shape[0])
    return fit_psf_polynomial(stamps, x, y, shape, config.psf_order if spread > MIN_PSF_SPREAD else 0)


def fit_psf_polynomial(stamps: Float32, x: Float64, y: Float64, shape: tuple[int, int], order: int) -> PsfModel:
    """Least-squares polynomial through (n, k, k) PSF images at n pixels, of lower order where there are few."""
    while order > 0 and stamps.shape[0] < 2 * n_terms(order):
        order -= 1
    terms = polynomial_terms(x, y, shape, order)
    flat = stamps.reshape(stamps.shape[0], -1).astype(np.float64)
    solution = np.linalg.lstsq(terms, flat, rcond=1e-6)[0]
    return PsfModel(coefficients=solution.reshape(-1, *stamps.shape[1:]).astype(np.float32), shape=shape, order=order)
