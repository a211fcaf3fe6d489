"""Science minus matched template."""

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label, maximum_filter

from core.contracts.catalogs import Catalog
from core.contracts.exposure import DifferenceImage, Exposure, Frame, WarpedTemplate
from core.contracts.psf import PsfModel
from core.errors import Outcome, UnusableDataError
from core.flags import MASK_DTYPE, Mask
from core.kernels.difference import (
    BLOCK,
    close_frame,
    combine_masks,
    combine_variance,
    grow_saturated,
    mark_blocks,
    mark_bright,
    sampled_snr,
    scale_plane,
    smooth_variance,
)
from core.stages.convolve import subtract_convolved
from core.stages.decorrelate import WhiteningConfig, difference_psf, grid_positions, noise_figures, whitening_kernel
from core.stages.difference_background import DifferenceBackgroundConfig, subtract_difference_background
from core.stages.halos import HaloConfig, subtract_halos
from core.stages.kernel_config import KernelConfig
from core.stages.kernel_field import KernelField
from core.stages.matching_kernel import fit_kernel
from core.workspace import Workspace, bands

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubtractConfig:
    """How the difference is made."""

    convolve: Literal["auto", "template", "science"] = "auto"
    """``template``, ``science``, or ``auto``: the image with the sharper PSF."""
    sharper_margin: float = 1.03
    """The template may be broader than the science image by this factor and still be the one convolved: no kernel
    sharpens an image without error."""
    kernel: KernelConfig = field(default_factory=KernelConfig)
    whitening: WhiteningConfig = field(default_factory=WhiteningConfig)
    halos: HaloConfig = field(default_factory=HaloConfig)
    background: DifferenceBackgroundConfig = field(default_factory=DifferenceBackgroundConfig)
    systematic_fraction: float = 0.005
    """This fraction of the template's flux, squared, is added to the variance: no kernel is better than that."""
    halo_fraction: float = 0.2
    """The same in the halos of saturated stars, which no kernel matches, within ``halo_pix`` of saturated pixels; where
    it exceeds the noise the pixel is SAT."""
    halo_pix: int = 64
    saturation_margin_pix: int = 2
    """So near to saturated pixels a source loses too much of its PSF for a promise."""
    offset_pix: float = 0.015
    """Error of the positions that the kernel cannot follow (turbulence): this times the template's gradient, squared,
    is added to the variance (Zackay, Ofek & Gal-Yam 2016, section 3.3)."""
    mask_leak: float = 0.12
    """Bits of the convolved image spread to where less than this fraction of the kernel reaches farther."""
    min_sky_width: float = 0.5
    max_sky_width: float = 2.0
    """Gates on the width of the sky's S/N before scaling."""


def subtract(
    exposure: Exposure,
    template: WarpedTemplate,
    stars: Catalog,
    workspace: Workspace,
    config: SubtractConfig | None = None,
) -> DifferenceImage:
    """Match the template to the exposure, subtract, remove what background is left, and calibrate the variance.

    The difference is on the exposure's flux scale [nJy]. Raises :class:`UnusableDataError` (``bad_subtraction``)
    where the kernel or the difference fails its gates. The result lives in the workspace arrays ``difference.*``.

    Parameters
    ----------
    stars : SOURCE rows of the exposure; those fit for the kernel are chosen from them.
    """
    config = config or SubtractConfig()
    difference = subtract_frames(exposure.frame, exposure.psf, template.frame, template.psf, stars, workspace, config)
    return replace(difference, photon_noise_njy=difference.photon_noise_njy * exposure.photo_calib.njy_per_electron)


def subtract_frames(
    science: Frame,
    science_psf: PsfModel,
    template: Frame,
    template_psf: PsfModel,
    stars: Catalog,
    workspace: Workspace,
    config: SubtractConfig,
) -> DifferenceImage:
    """:func:`subtract` for any two frames on one grid."""
    science_fwhm, template_fwhm = science_psf.fwhm_pix(), template_psf.fwhm_pix()
    is_science_convolved = config.convolve == "science" or (
        config.convolve == "auto" and template_fwhm > config.sharper_margin * science_fwhm
    )
    plain, convolved = (template, science) if is_science_convolved else (science, template)
    sigma = max(science_fwhm, template_fwhm) / 2.3548
    kernel_config = config.kernel
    fit = fit_kernel(plain, convolved, stars, sigma, 0 if is_science_convolved else 99, workspace, kernel_config)
    kernel = fit.kernel
    kernel_sum = kernel.sum_center()
    whitening, factor = _noise_model(
        kernel, plain, convolved, template_psf if is_science_convolved else science_psf, config
    )
    shape = science.shape
    out = Frame(
        image=workspace.array("difference.image", shape),  # type: ignore[arg-type]
        variance=workspace.array("difference.variance", shape),  # type: ignore[arg-type]
        mask=workspace.array("difference.mask", shape, MASK_DTYPE),  # type: ignore[arg-type]
    )
    sign = -1 if is_science_convolved else 1
    subtract_convolved(plain.image, convolved.image, kernel, whitening, sign, out.image, workspace)
    # Science * K = s * science - ...: dividing by the sum restores the science image's flux scale.
    scale = 1 / kernel_sum if is_science_convolved else 1.0
    reach = kernel_reach(kernel, config.mask_leak)
    combine_masks(plain.mask, convolved.mask, reach, out.mask)
    taps = variance_taps(kernel)
    smoothed: Float32 = workspace.array("difference.smoothed_variance", shape)  # type: ignore[assignment]

    def smooth_rows(rows: tuple[int, int]) -> None:
        some, row = slice(*rows), np.empty(shape[1] + 2 * (taps.size - 1), np.float32)
        smooth_variance(convolved.variance[some], convolved.mask[some], taps, row, smoothed[some])

    fractions = _fractions(science, template, config)

    def finish_rows(rows: tuple[int, int]) -> None:
        combine_variance(
            plain.image, plain.variance, smoothed, taps, factor * kernel_sum**2, fractions, config.offset_pix,
            not is_science_convolved, scale, config.halo_fraction, *rows, np.empty((3, shape[1] + 2), np.float32),
            out.image, out.variance, out.mask,
        )  # fmt: skip

    def close_rows(rows: tuple[int, int]) -> None:
        close_frame(out.image, out.variance, out.mask, reach, *rows)

    for step in (smooth_rows, finish_rows, close_rows):
        workspace.share(step, bands(shape[0], workspace.n_threads))
    psf = difference_psf(science_psf, kernel if is_science_convolved else None, whitening)
    subtract_halos(out, stars, psf.noise_area_pix((shape[1] - 1) / 2, (shape[0] - 1) / 2), config.halos)
    subtract_difference_background(out, workspace, config.background, stars, max(science_fwhm, template_fwhm))
    width = sky_width(out, psf)
    if not config.min_sky_width <= width <= config.max_sky_width:
        raise UnusableDataError("the difference is not noise", outcome=Outcome.BAD_SUBTRACTION, sky_width=width)
    scale_plane(out.variance, width**2)
    return DifferenceImage(
        frame=out,
        psf=psf,
        kernel_sum=1 / kernel_sum if is_science_convolved else kernel_sum,
        is_science_convolved=is_science_convolved,
        variance_scale=width**2,
        # light of a convolved science image is shared among pixels, and so is its noise
        photon_noise_njy=width**2 * (factor if is_science_convolved else 1.0),
    )


def limit_claims(difference: DifferenceImage, config: SubtractConfig) -> None:
    """Widen SAT by its margin, in place, once everything is measured: what is promised ends there, not what is used."""
    grow_saturated(difference.frame.mask, config.saturation_margin_pix)


def _noise_model(
    kernel: KernelField, plain: Frame, convolved: Frame, psf: PsfModel, config: SubtractConfig
) -> tuple[KernelField | None, float]:
    """Whitening kernel, where it pays, and the factor of the convolved side's variance."""
    v_plain, v_convolved = (_sky_variance(f, config.whitening.n_side) for f in (plain, convolved))
    factor, gain = noise_figures(kernel, psf, float(np.median(v_plain)), float(np.median(v_convolved)))
    if not config.whitening.is_wanted(gain):
        return None, factor
    return whitening_kernel(kernel, v_plain, v_convolved, config.whitening), 1.0


def _fractions(science: Frame, template: Frame, config: SubtractConfig) -> Float32:
    """Error of the matched template as a fraction of its flux, by blocks: larger in the halos of saturated stars.

    A halo is what is too bright for the larger error and hangs together with saturated pixels: other stars and
    galaxies nearby are matched as well as anywhere.
    """
    ny, nx = science.shape
    saturated = np.zeros((-(-ny // BLOCK), -(-nx // BLOCK)), np.bool_)
    mark_blocks(science.mask, template.mask, int(Mask.SAT | Mask.SAT_TEMPLATE), saturated)
    near = maximum_filter(saturated, 2 * round(config.halo_pix / BLOCK) + 1)
    bright = saturated.copy()
    mark_bright(template.image, science.variance, template.variance, config.halo_fraction, near, bright)
    labels, n_labels = label(bright, np.ones((3, 3)))
    is_halo = np.zeros(n_labels + 1, np.bool_)
    is_halo[labels[saturated]] = True
    # a block more: the error fades with the flux
    halo = maximum_filter(is_halo[labels], 3)
    return np.where(halo, np.float32(config.halo_fraction), np.float32(config.systematic_fraction))


def _sky_variance(frame: Frame, n_side: int) -> Float64:
    """(n_side, n_side) median variance over equal cells, from a sparse sample of pixels with data."""
    ny, nx = frame.shape
    result = np.full((n_side, n_side), np.nan)
    for j in range(n_side):
        for i in range(n_side):
            cell = (
                slice(j * ny // n_side, (j + 1) * ny // n_side, 8),
                slice(i * nx // n_side, (i + 1) * nx // n_side, 8),
            )
            good = frame.variance[cell][(frame.mask[cell] == 0) & np.isfinite(frame.variance[cell])]
            if good.size:
                result[j, i] = np.median(good)
    if np.isnan(result).all():
        raise UnusableDataError("no sky to measure noise on", outcome=Outcome.BAD_SUBTRACTION)
    return np.where(np.isnan(result), np.nanmedian(result), result)


def variance_taps(kernel: KernelField) -> NDArray[np.float32]:
    """One side (center first) of a Gaussian with the squared kernel's second moment: what smooths the variance."""
    local = kernel.at((kernel.shape[1] - 1) / 2, (kernel.shape[0] - 1) / 2).astype(np.float64) ** 2
    axis = np.arange(local.shape[0]) - local.shape[0] // 2
    weight = local.sum()
    moment = (local.sum(axis=0) @ axis**2 + local.sum(axis=1) @ axis**2) / (2 * weight)
    sigma = np.sqrt(max(moment, 0.1))
    h = int(np.clip(np.ceil(2.5 * sigma), 1, 6))
    taps = np.exp(-0.5 * (np.arange(h + 1) / sigma) ** 2)
    return np.asarray(taps / (taps[0] + 2 * taps[1:].sum()), np.float32)


def kernel_reach(kernel: KernelField, leak: float) -> int:
    """Radius beyond which less than ``leak`` of the kernel's absolute sum lies [pixel]."""
    local = np.abs(kernel.at((kernel.shape[1] - 1) / 2, (kernel.shape[0] - 1) / 2).astype(np.float64))
    axis = np.arange(local.shape[0]) - local.shape[0] // 2
    radius = np.hypot(axis[:, None], axis[None, :])
    total = local.sum()
    for r in range(1, kernel.half_width):
        if local[radius > r].sum() < leak * total:
            return r
    return kernel.half_width


def sky_width(difference: Frame, psf: PsfModel, n_samples: int = 8000, limit_sigma: float = 4.0) -> float:
    """1.4826 MAD of the matched-filter S/N at lattice positions whose stamps are clean; 1 where there are too few.

    Clean: no marked pixel and none beyond ``limit_sigma`` within 1.5 FWHM. The PSF is taken on a grid of 5 x 5.
    """
    ny, nx = difference.shape
    spacing = max(3, round(np.sqrt(ny * nx / n_samples)))
    axes = (np.arange(spacing, n - spacing, spacing, dtype=np.int64) for n in (ny, nx))
    y, x = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
    n_side = 5
    stamps = psf.at_many(*grid_positions((ny, nx), n_side))
    half, middle = min(psf.size // 2, int(np.ceil(1.5 * psf.fwhm_pix()))), psf.size // 2
    stamps = np.ascontiguousarray(stamps[:, middle - half : middle + half + 1, middle - half : middle + half + 1])
    which = y * n_side // ny * n_side + x * n_side // nx
    snr = np.empty(y.size)
    sampled_snr(difference.image, difference.variance, difference.mask, stamps, which, y, x, limit_sigma, snr)
    snr = snr[np.isfinite(snr)]
    if snr.size < 50:
        return 1.0
    return float(1.4826 * np.median(np.abs(snr - np.median(snr))))
