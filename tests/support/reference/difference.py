"""Plain NumPy and SciPy twins of the difference kernels."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label, maximum_filter
from scipy.signal import correlate

Float64 = NDArray[np.float64]


def lanczos_at(image: Float64, x: float, y: float, order: int = 3) -> float:
    """Lanczos interpolation of an image at one position: the defining sum, normalized."""
    iy, ix = int(np.floor(y)), int(np.floor(x))
    rows, columns = np.arange(iy - order + 1, iy + order + 1), np.arange(ix - order + 1, ix + order + 1)
    wy, wx = (np.sinc(d) * np.sinc(d / order) for d in (y - rows, x - columns))
    return float(wy @ image[np.ix_(rows, columns)] @ wx / (wy.sum() * wx.sum()))


def basis_stamp(image: Float64, y: int, x: int, half_stamp: int, kernels: Float64) -> Float64:
    """Stamps of the image correlated with each kernel."""
    h = kernels.shape[1] // 2
    reach = half_stamp + h
    cut = image[y - reach : y + reach + 1, x - reach : x + reach + 1]
    return np.array([correlate(cut, k, mode="valid", method="direct") for k in kernels])


def snr_map(image: Float64, variance: Float64, good: NDArray[np.bool_], psf: Float64) -> Float64:
    """The matched filter as its definition says."""
    weight = np.where(good, 1 / variance, 0.0)
    signal = correlate(weight * image, psf, mode="same", method="direct")
    norm = correlate(weight, psf**2, mode="same", method="direct")
    return signal / np.sqrt(np.where(norm > 0, norm, np.inf))


def peaks(snr: Float64, threshold: float) -> list[tuple[int, int]]:
    """Local maxima of either sign, ordered by (y, x), without the border."""
    found = np.zeros(snr.shape, bool)
    for sign in (1, -1):
        found |= (sign * snr >= threshold) & (maximum_filter(sign * snr, 3) == sign * snr)
    found[0] = found[-1] = found[:, 0] = found[:, -1] = False
    return [(int(y), int(x)) for y, x in np.argwhere(found)]


def footprints(marked: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Connected regions with eight neighbours."""
    return np.asarray(label(marked, np.ones((3, 3)))[0], np.int32)


def varying_convolution(image: Float64, kernel_at: object, y: int, x: int) -> float:
    """``sum_u K(source; u) image(source)`` with the kernel of each source pixel."""
    total, half = 0.0, kernel_at(0, 0).shape[0] // 2  # type: ignore[operator]
    for dy in range(-half, half + 1):
        for dx in range(-half, half + 1):
            sy, sx = y - dy, x - dx
            if 0 <= sy < image.shape[0] and 0 <= sx < image.shape[1]:
                total += kernel_at(sx, sy)[half + dy, half + dx] * image[sy, sx]  # type: ignore[operator]
    return total
