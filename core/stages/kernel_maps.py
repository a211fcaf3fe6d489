"""What the matching kernel's polynomial leaves: local shifts (turbulence) and changes of width and ellipticity."""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from core.contracts.exposure import Frame
from core.stages.kernel_field import NO_WEIGHT, KernelField
from core.stages.local_maps import LocalMapsConfig, fit_maps

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_REACH: Final = 2
"""Half width of the stencils."""
_BLOCK: Final = 64
"""Stars measured at once: their columns stay in the cache, and small."""


def _stencils() -> Float64:
    """(5, 5, 5): derivatives by x and y (five points), Laplacian, and the second derivatives xx - yy and 2 xy."""
    first = np.array([-1.0, 8.0, 0.0, -8.0, 1.0]) / 12
    second = np.array([0.0, 1.0, -2.0, 1.0, 0.0])
    one = np.array([0.0, 0.0, 1.0, 0.0, 0.0])
    central = np.array([0.0, 0.5, 0.0, -0.5, 0.0])
    by_xx, by_yy = np.outer(one, second), np.outer(second, one)
    return np.stack(
        [np.outer(one, first), np.outer(first, one), by_xx + by_yy, by_xx - by_yy, 2 * np.outer(central, central)]
    )


STENCILS: Final = _stencils()


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelMapsConfig:
    """How the local part is measured."""

    is_mapped: bool = True
    model_error: float = 0.01
    """Error of a matched star as a fraction of its flux in a pixel."""
    maps: LocalMapsConfig = field(default_factory=LocalMapsConfig)


def map_kernel(
    kernel: KernelField,
    target: Frame,
    reference: Frame,
    x: Float64,
    y: Float64,
    half_stamp: int,
    noise_removed: float,
    config: KernelMapsConfig,
) -> KernelField:
    """The kernel with maps of five local changes added; as it is where stars are few or show none.

    At each star the matched stamp's derivatives are fitted to what the kernel leaves there, with the star's flux and
    local sky free (a variable star is no kernel); a Gaussian process joins the stars. ``x, y`` (n,) are stars without
    marked pixels; ``noise_removed`` is the part of the reference's noise, white, that is taken out of the fit.
    """
    if not config.is_mapped or x.size < config.maps.min_stars:
        return kernel
    center = kernel.at((kernel.shape[1] - 1) / 2, (kernel.shape[0] - 1) / 2).astype(np.float64)
    noise_products = noise_removed * _noise_products(center)
    values, errors = np.empty((2, x.size, STENCILS.shape[0]))
    for first in range(0, x.size, _BLOCK):
        part = slice(first, first + _BLOCK)
        matched = _matched_stamps(kernel, reference, x[part], y[part], half_stamp + _REACH)
        values[part], errors[part] = _amplitudes(
            matched, target, reference, x[part], y[part], half_stamp, noise_products, config
        )
    maps = fit_maps(x, y, values, errors, target.shape, config.maps)
    if maps is None or not maps.values.any():
        return kernel
    padded = np.pad(center, _REACH)[None].astype(np.float32)
    changes = np.stack([_apply(stencil, padded, center.shape[0])[0] for stencil in STENCILS]).astype(np.float64)
    changes -= changes.mean(axis=(1, 2), keepdims=True)
    coefficients = np.concatenate([kernel.coefficients, changes.astype(np.float32)])
    return KernelField(coefficients=coefficients, shape=kernel.shape, order=kernel.order, maps=maps)


def _matched_stamps(kernel: KernelField, reference: Frame, x: Float64, y: Float64, half: int) -> Float32:
    """(n, 2 half + 1, 2 half + 1) of ``kernel * reference`` about the stars' pixels."""
    reach = half + kernel.half_width
    size = scipy.fft.next_fast_len(2 * reach + 1, real=True)
    patches = np.zeros((x.size, size, size), np.float32)
    kernels = np.zeros_like(patches)
    k = 2 * kernel.half_width + 1
    ny, nx = reference.shape
    for n in range(x.size):
        cy, cx = round(y[n]), round(x[n])
        y0, y1, x0, x1 = max(cy - reach, 0), min(cy + reach + 1, ny), max(cx - reach, 0), min(cx + reach + 1, nx)
        patches[n, y0 - cy + reach : y1 - cy + reach, x0 - cx + reach : x1 - cx + reach] = reference.image[y0:y1, x0:x1]
    kernels[:, :k, :k] = np.tensordot(kernel.terms(x, y), kernel.coefficients, axes=1)
    product = scipy.fft.rfft2(patches)
    product *= scipy.fft.rfft2(kernels)
    wide = scipy.fft.irfft2(product, s=(size, size))
    # the linear convolution's pixel (0, 0) is the patch's moved by the kernel's half width twice
    first = 2 * kernel.half_width
    return np.ascontiguousarray(wide[:, first : first + 2 * half + 1, first : first + 2 * half + 1])


def _noise_products(kernel: Float64) -> Float64:
    """(7, 7) what white noise of unit variance adds to the products of the fit's columns, a pixel.

    The columns are the stencils on the matched stamp, the stamp and a constant. The same noise is, negative, in the
    data, so the stamp's row is also what it adds to the right-hand side: broad kernels would look too narrow.
    """
    padded = np.pad(kernel, 2 * _REACH)[None].astype(np.float32)
    side = kernel.shape[0] + 2 * _REACH
    columns = [_apply(stencil, padded, side).ravel() for stencil in STENCILS]
    columns += [padded[0, _REACH:-_REACH, _REACH:-_REACH].ravel(), np.zeros(side * side, np.float32)]
    design = np.array(columns, np.float64)
    return np.asarray(design @ design.T, np.float64)


def _amplitudes(
    matched: Float32,
    target: Frame,
    reference: Frame,
    x: Float64,
    y: Float64,
    half: int,
    noise_products: Float64,
    config: KernelMapsConfig,
) -> tuple[Float64, Float64]:
    """(n, 5) amplitudes of the stencils at each star, and their errors; ``noise_products`` are taken out."""
    side = 2 * half + 1
    n_modes = STENCILS.shape[0]
    design = np.empty((x.size, n_modes + 2, side * side), np.float32)
    for m, stencil in enumerate(STENCILS):
        design[:, m] = _apply(stencil, matched, side).reshape(x.size, -1)
    model = matched[:, _REACH:-_REACH, _REACH:-_REACH].reshape(x.size, -1)
    design[:, n_modes], design[:, n_modes + 1] = model, 1.0
    data, weight = np.empty((x.size, side * side), np.float32), np.zeros((x.size, side * side), np.float32)
    noise = np.empty(x.size)
    for n in range(x.size):
        here = (slice(round(y[n]) - half, round(y[n]) + half + 1), slice(round(x[n]) - half, round(x[n]) + half + 1))
        data[n] = target.image[here].ravel()
        variance = (target.variance[here] + reference.variance[here]).ravel() + (config.model_error * model[n]) ** 2
        good = ((target.mask[here] | reference.mask[here]).ravel() & NO_WEIGHT) == 0
        np.divide(1.0, variance, out=weight[n], where=good & (variance > 0))
        noise[n] = weight[n] @ reference.variance[here].ravel()
    data -= model
    weighted = design * weight[:, None, :]
    normal = (weighted @ design.swapaxes(1, 2)).astype(np.float64)
    right = (weighted @ data[:, :, None])[:, :, 0].astype(np.float64)
    normal -= noise[:, None, None] * noise_products
    right += noise[:, None] * noise_products[n_modes]
    scale = 1 / np.sqrt(np.maximum(np.einsum("nii->ni", normal), 1e-300))
    normal *= scale[:, :, None] * scale[:, None, :]
    inverse = np.linalg.pinv(normal + 1e-7 * np.eye(n_modes + 2), hermitian=True)
    solution = np.einsum("nij,nj->ni", inverse, right * scale) * scale
    error = np.sqrt(np.maximum(np.einsum("nii->ni", inverse), 0)) * scale
    return solution[:, :n_modes], error[:, :n_modes]


def _apply(stencil: Float64, images: Float32, side: int) -> Float32:
    """Convolve (n, side + 4, side + 4) images with a 5 x 5 stencil: (n, side, side)."""
    out = np.zeros((images.shape[0], side, side), np.float32)
    for j in range(5):
        for i in range(5):
            if stencil[j, i]:
                out += np.float32(stencil[j, i]) * images[:, 4 - j : 4 - j + side, 4 - i : 4 - i + side]
    return out
