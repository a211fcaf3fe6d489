"""Scale an exposure by a factor that varies slowly over the detector."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.kernels.decorator import kernel

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_LN_PER_MAG: Final = 0.4 * np.log(10.0)


@kernel
def scale_planes(image: Float32, variance: Float32, scale: float, magnitudes: Float64) -> None:
    """``image *= s, variance *= s**2`` with ``s = scale * 10**(-0.4 m)``, one pass in place.

    Parameters
    ----------
    image, variance : (ny, nx).    scale : factor where ``m`` is zero.
    magnitudes : (6,) m as a polynomial ``1, u, v, u**2, u v, v**2`` in the pixel scaled to [-1, 1]; to third order in
        m, 1e-8 for 0.03 mag.
    """
    ny, nx = image.shape
    line = np.empty(nx, np.float32)
    per_x, per_y = 2.0 / max(nx - 1, 1), 2.0 / max(ny - 1, 1)
    for y in range(ny):
        v = y * per_y - 1.0
        a = magnitudes[0] + (magnitudes[2] + magnitudes[5] * v) * v
        b, c = magnitudes[1] + magnitudes[4] * v, magnitudes[3]
        for x in range(nx):
            u = x * per_x - 1.0
            e = -_LN_PER_MAG * (a + (b + c * u) * u)
            line[x] = scale * (1.0 + e * (1.0 + e * (0.5 + e / 6.0)))
        values, spreads = image[y], variance[y]
        for x in range(nx):
            values[x] *= line[x]
        for x in range(nx):
            spreads[x] *= line[x] * line[x]
