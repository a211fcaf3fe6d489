"""The kernel that matches one image to another: Alard-Lupton fit to stars, the kernel as a field."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.contracts.catalogs import Catalog
from core.contracts.exposure import Frame
from core.errors import Outcome, UnusableDataError
from core.stages.kernel_basis import KernelBasis
from core.stages.kernel_config import KernelConfig
from core.stages.kernel_equations import SingularError, clipped_fit, normal_equations
from core.stages.kernel_field import NO_WEIGHT, KernelField
from core.stages.kernel_maps import map_kernel
from core.stages.kernel_stars import choose_stars
from core.workspace import Workspace

Float64 = NDArray[np.float64]

_WHITE_RATIO = 0.95
"""Of the scatters of differences one and two pixels apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFit:
    """Result of the fit: the kernel, its stars and how well they subtract."""

    kernel: KernelField
    x: Float64
    y: Float64
    chi2: Float64
    """Reduced chi2 of each star's stamp."""
    is_used: NDArray[np.bool_]
    reciprocal_condition: float


def fit_kernel(
    target: Frame,
    reference: Frame,
    stars: Catalog,
    sigma_pix: float,
    order_limit: int,
    workspace: Workspace,
    config: KernelConfig,
) -> KernelFit:
    """Fit the kernel K for which ``K * reference`` matches ``target`` at the stars.

    Parameters
    ----------
    target, reference : frames on one grid, background subtracted.
    stars : SOURCE rows; galaxies are as good as stars, both images see the same.
    sigma_pix : Gaussian sigma of the broader PSF; the basis scales with it.
    order_limit : highest order in which the kernel's sum may vary (0 keeps one flux scale).
    """
    basis = KernelBasis.scaled(sigma_pix, config)
    rows, local_rows = (
        choose_stars(target, reference, stars, basis.half_stamp, basis.half_width, n, config)
        for n in (config.max_stars, config.max_local_stars)
    )
    if rows.size < config.min_stars:
        raise UnusableDataError("too few kernel stars", outcome=Outcome.BAD_SUBTRACTION, n_stars=int(rows.size))
    x, y = stars["x"][rows].astype(np.float64), stars["y"][rows].astype(np.float64)
    equations = normal_equations(target, reference, x, y, basis, workspace, config)
    noise_removed = config.noise_removed if is_white(reference) else 0.0
    try:
        solution, chi2, is_used, rcond = clipped_fit(equations, noise_removed, x, y, target.shape, order_limit, config)
    except SingularError:
        # too few stars for what the noise hides
        noise_removed = 0.0
        solution, chi2, is_used, rcond = clipped_fit(equations, noise_removed, x, y, target.shape, order_limit, config)
    coefficients = np.tensordot(solution[:-1].T, basis.images(), axes=1).astype(np.float32)
    order = round((np.sqrt(8 * solution.shape[1] + 1) - 3) / 2)
    kernel = KernelField(coefficients=np.ascontiguousarray(coefficients), shape=target.shape, order=order)
    fit = KernelFit(kernel=kernel, x=x, y=y, chi2=chi2, is_used=is_used, reciprocal_condition=rcond)
    _check(fit, config)
    x, y = stars["x"][local_rows].astype(np.float64), stars["y"][local_rows].astype(np.float64)
    local = map_kernel(kernel, target, reference, x, y, basis.half_stamp, noise_removed, config.local)
    return replace(fit, kernel=local)


def is_white(frame: Frame) -> bool:
    """Whether the noise is not correlated between pixels: the frame was never resampled.

    Then neighbours differ as much as the pixels next but one, which resampling leaves more alike. From every
    sixteenth row.
    """
    rows = frame.image[8::16]
    good = (frame.mask[8::16] & np.uint16(NO_WEIGHT)) == 0
    near, far = (float(np.median(np.abs(rows[:, n:] - rows[:, :-n])[good[:, n:] & good[:, :-n]])) for n in (1, 2))
    return near > _WHITE_RATIO * far


def _check(fit: KernelFit, config: KernelConfig) -> None:
    """Gates on what may be subtracted at all."""
    total, chi2 = fit.kernel.sum_center(), float(np.median(fit.chi2[fit.is_used]))
    figures: dict[str, Any] = {
        "kernel_sum": total,
        "median_chi2": chi2,
        "reciprocal_condition": fit.reciprocal_condition,
    }
    if not config.min_kernel_sum <= total <= config.max_kernel_sum:
        raise UnusableDataError("kernel sum out of range", outcome=Outcome.BAD_SUBTRACTION, **figures)
    if not chi2 <= config.max_median_chi2:
        raise UnusableDataError("kernel stars do not subtract", outcome=Outcome.BAD_SUBTRACTION, **figures)
