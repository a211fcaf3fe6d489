"""Forced PSF photometry and a matched filter of our own, to judge the pipeline's PSF, flux and variance."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from benchmarks.quality.products import Products

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

_PAD: Final = 16
MAD_TO_SD: Final = 1.4826


def robust_sd(values: Float64) -> float:
    """1.4826 times the median absolute deviation; NaN for no values."""
    if values.size == 0:
        return float("nan")
    return float(MAD_TO_SD * np.median(np.abs(values - np.median(values))))


def shift(stamps: Float64, dx: Float64, dy: Float64) -> Float64:
    """(n, k, k) stamps moved by (dx, dy) [pixel] towards larger x and y, by phases of the padded Fourier transform."""
    k = stamps.shape[-1]
    size = k + _PAD + k % 2
    ky, kx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    phase = np.exp(-2j * np.pi * (dx[:, None, None] * kx + dy[:, None, None] * ky))
    return np.asarray(np.fft.irfft2(np.fft.rfft2(stamps, (size, size)) * phase, (size, size))[:, :k, :k], np.float64)


def forced_flux(products: Products, x: Float64, y: Float64) -> tuple[Float64, Float64]:
    """PSF flux and its error [nJy] at n pixel positions of the difference, all good pixels weighing the same.

    As ``psfFlux`` is defined: weights from a variance that holds the source's own photons would pull fluxes low.

    NaN where the stamp leaves the frame or no good pixel is under the PSF's core. Unclaimed pixels carry no weight.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    flux, error = np.full(x.size, np.nan), np.full(x.size, np.nan)
    k = products.psf.size
    half = k // 2
    ny, nx = products.difference.shape
    ix, iy = np.rint(x).astype(np.int64), np.rint(y).astype(np.int64)
    inside = np.flatnonzero((ix >= half) & (iy >= half) & (ix + half < nx) & (iy + half < ny))
    if inside.size == 0:
        return flux, error
    images = products.psf.at_many(x[inside], y[inside]).astype(np.float64)
    images = shift(images, x[inside] - ix[inside], y[inside] - iy[inside])
    offset = np.arange(k) - half
    rows = (iy[inside, None, None] + offset[None, :, None], ix[inside, None, None] + offset[None, None, :])
    frame = products.difference
    pixels, variance = frame.image[rows].astype(np.float64), frame.variance[rows].astype(np.float64)
    good = products.claimed()[rows] & np.isfinite(pixels) & (variance > 0)
    norm = (np.square(images) * good).sum(axis=(1, 2))
    signal = (images * np.where(good, pixels, 0.0)).sum(axis=(1, 2))
    noise = (np.square(images) * np.where(good, variance, 0.0)).sum(axis=(1, 2))
    has_core = (np.square(images) * good).sum(axis=(1, 2)) > 0.5 * np.square(images).sum(axis=(1, 2))
    usable = has_core & (norm > 0)
    flux[inside[usable]] = signal[usable] / norm[usable]
    error[inside[usable]] = np.sqrt(noise[usable]) / norm[usable]
    return flux, error


def snr_tile(products: Products, y0: int, x0: int, side: int) -> Float64:
    """(side, side) S/N of the matched filter of the local PSF from pixel (y0, x0); NaN near the rim of the data."""
    half = products.psf.size // 2
    ny, nx = products.difference.shape
    window = (slice(max(y0 - half, 0), min(y0 + side + half, ny)), slice(max(x0 - half, 0), min(x0 + side + half, nx)))
    frame = products.difference
    good = products.claimed()[window] & np.isfinite(frame.image[window]) & (frame.variance[window] > 0)
    weight = np.where(good, 1 / np.where(good, frame.variance[window], 1), 0).astype(np.float64)
    psf = products.psf.at(x0 + side / 2, y0 + side / 2).astype(np.float64)
    signal = fftconvolve(np.where(good, frame.image[window], 0) * weight, psf[::-1, ::-1], mode="same")
    norm = fftconvolve(weight, np.square(psf)[::-1, ::-1], mode="same")
    covered = fftconvolve(good.astype(np.float64), np.square(psf)[::-1, ::-1] / np.square(psf).sum(), mode="same")
    snr = np.where(covered > 0.9, signal / np.sqrt(np.maximum(norm, 1e-30)), np.nan)
    top, left = y0 - window[0].start, x0 - window[1].start
    return np.asarray(snr[top : top + side, left : left + side], np.float64)


def source_free(shape: tuple[int, int], x: Float64, y: Float64, radius_pix: Float64) -> Bool:
    """(ny, nx) pixels farther than each source's own radius from it."""
    ny, nx = shape
    free = np.ones(shape, bool)
    for cx, cy, r in zip(x, y, radius_pix, strict=True):
        x_lo, x_hi = max(int(cx - r), 0), min(int(cx + r) + 2, nx)
        y_lo, y_hi = max(int(cy - r), 0), min(int(cy + r) + 2, ny)
        if x_lo >= x_hi or y_lo >= y_hi:
            continue
        yy, xx = np.ogrid[y_lo:y_hi, x_lo:x_hi]
        free[y_lo:y_hi, x_lo:x_hi] &= (xx - cx) ** 2 + (yy - cy) ** 2 > r * r
    return free
