"""Small frames of Moffat stars on a noisy sky, drawn without any kernel or stage."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.contracts.exposure import Frame

Float64 = NDArray[np.float64]


def moffat_stamp(dx: float, dy: float, fwhm: float, size: int = 41, beta: float = 3.0) -> Float64:
    """Unit-sum pixel-integrated Moffat centered at (dx, dy) from the middle pixel."""
    fine = 5
    axis = (np.arange(size * fine) + 0.5) / fine - 0.5 - size // 2
    alpha = fwhm / 2 / np.sqrt(2 ** (1 / beta) - 1)
    profile = (1 + ((axis[None, :] - dx) ** 2 + (axis[:, None] - dy) ** 2) / alpha**2) ** -beta
    stamp = profile.reshape(size, fine, size, fine).sum(axis=(1, 3))
    # the analytic total, so that the wings beyond the stamp count
    return np.asarray(stamp / fine**2 * (beta - 1) / (np.pi * alpha**2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Starfield:
    """A background-subtracted frame [e-] and what was drawn into it."""

    frame: Frame
    x: Float64
    y: Float64
    flux: Float64
    sky: float
    signal: Float64
    """Noise-free stars [e-]."""


def draw_stars(shape: tuple[int, int], x: Float64, y: Float64, flux: Float64, fwhm: float, size: int = 41) -> Float64:
    """(ny, nx) sum of Moffat stars [e-]."""
    half = size // 2
    image = np.zeros((shape[0] + 2 * size, shape[1] + 2 * size))
    for xi, yi, f in zip(x, y, flux, strict=True):
        px, py = round(xi), round(yi)
        if -half <= px < shape[1] + half and -half <= py < shape[0] + half:
            y0, x0 = py - half + size, px - half + size
            image[y0 : y0 + size, x0 : x0 + size] += f * moffat_stamp(xi - px, yi - py, fwhm, size)
    return image[size:-size, size:-size]


def make_starfield(
    *, shape: tuple[int, int] = (320, 320), n: int = 60, fwhm: float = 4.0, sky: float = 900.0, seed: int = 1,
    flux_range: tuple[float, float] = (3e3, 3e5), min_distance: float = 24.0,
) -> Starfield:  # fmt: skip
    """Stars of log-uniform flux [e-] at random subpixel places, at least ``min_distance`` apart; read noise 6 e-."""
    rng = np.random.default_rng(seed)
    places: list[tuple[float, float]] = []
    for _ in range(20_000):
        candidate = (rng.uniform(12, shape[1] - 13), rng.uniform(12, shape[0] - 13))
        if all((candidate[0] - a) ** 2 + (candidate[1] - b) ** 2 > min_distance**2 for a, b in places):
            places.append(candidate)
        if len(places) == n:
            break
    x, y = np.array(places).T
    flux = np.exp(rng.uniform(*np.log(flux_range), x.size))
    signal = draw_stars(shape, x, y, flux, fwhm)
    image = rng.poisson(signal + sky) + rng.normal(0, 6.0, shape) - sky
    frame = Frame(
        image=image.astype(np.float32),
        variance=(signal + sky + 36).astype(np.float32),
        mask=np.zeros(shape, np.uint16),
    )
    return Starfield(frame=frame, x=x, y=y, flux=flux, sky=sky, signal=signal)


def add_track(frame: Frame, electrons: float, sigma: float, seed: int = 8) -> None:
    """Add a satellite's track with ``electrons`` a pixel on its ridge, from side to side, with its photons' noise."""
    rng = np.random.default_rng(seed)
    ny, nx = frame.shape
    yy, xx = np.mgrid[:ny, :nx]
    across = (yy - 0.2 * ny - 0.45 * xx) / np.hypot(1.0, 0.45)
    light = electrons * np.exp(-0.5 * (across / sigma) ** 2)
    frame.image[:] += rng.poisson(light).astype(np.float32)
    frame.variance[:] += light.astype(np.float32)
