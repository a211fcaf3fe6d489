"""Whitening of a difference whose one side was convolved, and the PSF it has then.

Reference: Reiss & Lupton 2016, DMTN-021; Zackay, Ofek & Gal-Yam 2016, ApJ 830, 27 for the noise model.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from core.contracts.psf import PsfModel, n_terms, polynomial_terms
from core.stages.matching_kernel import KernelField
from core.stages.template import fit_psf_polynomial

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_FFT_SIZE = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class WhiteningConfig:
    """When and how the difference is whitened."""

    mode: Literal["auto", "on", "off"] = "auto"
    """``auto``: where it pays, by ``min_snr_gain``."""
    min_snr_gain: float = 0.005
    """Whiten only where the S/N of a point source gains at least this fraction; it costs two more transforms."""
    n_side: int = 5
    half_width_pix: int = 10
    order: int = 2

    def is_wanted(self, snr_gain: float) -> bool:
        """Whether to whiten where a point source would gain this fraction of S/N."""
        return self.mode == "on" or (self.mode == "auto" and snr_gain >= self.min_snr_gain)


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

    The stamp grows by up to six pixels a side per kernel, so that less than 1e-3 of the flux is cut off.
    """
    fields = [f for f in (kernel, whitening) if f is not None]
    if not fields:
        return psf
    x, y = grid_positions(psf.shape, n_side)
    half = psf.size // 2 + sum(min(f.half_width, 6) for f in fields)
    stamps = np.empty((x.size, 2 * half + 1, 2 * half + 1), np.float32)
    full_half = psf.size // 2 + sum(f.half_width for f in fields)
    size = scipy.fft.next_fast_len(2 * full_half + 1, real=True)
    for n in range(x.size):
        product = scipy.fft.rfft2(psf.at(x[n], y[n]).astype(np.float64), s=(size, size))
        for field in fields:
            product *= scipy.fft.rfft2(field.at(x[n], y[n]).astype(np.float64), s=(size, size))
        image = scipy.fft.irfft2(product, s=(size, size))
        stamp = image[full_half - half : full_half + half + 1, full_half - half : full_half + half + 1]
        stamps[n] = stamp / stamp.sum()
    return fit_psf_polynomial(stamps, x, y, psf.shape, psf.order)


def grid_positions(shape: tuple[int, int], n_side: int) -> tuple[Float64, Float64]:
    """(x, y) of the centers of n_side x n_side equal cells of the frame, rows first."""
    y = (np.arange(n_side) + 0.5) * shape[0] / n_side - 0.5
    x = (np.arange(n_side) + 0.5) * shape[1] / n_side - 0.5
    yy, xx = np.meshgrid(y, x, indexing="ij")
    return xx.ravel(), yy.ravel()
