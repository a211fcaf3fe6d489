"""Cosmic rays and satellite streaks."""

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]


def add_cosmic_rays(charge: Float32, rng: np.random.Generator, n: int) -> tuple[Int32, Int32]:
    """Add n straight tracks [e-] in place; returns the (y, x) of pixels that got more than 30 e-.

    Lengths are log-uniform from a point to 80 pixels, 200 to 3,000 e- a pixel of path, spread by 0.35 pixels.
    """
    ny, nx = charge.shape
    hit_y, hit_x = [], []
    for _ in range(n):
        length, angle = np.exp(rng.uniform(np.log(0.5), np.log(80.0))), rng.uniform(0, np.pi)
        density = np.exp(rng.uniform(np.log(200.0), np.log(3000.0)))
        x0, y0 = rng.uniform(0, nx), rng.uniform(0, ny)
        steps = max(int(length * 8), 8)
        t = (np.arange(steps) + 0.5) / steps * length
        energy = density * max(length, 1.0) / steps * np.exp(rng.normal(0, 0.3, steps))
        x = x0 + t * np.cos(angle) + rng.normal(0, 0.35, steps)
        y = y0 + t * np.sin(angle) + rng.normal(0, 0.35, steps)
        ix, iy = np.round(x).astype(int), np.round(y).astype(int)
        ok = (ix >= 0) & (ix < nx) & (iy >= 0) & (iy < ny)
        if not ok.any():
            continue
        flat, inverse = np.unique(iy[ok] * nx + ix[ok], return_inverse=True)
        deposit = np.bincount(inverse, energy[ok])
        charge.reshape(-1)[flat] += deposit.astype(np.float32)
        strong = flat[deposit > 30]
        hit_y.append(strong // nx)
        hit_x.append(strong % nx)
    if not hit_y:
        return np.zeros(0, np.int32), np.zeros(0, np.int32)
    return np.concatenate(hit_y).astype(np.int32), np.concatenate(hit_x).astype(np.int32)


def add_streak(expected: Float32, rng: np.random.Generator, fwhm_pix: float) -> None:
    """Add one satellite track across the detector [e-], as wide as the seeing plus the satellite's defocus."""
    ny, nx = expected.shape
    angle = rng.uniform(0, np.pi)
    x0, y0 = rng.uniform(0, nx), rng.uniform(0, ny)
    sigma = np.hypot(fwhm_pix / 2.3548, 2.5)
    peak = np.exp(rng.uniform(np.log(60.0), np.log(2000.0)))
    y, x = np.ogrid[:ny, :nx]
    distance = (x - x0) * np.float32(np.sin(angle)) - (y - y0) * np.float32(np.cos(angle))
    near = np.abs(distance) < 6 * sigma
    expected[near] += (peak * np.exp(-0.5 * (distance[near] / sigma) ** 2)).astype(np.float32)
