"""Slow twins of the measurement kernels, in plain NumPy."""

import numpy as np
from numpy.typing import NDArray

from tests.support.reference.sinc import kaiser_sinc

Float64 = NDArray[np.float64]


def sinc_shift(image: Float64, dx: float, dy: float) -> Float64:
    """Image moved by (dx, dy), |dx|, |dy| <= 0.5, with Kaiser-windowed weights of unit sum; zero outside."""

    def matrix(n: int, shift: float) -> Float64:
        # nine taps around the pixel, as the kernel has them
        taps = np.arange(-4, 5)
        weight = kaiser_sinc(-shift - taps, 4.5, 8.0)
        weight /= weight.sum()
        out = np.zeros((n, n))
        for i in range(n):
            for tap, w in zip(taps, weight, strict=True):
                if 0 <= i + tap < n:
                    out[i, i + tap] = w
        return out

    return matrix(image.shape[0], dy) @ image @ matrix(image.shape[1], dx).T


def psf_at(image: Float64, x: float, y: float, shape: tuple[int, int]) -> Float64:
    """(ny, nx) plane with the PSF stamp of unit sum placed at (x, y)."""
    xc, yc, half = int(np.floor(x + 0.5)), int(np.floor(y + 0.5)), image.shape[0] // 2
    padded = np.pad(image, 6)
    stamp = sinc_shift(padded, x - xc, y - yc)
    plane = np.zeros((shape[0] + 200, shape[1] + 200))
    reach = half + 6
    plane[100 + yc - reach : 100 + yc + reach + 1, 100 + xc - reach : 100 + xc + reach + 1] = stamp
    return plane[100:-100, 100:-100]


def forced_flux(
    image: Float64, variance: Float64, bad: NDArray[np.bool_], psf: Float64, x: float, y: float, half: int
) -> tuple[float, float, float]:
    """Flux, error and chi2 of a PSF of unit sum at (x, y): equal weights on the good pixels of the window."""
    model = psf_at(psf, x, y, image.shape)
    xc, yc = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
    yy, xx = np.indices(image.shape)
    use = (np.abs(yy - yc) <= half) & (np.abs(xx - xc) <= half) & ~bad & (variance > 0)
    p, d, v = model[use], image[use], variance[use]
    flux = (p * d).sum() / (p * p).sum()
    return flux, np.sqrt((p * p * v).sum()) / (p * p).sum(), ((d - flux * p) ** 2 / v).sum()


def adaptive_moments(image: Float64, x: float, y: float, start: Float64, reach: int) -> Float64:
    """(xx, yy, xy) with the matched Gaussian weight, plain iteration."""
    yy, xx = np.indices(image.shape)
    near = (np.abs(yy - round(y)) <= reach) & (np.abs(xx - round(x)) <= reach)
    dx, dy, values = (xx - x)[near], (yy - y)[near], image[near]
    moments = np.array(start, np.float64)
    for _ in range(500):
        inverse = np.linalg.inv([[moments[0], moments[2]], [moments[2], moments[1]]])
        q = 0.5 * (inverse[0, 0] * dx**2 + inverse[1, 1] * dy**2 + 2 * inverse[0, 1] * dx * dy)
        weighted = np.where(q <= 9, np.exp(-q), 0) * values
        new = 2 * np.array([(weighted * t).sum() for t in (dx**2, dy**2, dx * dy)]) / weighted.sum()
        if np.abs(new - moments).max() < 1e-6:
            break
        moments = new
    return moments


def trail_image(psf: Float64, x: float, y: float, a: float, b: float, shape: tuple[int, int], n: int = 400) -> Float64:
    """A PSF spread evenly from (x - a, y - b) to (x + a, y + b), by many points."""
    total = np.zeros(shape)
    for t in (np.arange(n) + 0.5) * 2 / n - 1:
        total += psf_at(psf, x + t * a, y + t * b, shape)
    return total / n
