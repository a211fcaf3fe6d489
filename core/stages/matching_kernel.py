"""The kernel that matches one image to another: choice of stars, Alard-Lupton fit, the kernel as a field."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from core.contracts.catalogs import Catalog
from core.contracts.exposure import Frame
from core.contracts.psf import n_terms, polynomial_terms
from core.errors import Outcome, UnusableDataError
from core.flags import Mask
from core.kernels.kernel_fit import basis_stamp
from core.stages.kernel_field import KernelField
from core.stages.kernel_maps import KernelMapsConfig, map_kernel
from core.workspace import Workspace, bands

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_UNFIT = int(Mask.BAD | Mask.SAT | Mask.EDGE | Mask.NODATA | Mask.STREAK | Mask.SAT_TEMPLATE)
_NO_WEIGHT = _UNFIT | int(Mask.CR | Mask.INTERPOLATED)

_MIN_SIGMA_PIX = 0.7
"""A narrower Gaussian is not sampled by the pixels."""

_WHITE_RATIO = 0.95
"""Of the scatters of differences one and two pixels apart."""

_RIDGES = (1e-6, 1e-5, 1e-4)
"""Added to the diagonal of the normal equations, which is scaled to one; the first that lets them be factored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelConfig:
    """Basis, stars and gates of the kernel fit. Lengths are for a PSF of sigma 1.7 pixel and scale with it."""

    sigmas_pix: tuple[float, ...] = (0.7, 1.5, 3.0, 5.0)
    degrees: tuple[int, ...] = (6, 4, 2, 0)
    half_width_pix: int = 13
    half_stamp_pix: int = 15
    reference_sigma_pix: float = 1.7
    spatial_order: int = 2
    flux_order: int = 2
    """Order in which the kernel's sum may vary over the detector."""
    min_snr: float = 30.0
    max_snr: float = 1000.0
    max_stars: int = 120
    """The brightest of each part of the detector: the noise of faint ones would smear the kernel."""
    max_local_stars: int = 250
    """So many, fainter ones too, show its local changes."""
    min_stars: int = 8
    n_clips: int = 4
    clip_sigma: float = 3.5
    systematic_fraction: float = 0.01
    """Error of the model as a fraction of the flux in a pixel; keeps few bright stars from ruling the fit."""
    noise_removed: float = 0.95
    """Part of what white noise adds to the normal equations that is taken out. Errors in the regressors pull
    coefficients to zero, here those of the finest detail, and every star would keep some percent of its peak (Fuller
    1987, Measurement Error Models, section 1.2); not all of it, or detail that drowns in the noise has no bounds."""
    min_kernel_sum: float = 0.7
    max_kernel_sum: float = 1.4
    min_reciprocal_condition: float = 1e-10
    max_median_chi2: float = 20.0
    local: KernelMapsConfig = field(default_factory=KernelMapsConfig)


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
    basis = _Basis.scaled(sigma_pix, config)
    rows, local_rows = (
        choose_stars(target, reference, stars, basis.half_stamp, basis.half_width, n, config)
        for n in (config.max_stars, config.max_local_stars)
    )
    if rows.size < config.min_stars:
        raise UnusableDataError("too few kernel stars", outcome=Outcome.BAD_SUBTRACTION, n_stars=int(rows.size))
    x, y = stars["x"][rows].astype(np.float64), stars["y"][rows].astype(np.float64)
    equations = _normal_equations(target, reference, x, y, basis, workspace, config)
    noise_removed = config.noise_removed if is_white(reference) else 0.0
    try:
        solution, chi2, is_used, rcond = _clipped_fit(equations, noise_removed, x, y, target.shape, order_limit, config)
    except _SingularError:
        # too few stars for what the noise hides
        noise_removed = 0.0
        solution, chi2, is_used, rcond = _clipped_fit(equations, noise_removed, x, y, target.shape, order_limit, config)
    coefficients = np.tensordot(solution.T, basis.images(), axes=1).astype(np.float32)
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
    good = (frame.mask[8::16] & np.uint16(_NO_WEIGHT)) == 0
    near, far = (float(np.median(np.abs(rows[:, n:] - rows[:, :-n])[good[:, n:] & good[:, :-n]])) for n in (1, 2))
    return near > _WHITE_RATIO * far


def _clipped_fit(
    equations: "_Equations",
    noise_removed: float,
    x: Float64,
    y: Float64,
    shape: tuple[int, int],
    order_limit: int,
    config: KernelConfig,
) -> tuple[Float64, Float64, NDArray[np.bool_], float]:
    """Solution, reduced chi2 of the stars, those used, 1/condition. Raises :class:`_SingularError`."""
    gram = equations.gram - noise_removed * equations.noise[:, None, None] * equations.noise_gram
    is_used = equations.is_usable
    for _ in range(config.n_clips):
        solution, spatial, rcond = _solve(gram, equations.projection, x, y, shape, is_used, order_limit, config)
        chi2 = _chi2(gram, equations, solution, spatial)
        limit = _clip_limit(chi2[is_used], config.clip_sigma)
        keep = is_used & (chi2 <= limit)
        if keep.sum() < max(config.min_stars, is_used.sum() // 2) or keep.sum() == is_used.sum():
            break
        is_used = keep
    return solution, chi2, is_used, rcond


def choose_stars(
    target: Frame,
    reference: Frame,
    stars: Catalog,
    half_stamp: int,
    half_width: int,
    max_stars: int,
    config: KernelConfig,
) -> Int64:
    """Rows of the stars to fit: clean in both images, SNR in range, the brightest of each cell of a grid."""
    ny, nx = target.shape
    border = half_stamp + half_width + 1
    x, y = np.rint(stars["x"]).astype(np.int64), np.rint(stars["y"]).astype(np.int64)
    is_good = (stars["snr"] >= config.min_snr) & (stars["snr"] <= config.max_snr) & ((stars["mask"] & _UNFIT) == 0)
    is_good &= (x >= border) & (y >= border) & (x < nx - border) & (y < ny - border)
    rows = np.flatnonzero(is_good)
    rows = rows[np.argsort(-stars["snr"][rows], kind="stable")]
    n_side = max(2, round(np.sqrt(max_stars / 2.5)))
    per_cell = max(1, -(-max_stars // n_side**2))
    count = np.zeros((n_side, n_side), np.int64)
    taken = np.zeros((-(-ny // half_stamp), -(-nx // half_stamp)), np.bool_)
    chosen = []
    reach = half_width // 2
    for row in rows:
        cell = (y[row] * n_side // ny, x[row] * n_side // nx)
        here = (slice(max(0, y[row] // half_stamp - 1), y[row] // half_stamp + 2),
                slice(max(0, x[row] // half_stamp - 1), x[row] // half_stamp + 2))  # fmt: skip
        if count[cell] >= per_cell or taken[here].any():
            continue
        stamp = (
            slice(y[row] - half_stamp, y[row] + half_stamp + 1),
            slice(x[row] - half_stamp, x[row] + half_stamp + 1),
        )
        wide = (slice(y[row] - half_stamp - reach, y[row] + half_stamp + reach + 1),
                slice(x[row] - half_stamp - reach, x[row] + half_stamp + reach + 1))  # fmt: skip
        if (target.mask[stamp] & _UNFIT).any() or (reference.mask[wide] & _UNFIT).any():
            continue
        count[cell] += 1
        taken[y[row] // half_stamp, x[row] // half_stamp] = True
        chosen.append(row)
    return np.array(chosen, np.int64)


class _SingularError(UnusableDataError):
    """The normal equations have no solution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Equations:
    """Of n stars: (n, b, b) Gram matrices of the convolved stamps, (n, b) products with the target, its power, pixels.

    White noise of the reference adds ``noise`` (n,) times ``noise_gram`` (b, b) to the Gram matrices.
    """

    gram: Float64
    projection: Float64
    power: Float64
    n_pixels: Int64
    noise: Float64
    noise_gram: Float64
    is_usable: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Basis:
    """Gaussians times polynomials, as one-dimensional factors; all but the first are made to sum to zero."""

    profiles: Float32
    degrees: NDArray[np.int32]
    half_widths: NDArray[np.int32]
    half_stamp: int

    @classmethod
    def scaled(cls, sigma_pix: float, config: KernelConfig) -> "_Basis":
        scale = float(np.clip(sigma_pix / config.reference_sigma_pix, 0.85, 1.6))
        half_width = round(config.half_width_pix * scale)
        axis = np.arange(-half_width, half_width + 1, dtype=np.float64)
        profiles = np.zeros((len(config.degrees), max(config.degrees) + 1, axis.size), np.float32)
        for g, (sigma, degree) in enumerate(zip(config.sigmas_pix, config.degrees, strict=True)):
            t = axis / max(sigma * scale, _MIN_SIGMA_PIX)
            gaussian = np.exp(-0.5 * t**2)
            for p in range(degree + 1):
                profile = gaussian * np.polynomial.hermite_e.hermeval(t, [0] * p + [1])
                # Unit sum makes the first the flux scale; unit norm keeps the rest comparable.
                profiles[g, p] = profile / (profile.sum() if p == 0 else np.sqrt(np.square(profile).sum()))
        reach = [min(half_width, int(np.ceil((4.2 + 0.2 * d) * s * scale)))
                 for s, d in zip(config.sigmas_pix, config.degrees, strict=True)]  # fmt: skip
        for g, r in enumerate(reach):
            profiles[g, :, : half_width - r] = profiles[g, :, half_width + r + 1 :] = 0
        return cls(profiles, np.array(config.degrees, np.int32), np.array(reach, np.int32),
                   round(config.half_stamp_pix * scale))  # fmt: skip

    @property
    def half_width(self) -> int:
        return int(self.profiles.shape[2] // 2)

    @property
    def n_basis(self) -> int:
        return int(sum(n_terms(int(d)) for d in self.degrees))

    def images_raw(self) -> Float64:
        """(n_basis, k, k) as :func:`basis_stamp` orders them; mirrored, as that correlates and a kernel convolves."""
        wide = self.profiles[:, :, ::-1].astype(np.float64)
        return np.array([
            np.outer(wide[g, q], wide[g, p])
            for g, degree in enumerate(self.degrees) for p in range(degree + 1) for q in range(degree + 1 - p)
        ])  # fmt: skip

    def zero_sum(self) -> Float64:
        """(n_basis, n_basis) change of basis after which only the first function has a sum."""
        sums = self.images_raw().sum(axis=(1, 2))
        change = np.eye(self.n_basis)
        change[0, 0] = 1 / sums[0]
        change[1:, 0] = -sums[1:] / sums[0]
        return change

    def images(self) -> Float64:
        """(n_basis, k, k) basis after :meth:`zero_sum`."""
        return np.asarray(np.tensordot(self.zero_sum(), self.images_raw(), axes=1))


def _normal_equations(
    target: Frame,
    reference: Frame,
    x: Float64,
    y: Float64,
    basis: _Basis,
    workspace: Workspace,
    config: KernelConfig,
) -> _Equations:
    """Each pixel counts by its variance; a constant of each stamp is projected out: the local background is free."""
    n, n_basis, s = x.size, basis.n_basis, 2 * basis.half_stamp + 1
    gram, projection = np.empty((n, n_basis, n_basis)), np.empty((n, n_basis))
    power, n_pixels, noise = np.empty(n), np.empty(n, np.int64), np.empty(n)

    def fill(stars: tuple[int, int]) -> None:
        scratch = np.empty(3 * (s + 2 * basis.half_width) ** 2, np.float32)
        stamps = np.empty((n_basis, s, s), np.float32)
        for star in range(*stars):
            one(star, scratch, stamps)

    def one(star: int, scratch: Float32, stamps: Float32) -> None:
        cy, cx = round(y[star]), round(x[star])
        basis_stamp(reference.image, cy, cx, basis.half_stamp, basis.profiles, basis.degrees, basis.half_widths,
                    scratch, stamps)  # fmt: skip
        here = (slice(cy - basis.half_stamp, cy + basis.half_stamp + 1),
                slice(cx - basis.half_stamp, cx + basis.half_stamp + 1))  # fmt: skip
        image = target.image[here].ravel().astype(np.float64)
        variance = target.variance[here].ravel() + reference.variance[here].ravel()
        variance = variance + np.square(config.systematic_fraction * stamps[0].ravel())
        is_good = (target.mask[here].ravel() & _NO_WEIGHT) == 0
        root = np.where(is_good & np.isfinite(variance), 1 / np.sqrt(np.where(variance > 0, variance, np.inf)), 0.0)
        unit = root / max(float(np.sqrt((root**2).sum())), 1e-300)
        weighted = stamps.reshape(n_basis, -1) * root
        weighted -= np.outer(weighted @ unit, unit)
        data = image * root
        data -= (data @ unit) * unit
        gram[star], projection[star] = weighted @ weighted.T, weighted @ data
        noise[star] = (root**2) @ reference.variance[here].ravel()
        power[star], n_pixels[star] = data @ data, np.count_nonzero(root)

    workspace.share(fill, bands(n, workspace.n_threads))
    change, images = basis.zero_sum(), basis.images().reshape(n_basis, -1)
    return _Equations(
        gram=change @ gram @ change.T,
        projection=projection @ change.T,
        power=power,
        n_pixels=n_pixels,
        noise=noise,
        noise_gram=images @ images.T,
        is_usable=n_pixels > s**2 // 2,
    )


def _spatial_order(n_stars: int, config: KernelConfig) -> int:
    """Order the number of stars can carry."""
    order = config.spatial_order
    while order > 0 and n_stars < 8 * n_terms(order):
        order -= 1
    return order


def _solve(
    gram: Float64,
    projection: Float64,
    x: Float64,
    y: Float64,
    shape: tuple[int, int],
    is_used: NDArray[np.bool_],
    flux_order: int,
    config: KernelConfig,
) -> tuple[Float64, Float64, float]:
    """Solve the joint normal equations: (n_basis, n_terms) coefficients, spatial terms per star, 1/condition."""
    order = _spatial_order(int(is_used.sum()), config)
    spatial = polynomial_terms(x, y, shape, order)
    n_basis, n_spatial = gram.shape[1], spatial.shape[1]
    used = spatial[is_used]
    outer = (used[:, :, None] * used[:, None, :]).reshape(used.shape[0], -1)
    joint = (gram[is_used].reshape(used.shape[0], -1).T @ outer).reshape(n_basis, n_basis, n_spatial, n_spatial)
    matrix = joint.transpose(0, 2, 1, 3).reshape(n_basis * n_spatial, -1)
    vector = (projection[is_used].T @ used).ravel()
    n_flux = n_terms(min(order, flux_order, config.flux_order))
    free = np.ones(n_basis * n_spatial, np.bool_)
    free[n_flux:n_spatial] = False
    matrix, vector = matrix[np.ix_(free, free)], vector[free]
    scale = 1 / np.sqrt(np.maximum(np.diag(matrix), 1e-300))
    # Gaussians of unlike width nearly coincide after the PSF: below the stamps' float32 noise only a ridge decides.
    matrix = matrix * np.outer(scale, scale)
    for ridge in _RIDGES:
        regular = matrix + ridge * np.eye(scale.size)
        factor, info = lapack.dpotrf(regular, lower=1)
        if info == 0:
            break
    else:
        raise _SingularError("the kernel fit is singular", outcome=Outcome.BAD_SUBTRACTION)
    rcond, _ = lapack.dpocon(factor, float(np.abs(regular).sum(axis=0).max()), uplo="L")
    answer, _ = lapack.dpotrs(factor, vector * scale, lower=1)
    solution = np.zeros(n_basis * n_spatial)
    solution[free] = answer.ravel() * scale
    return solution.reshape(n_basis, n_spatial), spatial, float(rcond)


def _chi2(gram: Float64, equations: _Equations, solution: Float64, spatial: Float64) -> Float64:
    local = spatial @ solution.T
    quadratic = np.einsum("si,sij,sj->s", local, gram, local, optimize=True)
    total = equations.power - 2 * (local * equations.projection).sum(axis=1) + quadratic
    return np.asarray(total / np.maximum(equations.n_pixels - 1, 1))


def _clip_limit(chi2: Float64, clip_sigma: float) -> float:
    """Robust upper limit: variables, blends with bright neighbours and unmasked defects lie above."""
    median = float(np.median(chi2))
    return median + clip_sigma * max(1.4826 * float(np.median(np.abs(chi2 - median))), 0.05)


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
    if fit.reciprocal_condition < config.min_reciprocal_condition:
        raise UnusableDataError("kernel fit is ill-conditioned", outcome=Outcome.BAD_SUBTRACTION, **figures)
    if not chi2 <= config.max_median_chi2:
        raise UnusableDataError("kernel stars do not subtract", outcome=Outcome.BAD_SUBTRACTION, **figures)
