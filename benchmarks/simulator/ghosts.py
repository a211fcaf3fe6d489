"""Ghosts: light of bright stars reflected twice on its way, an out-of-focus image of the pupil beside the star."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.simulator.scene import Frame, Placed

Float32 = NDArray[np.float32]

REFLECTIONS: Final = (
    # diameter [pixel], fraction of the star's light, place: fraction of the star's distance from the field's center
    (110.0, 2.0e-5, 0.995),
    (210.0, 8.0e-5, 0.988),
    (380.0, 2.0e-4, 0.970),
)
_OBSCURATION: Final = 0.61
_RIM_PIX: Final = 4.0
"""Width over which the pupil's rims are blurred."""
_FAINTEST: Final = 0.3
"""Ghosts below this [e-/pixel] are not drawn."""


def paint_ghosts(canvas: Float32, frame: Frame, stars: Placed) -> int:
    """Add the ghosts of a frame's sources [e-] in place; returns how many were bright enough to be drawn."""
    scale, (x0, y0) = frame.optics.scale_arcsec, frame.optics.origin_arcsec
    electrons = stars.flux / frame.njy_per_electron
    n = 0
    for diameter, fraction, place in REFLECTIONS:
        area = np.pi / 4 * diameter**2 * (1 - _OBSCURATION**2)
        for i in np.flatnonzero(electrons * fraction / area > _FAINTEST):
            x = (place * (x0 + stars.x[i] * scale) - x0) / scale
            y = (place * (y0 + stars.y[i] * scale) - y0) / scale
            n += _paint_pupil(canvas, x, y, diameter / 2, float(electrons[i]) * fraction / area)
    return n


def _paint_pupil(canvas: Float32, x: float, y: float, radius: float, level: float) -> bool:
    """Add an annulus about (x, y) whose plane is at ``level`` [e-]; whether any of it fell on the canvas."""
    ny, nx = canvas.shape
    reach = radius + _RIM_PIX
    j0, j1 = max(int(y - reach), 0), min(int(y + reach) + 2, ny)
    i0, i1 = max(int(x - reach), 0), min(int(x + reach) + 2, nx)
    if j0 >= j1 or i0 >= i1:
        return False
    r = np.hypot(np.arange(j0, j1)[:, None] - y, np.arange(i0, i1)[None, :] - x)
    inside = np.clip((radius - r) / _RIM_PIX + 0.5, 0, 1) * np.clip((r - _OBSCURATION * radius) / _RIM_PIX + 0.5, 0, 1)
    canvas[j0:j1, i0:i1] += (level * inside).astype(np.float32)
    return True
