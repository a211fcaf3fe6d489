"""Cosmic rays, by two generators."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Deposit = tuple[Float64, Float64, Float64]
"""Points x, y [pixel] and their electrons."""

HIT: Final = np.dtype([("y", "<i4"), ("x", "<i4"), ("event", "<i4"), ("electrons", "<f4")])
"""A pixel that an event left more than 30 e- in (docs/dataset.md, "Truth")."""
_LEAST_ELECTRONS: Final = 30.0
_THICKNESS_PIX: Final = 10.0
"""100 microns of silicon."""
_DIFFUSION_PIX: Final = 0.45
"""Of charge freed at the far side; it grows with the root of the depth."""
_MUON_PEAK: Final = 780.0
"""Most probable electrons that a muon frees a pixel of path (10 microns)."""
_MUON_SPREAD: Final = 110.0
_ELECTRONS_PER_KEV: Final = 1000.0 / 3.65


def add_cosmic_rays(charge: Float32, rng: np.random.Generator, n: int, model: str = "tracks") -> NDArray[np.void]:
    """Add n events [e-] in place; returns the pixels hit (:data:`HIT`), an event numbered in order of drawing.

    ``tracks``: straight, log-uniform from a point to 80 pixels, 200 to 3,000 e- a pixel of path, spread by 0.35 pixels.
    ``muons``: straight muons with Landau deposits and diffusion by depth, electrons that scatter, and spots.
    """
    ny, nx = charge.shape
    hits = [np.zeros(0, HIT)]
    for event in range(n):
        x, y, energy = _track(rng, nx, ny) if model == "tracks" else _particle(rng, nx, ny)
        ix, iy = np.round(x).astype(int), np.round(y).astype(int)
        ok = (ix >= 0) & (ix < nx) & (iy >= 0) & (iy < ny)
        if not ok.any():
            continue
        flat, inverse = np.unique(iy[ok] * nx + ix[ok], return_inverse=True)
        deposit = np.bincount(inverse, energy[ok])
        charge.reshape(-1)[flat] += deposit.astype(np.float32)
        strong = deposit > _LEAST_ELECTRONS
        own = np.zeros(int(strong.sum()), HIT)
        own["y"], own["x"] = flat[strong] // nx, flat[strong] % nx
        own["event"], own["electrons"] = event, deposit[strong]
        hits.append(own)
    return np.concatenate(hits)


def _track(rng: np.random.Generator, nx: int, ny: int) -> Deposit:
    length, angle = np.exp(rng.uniform(np.log(0.5), np.log(80.0))), rng.uniform(0, np.pi)
    density = np.exp(rng.uniform(np.log(200.0), np.log(3000.0)))
    x0, y0 = rng.uniform(0, nx), rng.uniform(0, ny)
    steps = max(int(length * 8), 8)
    t = (np.arange(steps) + 0.5) / steps * length
    energy = density * max(length, 1.0) / steps * np.exp(rng.normal(0, 0.3, steps))
    x = x0 + t * np.cos(angle) + rng.normal(0, 0.35, steps)
    y = y0 + t * np.sin(angle) + rng.normal(0, 0.35, steps)
    return x, y, energy


def _particle(rng: np.random.Generator, nx: int, ny: int) -> Deposit:
    """Half muons (one in ten of them grazing), three tenths scattering electrons, the rest spots."""
    x0, y0, which = rng.uniform(0, nx), rng.uniform(0, ny), rng.random()
    if which < 0.5:
        x, y, depth, energy = _muon(rng)
    elif which < 0.8:
        x, y, depth, energy = _electron(rng)
    else:
        x, y, depth = np.zeros(1), np.zeros(1), rng.uniform(0, _THICKNESS_PIX, 1)
        energy = np.exp(rng.uniform(np.log(100.0), np.log(5000.0), 1))
    return _diffuse(rng, x0 + x, y0 + y, depth, energy)


def _muon(rng: np.random.Generator) -> tuple[Float64, Float64, Float64, Float64]:
    """A straight line through the silicon; zenith angles as of the cos² flux through a flat detector."""
    tangent = np.sqrt(rng.random() ** -0.5 - 1)
    length = _THICKNESS_PIX * tangent
    if rng.random() < 0.1:
        length = np.exp(rng.uniform(np.log(30.0), np.log(120.0)))
    path = np.hypot(length, _THICKNESS_PIX)
    steps = int(np.ceil(path * 2))
    t, angle = (np.arange(steps) + 0.5) / steps, rng.uniform(0, 2 * np.pi)
    # the logarithm of a squared normal deviate follows Moyal's form of the Landau distribution
    moyal = -np.log(np.square(rng.standard_normal(steps)) + 1e-9)
    energy = np.maximum(_MUON_PEAK + _MUON_SPREAD * moyal, 100.0) * path / steps
    return t * length * np.cos(angle), t * length * np.sin(angle), t * _THICKNESS_PIX, energy


def _electron(rng: np.random.Generator) -> tuple[Float64, Float64, Float64, Float64]:
    """A Compton electron: it loses more and turns more the slower it is, until it stops or leaves the silicon."""
    kev = np.exp(rng.uniform(np.log(5.0), np.log(350.0)))
    position = np.array([0.0, 0.0, rng.uniform(0, _THICKNESS_PIX)])
    direction = rng.standard_normal(3)
    direction /= np.linalg.norm(direction)
    step, points = 0.3, []
    while kev > 0 and 0 <= position[2] <= _THICKNESS_PIX:
        lost = min(kev, step * 6.0 * (300.0 / kev) ** 0.65 * np.exp(rng.normal(0, 0.3)))
        points.append((*position, lost * _ELECTRONS_PER_KEV))
        kev -= lost
        direction = direction + rng.standard_normal(3) * min(0.12 * 300.0 / max(kev, 1.0), 1.0)
        direction /= np.linalg.norm(direction)
        position = position + step * direction
    x, y, depth, energy = np.array(points).T
    return x, y, depth, energy


def _diffuse(rng: np.random.Generator, x: Float64, y: Float64, depth: Float64, energy: Float64) -> Deposit:
    """Spread each point's charge over 24 packets that wander by the depth it rises from."""
    packets = 24
    sigma = np.repeat(_DIFFUSION_PIX * np.sqrt(depth / _THICKNESS_PIX), packets)
    x = np.repeat(x, packets) + sigma * rng.standard_normal(sigma.size)
    y = np.repeat(y, packets) + sigma * rng.standard_normal(sigma.size)
    return x, y, np.repeat(energy / packets, packets)
