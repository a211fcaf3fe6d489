"""Plain NumPy twin of the first search of ``core.kernels.cosmic_rays``: no pixel is marked yet."""

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


def sharp_pixels(
    image: Float64, variance: Float64, unusable: NDArray[np.bool_], sigma: float, min_snr: float, min_sharpness: float,
    ratio_error: float,
) -> NDArray[np.bool_]:  # fmt: skip
    """(ny, nx) whether a pixel is sharper than a star of width ``sigma`` in any of four directions."""
    best = np.full(image.shape, -np.inf)
    for dy, dx in ((0, 1), (1, 1), (1, 0), (1, -1)):
        ratio = np.exp(-0.5 * (dx * dx + dy * dy) / sigma**2)

        def moved(plane: Float64, sign: int, dy: int = dy, dx: int = dx) -> Float64:
            return np.roll(plane, (sign * dy, sign * dx), (0, 1))

        pair = 0.5 * (moved(image, 1) + moved(image, -1))
        spread = ratio**2 * variance + 0.25 * (moved(variance, 1) + moved(variance, -1))
        excess = (ratio * image - pair) / np.sqrt(spread + (ratio_error * ratio * image) ** 2)
        blocked = moved(unusable.astype(float), 1) + moved(unusable.astype(float), -1) > 0
        best = np.where(blocked, best, np.maximum(best, excess))
    found = (best > min_sharpness) & (image > min_snr * np.sqrt(variance)) & ~unusable
    found[[0, -1]] = found[:, [0, -1]] = False
    return found
