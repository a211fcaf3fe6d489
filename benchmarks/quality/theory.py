"""What a perfect filter would do: noise peaks, centroid bounds, completeness."""

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


def gradient_moments(psf: Float64) -> Float64:
    """(2, 2) sums of products of the PSF's slopes (x, y) over the sum of its squares [1/pixel**2].

    Slopes by Fourier derivative of the zero-padded (k, k) image, exact for a well-sampled PSF.
    """
    size = 2 * max(psf.shape)
    spectrum = np.fft.fft2(psf, (size, size))
    frequency = 2j * np.pi * np.fft.fftfreq(size)
    slope_x = np.fft.ifft2(spectrum * frequency[None, :]).real
    slope_y = np.fft.ifft2(spectrum * frequency[:, None]).real
    cross = (slope_x * slope_y).sum()
    moments = np.array([[np.square(slope_x).sum(), cross], [cross, np.square(slope_y).sum()]])
    return np.asarray(moments / np.square(psf).sum(), np.float64)


def expected_noise_peaks(psf: Float64, n_pixels: float, threshold: float) -> float:
    """Peaks beyond ±threshold in ``n_pixels`` of white noise seen through its PSF's matched filter, both signs.

    Density of maxima of a smooth Gaussian field at a high level (Adler 1981, The Geometry of Random Fields, 6.9).
    """
    density = np.sqrt(np.linalg.det(gradient_moments(psf))) * (2 * np.pi) ** -1.5
    return float(2 * n_pixels * density * threshold * np.exp(-(threshold**2) / 2))


def centroid_bound_pix(psf: Float64, snr: Float64) -> Float64:
    """Cramér-Rao bound of a centroid [pixel], mean of both axes, for a source of this S/N on a flat background."""
    inverse = np.linalg.inv(gradient_moments(psf))
    return np.asarray(np.sqrt(np.trace(inverse) / 2) / np.asarray(snr, np.float64), np.float64)


def photon_noise(psf: Float64, electrons: Float64) -> Float64:
    """(n,) relative error that a source's own photons give a PSF flux whose pixels weigh the same.

    ``psf`` (k, k) of unit sum. The flux is ``sum(P d) / sum(P**2)``, the photons' variance ``electrons P``.
    """
    shape = float((psf**3).sum() / np.square(psf).sum() ** 2)
    return np.asarray(np.sqrt(shape / np.maximum(electrons, 1.0)), np.float64)
