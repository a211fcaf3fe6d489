"""Normal equations of the matching kernel, from the stars' stamps, and their solution."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from core.contracts.exposure import Frame
from core.contracts.psf import n_terms, polynomial_terms
from core.errors import Outcome, UnusableDataError
from core.kernels.kernel_fit import basis_stamp
from core.stages.kernel_basis import KernelBasis
from core.stages.kernel_config import KernelConfig
from core.stages.kernel_field import NO_WEIGHT
from core.workspace import Workspace, bands

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_RIDGES = (1e-6, 1e-5, 1e-4)
"""Added to the diagonal of the normal equations, which is scaled to one; the first that lets them be solved."""


class SingularError(UnusableDataError):
    """The normal equations have no solution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Equations:
    """Of n stars: (n, b, b) Gram matrices of the convolved stamps, (n, b) products with the target, its power, pixels.

    The last of the b columns is a constant, the sky's difference. White noise of the reference adds ``noise`` (n,)
    times ``noise_gram`` (b, b) to the Gram matrices.
    """

    gram: Float64
    projection: Float64
    power: Float64
    n_pixels: Int64
    noise: Float64
    noise_gram: Float64
    is_usable: NDArray[np.bool_]


def normal_equations(
    target: Frame,
    reference: Frame,
    x: Float64,
    y: Float64,
    basis: KernelBasis,
    workspace: Workspace,
    config: KernelConfig,
) -> Equations:
    """Each pixel counts by its variance.

    The sky's difference is one for all stars, and :func:`clipped_fit` lets it vary over the detector. A constant of
    each stamp's own would take what the kernel owes the PSF's wings: they are flat across a stamp's rim.
    """
    n, n_basis, s = x.size, basis.n_basis, 2 * basis.half_stamp + 1
    gram, projection = np.empty((n, n_basis + 1, n_basis + 1)), np.empty((n, n_basis + 1))
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
        is_good = (target.mask[here].ravel() & NO_WEIGHT) == 0
        root = np.where(is_good & np.isfinite(variance), 1 / np.sqrt(np.where(variance > 0, variance, np.inf)), 0.0)
        data = image * root
        # The constant is split off exactly: wide Gaussians are nearly one, and single precision would not tell.
        norm = max(float(np.sqrt((root**2).sum(dtype=np.float64))), 1e-300)
        unit = root / norm
        weighted = stamps.reshape(n_basis, -1) * root
        along = np.append(weighted @ unit.astype(np.float64), norm)
        weighted -= np.outer(along[:-1].astype(np.float32), unit)
        sky = float(data @ unit)
        gram[star], projection[star] = np.outer(along, along), along * sky
        gram[star, :-1, :-1] += weighted @ weighted.T
        projection[star, :-1] += weighted @ (data - sky * unit)
        noise[star] = (root**2) @ reference.variance[here].ravel()
        power[star], n_pixels[star] = data @ data, np.count_nonzero(root)

    workspace.share(fill, bands(n, workspace.n_threads))
    change, images = np.eye(n_basis + 1), np.zeros((n_basis + 1, (2 * basis.half_width + 1) ** 2))
    change[:-1, :-1], images[:-1] = basis.zero_sum(), basis.images().reshape(n_basis, -1)
    return Equations(
        gram=change @ gram @ change.T,
        projection=projection @ change.T,
        power=power,
        n_pixels=n_pixels,
        noise=noise,
        noise_gram=images @ images.T,
        is_usable=n_pixels > s**2 // 2,
    )


def clipped_fit(
    equations: Equations,
    noise_removed: float,
    x: Float64,
    y: Float64,
    shape: tuple[int, int],
    order_limit: int,
    config: KernelConfig,
) -> tuple[Float64, Float64, NDArray[np.bool_], float]:
    """Solution (its last row the sky's difference), reduced chi2 of the stars, those used, 1/condition.

    Raises :class:`SingularError`.
    """
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
    """Solve the joint normal equations: (n_basis + 1, n_terms) coefficients, spatial terms per star, 1/condition."""
    order = _spatial_order(int(is_used.sum()), config)
    spatial = polynomial_terms(x, y, shape, order)
    n_basis, n_spatial = gram.shape[1], spatial.shape[1]
    used = spatial[is_used]
    outer = (used[:, :, None] * used[:, None, :]).reshape(used.shape[0], -1)
    joint = (gram[is_used].reshape(used.shape[0], -1).T @ outer).reshape(n_basis, n_basis, n_spatial, n_spatial)
    matrix = joint.transpose(0, 2, 1, 3).reshape(n_basis * n_spatial, -1)
    vector = (projection[is_used].T @ used).ravel()
    may_vary = np.full(n_basis, n_spatial)
    may_vary[0] = n_terms(min(order, flux_order, config.flux_order))
    may_vary[-1 - n_terms(config.degrees[-1]) : -1] = n_terms(min(order, config.wing_order))
    may_vary[-1] = n_terms(min(order, config.sky_order))
    free = (np.arange(n_spatial) < may_vary[:, None]).ravel()
    matrix, vector = matrix[np.ix_(free, free)], vector[free]
    scale = 1 / np.sqrt(np.maximum(np.diag(matrix), 1e-300))
    # Gaussians of unlike width nearly coincide after the PSF: below the stamps' float32 noise only a ridge decides.
    matrix = matrix * np.outer(scale, scale)
    for ridge in _RIDGES:
        regular = matrix + ridge * np.eye(scale.size)
        factor, info = lapack.dpotrf(regular, lower=1)
        if info != 0:
            continue
        rcond, _ = lapack.dpocon(factor, float(np.abs(regular).sum(axis=0).max()), uplo="L")
        if rcond >= config.min_reciprocal_condition:
            break
    else:
        raise SingularError("the kernel fit is singular", outcome=Outcome.BAD_SUBTRACTION)
    answer, _ = lapack.dpotrs(factor, vector * scale, lower=1)
    solution = np.zeros(n_basis * n_spatial)
    solution[free] = answer.ravel() * scale
    return solution.reshape(n_basis, n_spatial), spatial, float(rcond)


def _chi2(gram: Float64, equations: Equations, solution: Float64, spatial: Float64) -> Float64:
    local = spatial @ solution.T
    quadratic = np.einsum("si,sij,sj->s", local, gram, local, optimize=True)
    total = equations.power - 2 * (local * equations.projection).sum(axis=1) + quadratic
    return np.asarray(total / np.maximum(equations.n_pixels, 1))


def _clip_limit(chi2: Float64, clip_sigma: float) -> float:
    """Robust upper limit: variables, blends with bright neighbours and unmasked defects lie above."""
    median = float(np.median(chi2))
    return median + clip_sigma * max(1.4826 * float(np.median(np.abs(chi2 - median))), 0.05)
