"""Sums inside circular apertures."""

from math import floor, sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.kernels.decorator import kernel

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
UInt8 = NDArray[np.uint8]
UInt16 = NDArray[np.uint16]

APERTURE_OK: Final = 0
APERTURE_TRUNCATED: Final = 1
APERTURE_BAD_PIXELS: Final = 2

_SUBSAMPLES: Final = 5


@kernel
def _covered(dx: float, dy: float, radius: float) -> float:
    """Fraction of the pixel at (dx, dy) from the center inside the circle, by 5 x 5 points where it is cut."""
    distance = sqrt(dx * dx + dy * dy)
    if distance < radius - 0.7072:
        return 1.0
    if distance > radius + 0.7072:
        return 0.0
    inside = 0
    for i in range(_SUBSAMPLES):
        for j in range(_SUBSAMPLES):
            x = dx + (i + 0.5) / _SUBSAMPLES - 0.5
            y = dy + (j + 0.5) / _SUBSAMPLES - 0.5
            if x * x + y * y < radius * radius:
                inside += 1
    return inside / (_SUBSAMPLES * _SUBSAMPLES)


@kernel
def aperture_flux(
    image: Float32, variance: Float32, mask: UInt16, bad: int, x: Float64, y: Float64, radius_pix: float,
    flux: Float32, flux_err: Float32, status: UInt8,
) -> None:  # fmt: skip
    """Sum n apertures of ``radius_pix``; pixels with a bit of ``bad`` or variance <= 0 are left out.

    Outputs (n,) [nJy], [nJy], APERTURE_* bits: truncated by the image's edge, or some pixel left out. NaN where
    nothing was summed.
    """
    ny, nx = image.shape
    reach = int(radius_pix + 1.5)
    for i in range(x.size):
        flux[i] = flux_err[i] = np.nan
        status[i] = APERTURE_TRUNCATED
        if not (abs(x[i]) < 1e6 and abs(y[i]) < 1e6):
            continue
        xc, yc = floor(x[i] + 0.5), floor(y[i] + 0.5)
        ylo, yhi = max(0, yc - reach), min(ny, yc + reach + 1)
        xlo, xhi = max(0, xc - reach), min(nx, xc + reach + 1)
        is_inside_x = x[i] - radius_pix >= -0.5 and x[i] + radius_pix <= nx - 0.5
        if is_inside_x and y[i] - radius_pix >= -0.5 and y[i] + radius_pix <= ny - 0.5:
            status[i] = APERTURE_OK
        total, noise, area = 0.0, 0.0, 0.0
        for v in range(ylo, yhi):
            for u in range(xlo, xhi):
                weight = _covered(u - x[i], v - y[i], radius_pix)
                if weight == 0.0:
                    continue
                if variance[v, u] > 0.0 and (mask[v, u] & bad) == 0:
                    total += weight * image[v, u]
                    noise += weight * weight * variance[v, u]
                    area += weight
                else:
                    status[i] |= APERTURE_BAD_PIXELS
        if area > 0.0:
            flux[i], flux_err[i] = total, sqrt(noise)
