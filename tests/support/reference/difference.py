"""Plain NumPy and SciPy twins of the difference kernels."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, correlate1d, label, maximum_filter
from scipy.signal import correlate

Float64 = NDArray[np.float64]


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


def grow_by_disk(marked: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Pixels within a disk of the radius of a marked one."""
    axis = np.arange(-radius, radius + 1)
    return np.asarray(binary_dilation(marked, axis[:, None] ** 2 + axis[None, :] ** 2 <= radius**2))


def difference_variance(
    flux: Float64, plain: Float64, convolved: Float64, taps: Float64, factor: float, fraction: Float64, offset: float,
) -> tuple[Float64, NDArray[np.bool_]]:  # fmt: skip
    """Variance before the scale, and where the fractional error of the flux exceeds the noise of the pixels.

    ``convolved`` is smoothed by the taps in both directions here, ``fraction`` (ny, nx) is given by pixel.
    """
    line = np.concatenate([taps[:0:-1], taps])
    smooth = correlate1d(correlate1d(convolved, line, axis=1, mode="constant"), line, axis=0, mode="nearest")
    noise = plain + factor * smooth
    padded = np.pad(flux, 1, mode="edge")
    by_x, by_y = padded[1:-1, 2:] - padded[1:-1, :-2], padded[2:, 1:-1] - padded[:-2, 1:-1]
    systematic = (fraction * flux) ** 2
    return noise + systematic + offset**2 / 4 * (by_x**2 + by_y**2), systematic > noise


def height_between_pixels(nine: Float64) -> float:
    """Maximum of the parabola whose derivatives are the central differences of 3 x 3 values, the middle if none is."""
    slope = 0.5 * np.array([nine[1, 2] - nine[1, 0], nine[2, 1] - nine[0, 1]])
    xx, yy = (nine[1, 2] + nine[1, 0] - 2 * nine[1, 1]), (nine[2, 1] + nine[0, 1] - 2 * nine[1, 1])
    xy = 0.25 * (nine[2, 2] + nine[0, 0] - nine[0, 2] - nine[2, 0])
    hessian = np.array([[xx, xy], [xy, yy]])
    if np.linalg.det(hessian) <= 0:
        return float(nine[1, 1])
    step = -np.linalg.solve(hessian, slope)
    return float(nine[1, 1] + slope @ step + 0.5 * step @ hessian @ step)


def without_own_photons(image: Float64, variance: Float64, photon_noise: float) -> Float64:
    """Variance that a pixel would have without its source: taken out from 2 to 4 sigma, half the variance at most."""
    share = np.clip(0.5 * np.abs(image) / np.sqrt(variance) - 1, 0, 1)
    return np.maximum(variance - share * photon_noise * image, 0.5 * variance)
