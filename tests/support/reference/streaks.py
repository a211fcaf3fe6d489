"""Plain NumPy twins of ``core.kernels.streaks``."""

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]


def bin_snr(image: Float64, variance: Float64, good: Bool, cell: int, limit: float) -> Float64:
    """S/N of the even rows of each cell; NaN where fewer than half of their pixels are good."""
    ny, nx = image.shape[0] // cell, image.shape[1] // cell
    out = np.full((ny, nx), np.nan)
    for j, i in np.ndindex(ny, nx):
        box = (slice(j * cell, (j + 1) * cell, 2), slice(i * cell, (i + 1) * cell))
        use = good[box]
        if 4 * use.sum() >= cell * cell:
            out[j, i] = np.clip(image[box][use].sum() / np.sqrt(variance[box][use].sum()), -limit, limit)
    return out


def sum_lines(snr: Float64, slopes: Float64) -> tuple[Float64, Float64]:
    """Sums of the cells that are not NaN along ``x = i - n_y + round(y slope)``, and their numbers."""
    n_y, n_x = snr.shape
    total, count = np.zeros((2, slopes.size, n_x + 2 * n_y))
    for a, slope in enumerate(slopes):
        for y, x in np.argwhere(np.isfinite(snr)):
            i = x + n_y - int(np.floor(y * slope + 0.5))
            total[a, i] += snr[y, x]
            count[a, i] += 1
    return total, count


def distance(shape: tuple[int, int], line: Float64) -> Float64:
    """(ny, nx) signed distance of each pixel from ``x cosine + y sine = r``."""
    y, x = np.indices(shape)
    return np.asarray(x * line[0] + y * line[1] - line[2])


def profile_along(
    image: Float64, variance: Float64, good: Bool, line: Float64, half: int, limit: float, n_segments: int
) -> tuple[Float64, Float64]:
    """Sums of the clipped S/N by segment along the line and whole pixel of distance from it, and how many."""
    y, x = np.indices(image.shape)
    across = np.floor(distance(image.shape, line) + 0.5).astype(int) + half
    diagonal = np.hypot(*image.shape)
    along = (((y * line[0] - x * line[1]) / diagonal + 1) / 2 * n_segments).astype(int)
    use = good & (variance > 0) & (across >= 0) & (across <= 2 * half)
    total, count = np.zeros((2, n_segments, 2 * half + 1))
    np.add.at(total, (along[use], across[use]), np.clip(image / np.sqrt(variance), -limit, limit)[use])
    np.add.at(count, (along[use], across[use]), 1)
    return total, count
