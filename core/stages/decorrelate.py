"""Whitening of a difference whose one side was convolved, and the PSF it has then.

Reference: Reiss & Lupton 2016, DMTN-021; Zackay, Ofek & Gal-Yam 2016, ApJ 830, 27 for the noise model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from core.contracts.local_maps import LocalMaps
from core.contracts.psf import PsfModel, n_terms, polynomial_terms
from core.stages.kernel_field import KernelField
from core.stages.template import fit_psf_polynomial

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_FFT_SIZE = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class WhiteningConfig:
    """When and how the difference is whitened."""

    min_snr_gain: float = 0.005
    """Whiten only where the S/N of a point source gains at least this fraction; it costs two more transforms."""
    n_side: int = 5
    half_width_pix: int = 10
    order: int = 2


def whitening_kernel(
    kernel: KernelField, variance_plain: Float64, variance_convolved: Float64, config: WhiteningConfig
) -> KernelField:
    """Kernel that makes the noise of ``plain - kernel * convolved`` white.

    Its transform is ``sqrt((v_p + s**2 v_c) / (v_p + |K|**2 v_c))`` with s the kernel's sum, so a zero frequency keeps
    its amplitude and the white noise has variance ``v_p + s**2 v_c``. Computed at a grid of positions, fitted by a
    polynomial.

    Parameters
    ----------
    variance_plain, variance_convolved : (n, n) sky variances of the two sides around the grid's positions [nJy**2].
    """
    x, y = grid_positions(kernel.shape, variance_plain.shape[0])
    h = config.half_width_pix
    images = np.empty((x.size, 2 * h + 1, 2 * h + 1))
    for n, (v_plain, v_convolved) in enumerate(zip(variance_plain.ravel(), variance_convolved.ravel(), strict=True)):
        local = kernel.at(x[n], y[n]).astype(np.float64)
        power = np.square(np.abs(scipy.fft.rfft2(local, s=(_FFT_SIZE, _FFT_SIZE))))
        response = np.sqrt((v_plain + local.sum() ** 2 * v_convolved) / (v_plain + power * v_convolved))
        image = scipy.fft.fftshift(scipy.fft.irfft2(response, s=(_FFT_SIZE, _FFT_SIZE)))
        middle = _FFT_SIZE // 2
        image = image[middle - h : middle + h + 1, middle - h : middle + h + 1]
        images[n] = image / image.sum()
    terms = polynomial_terms(x, y, kernel.shape, config.order)
    solution = np.linalg.lstsq(terms, images.reshape(x.size, -1), rcond=None)[0]
    coefficients = solution.reshape(n_terms(config.order), 2 * h + 1, 2 * h + 1).astype(np.float32)
    return KernelField(coefficients=coefficients, shape=kernel.shape, order=config.order)


def noise_figures(kernel: KernelField, psf: PsfModel, v_plain: float, v_convolved: float) -> tuple[float, float]:
    """What a PSF filter loses to the colour of the noise: (factor, gain).

    ``factor`` is the convolved side's noise power within the filter, as a fraction of that of white noise times the
    kernel's sum squared: the variance to use without whitening. ``gain`` is the fraction of S/N that whitening would
    add: the root of ``<N> <1/N>`` over the PSF's power, N being the noise power, less one (Cauchy-Schwarz).

    Parameters
    ----------
    psf : PSF in the difference before whitening.    v_plain, v_convolved : sky variances of the two sides [nJy**2].
    """
    local = kernel.at((kernel.shape[1] - 1) / 2, (kernel.shape[0] - 1) / 2).astype(np.float64)
    shape = (_FFT_SIZE, _FFT_SIZE)
    power = np.square(np.abs(scipy.fft.fft2(local / local.sum(), s=shape)))
    weight = np.square(np.abs(scipy.fft.fft2(psf.center().astype(np.float64), s=shape)))
    weight /= weight.sum()
    noise = v_plain + power * local.sum() ** 2 * v_convolved
    gain = np.sqrt((noise * weight).sum() * (weight / noise).sum()) - 1
    return float((power * weight).sum()), float(gain)


def difference_psf(
    psf: PsfModel, kernel: KernelField | None, whitening: KernelField | None, n_side: int = 5
) -> PsfModel:
    """PSF of the science image after the kernel (where it was convolved) and the whitening.

    The stamp grows by up to six pixels a side per kernel, so that less than 1e-3 of the flux is cut off. The local
    maps of PSF and kernel stay, to first order: their images are convolved with the other side's at the center.
    """
    fields = [f for f in (kernel, whitening) if f is not None]
    if not fields:
        return psf
    models: list[PsfModel | KernelField] = [psf, *fields]
    x, y = grid_positions(psf.shape, n_side)
    half = psf.size // 2 + sum(min(f.half_width, 6) for f in fields)
    smooth = [_polynomial_images(model, x, y) for model in models]
    stamps = np.stack([_cut(_convolved(images), half) for images in zip(*smooth, strict=True)])
    stamps /= stamps.sum(axis=(1, 2), keepdims=True)
    base = fit_psf_polynomial(stamps.astype(np.float32), x, y, psf.shape, psf.order)
    middle = ((psf.shape[1] - 1) / 2, (psf.shape[0] - 1) / 2)
    centers = [model.at(*middle).astype(np.float64) for model in models]
    centers = [image / image.sum() for image in centers]
    images, maps = [base.coefficients], []
    for number, one in enumerate(models):
        if one.maps is None:
            continue
        others = [image for n, image in enumerate(centers) if n != number]
        changes = one.coefficients[-one.maps.n_maps :].astype(np.float64) / one.at(*middle).sum()
        images.append(np.stack([_cut(_convolved([change, *others]), half) for change in changes]).astype(np.float32))
        maps.append(one.maps)
    if not maps:
        return base
    joined = LocalMaps(values=np.concatenate([m.values for m in maps]), step_pix=maps[0].step_pix)
    return PsfModel(coefficients=np.concatenate(images), shape=base.shape, order=base.order, maps=joined)


def _polynomial_images(model: PsfModel | KernelField, x: Float64, y: Float64) -> Float64:
    """(n, k, k) images without their local maps."""
    terms = polynomial_terms(x, y, model.shape, model.order)
    images = np.tensordot(terms, model.coefficients[: terms.shape[-1]], axes=1)
    return np.asarray(images, np.float64)


def _convolved(images: Sequence[Float64]) -> Float64:
    """Full convolution of square images of odd sides."""
    side = sum(image.shape[0] - 1 for image in images) + 1
    size = scipy.fft.next_fast_len(side, real=True)
    product = scipy.fft.rfft2(images[0], s=(size, size))
    for image in images[1:]:
        product *= scipy.fft.rfft2(image, s=(size, size))
    return np.asarray(scipy.fft.irfft2(product, s=(size, size))[:side, :side], np.float64)


def _cut(image: Float64, half: int) -> Float64:
    """Central (2 half + 1) pixels square."""
    c = image.shape[0] // 2
    return image[c - half : c + half + 1, c - half : c + half + 1]


def grid_positions(shape: tuple[int, int], n_side: int) -> tuple[Float64, Float64]:
    """(x, y) of the centers of n_side x n_side equal cells of the frame, rows first."""
    y = (np.arange(n_side) + 0.5) * shape[0] / n_side - 0.5
    x = (np.arange(n_side) + 0.5) * shape[1] / n_side - 0.5
    yy, xx = np.meshgrid(y, x, indexing="ij")
    return xx.ravel(), yy.ravel()
