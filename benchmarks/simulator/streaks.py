"""Satellites: streaks as wide as the seeing and the satellite's defocus, some of them broken into glints."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.simulator.config import SimulationConfig
from benchmarks.simulator.randomness import stream

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

STREAK: Final = np.dtype(
    [
        ("x0", "<f8"), ("y0", "<f8"), ("x1", "<f8"), ("y1", "<f8"), ("width_pix", "<f4"), ("peak", "<f4"),
        ("period_pix", "<f4"),
    ]
)  # fmt: skip
"""Ends on the detector's rim [pixel], FWHM across, peak [e-], and the glints' period (0: steady)."""
_PEAK: Final = (20.0, 5000.0)
_DISTANCE_KM: Final = (500.0, 5000.0)
_MIRROR_M: Final = 8.4
_OBSCURATION: Final = 0.61
_SECOND: Final = 0.1
"""Fraction of crossed detectors that a second satellite crosses."""
_GLINTS: Final = 0.25
_STEP: Final = 0.1


def draw_streaks(
    config: SimulationConfig, detector: int, index: int, shape: tuple[int, int], fwhm_arcsec: float, scale: float
) -> tuple[NDArray[np.void], list[Float64]]:
    """The streaks of one detector-visit (:data:`STREAK`) and the profile across each, at steps of 0.1 pixel.

    ``fwhm_arcsec`` of the visit's PSF; ``scale`` arcsec a pixel.
    """
    rng = stream(config.seed, "streak", detector, index)
    crossed = config.effects.satellite_streaks and rng.random() < config.streak_fraction
    n = (1 + int(rng.random() < _SECOND)) if crossed else 0
    table, profiles = np.zeros(n, STREAK), []
    ny, nx = shape
    for row in table:
        angle = rng.uniform(0, np.pi)
        x, y = rng.uniform(0, nx), rng.uniform(0, ny)
        row["x0"], row["y0"], row["x1"], row["y1"] = _ends(x, y, angle, shape)
        distance_m = 1000 * np.exp(rng.uniform(*np.log(_DISTANCE_KM)))
        pupil_pix = np.degrees(_MIRROR_M / distance_m) * 3600 / scale
        profile = profile_across(fwhm_arcsec / scale / 2.3548, pupil_pix)
        row["width_pix"] = 2 * _STEP * (np.flatnonzero(profile >= 0.5).max() + 0.5)
        row["peak"] = np.exp(rng.uniform(*np.log(_PEAK)))
        row["period_pix"] = rng.uniform(40.0, 400.0) if rng.random() < _GLINTS else 0.0
        profiles.append(profile)
    return table, profiles


def profile_across(sigma_pix: float, pupil_pix: float) -> Float64:
    """Half profile of unit maximum: an annular pupil's image seen edge on, blurred by the seeing."""
    reach = pupil_pix / 2 + 6 * sigma_pix + 1
    t = np.arange(-np.ceil(reach / _STEP), np.ceil(reach / _STEP) + 1) * _STEP
    outer, inner = pupil_pix / 2, _OBSCURATION * pupil_pix / 2
    chord = np.sqrt(np.maximum(outer**2 - t**2, 0)) - np.sqrt(np.maximum(inner**2 - t**2, 0))
    chord[t.size // 2] += 1e-6  # a pupil smaller than a step is a point
    blur = np.exp(-0.5 * np.square(t / sigma_pix))
    profile = np.convolve(chord, blur, "same")[t.size // 2 :]
    return np.asarray(profile / profile.max(), np.float64)


def paint_streaks(canvas: Float32, streaks: NDArray[np.void], profiles: list[Float64]) -> None:
    """Add streaks to a canvas (ny, nx) [e-] in place."""
    for row, profile in zip(streaks, profiles, strict=True):
        if abs(row["y1"] - row["y0"]) >= abs(row["x1"] - row["x0"]):
            _paint_steep(canvas, (row["y0"], row["x0"]), (row["y1"], row["x1"]), row, profile)
        else:
            _paint_steep(canvas.T, (row["x0"], row["y0"]), (row["x1"], row["y1"]), row, profile)


def _paint_steep(
    canvas: Float32, begin: tuple[float, float], end: tuple[float, float], row: np.void, profile: Float64
) -> None:
    """Paint a line that runs along the first axis: a band of columns a row."""
    n_along, n_across = canvas.shape
    along = np.arange(n_along)
    length = np.hypot(end[0] - begin[0], end[1] - begin[1])
    cosine, sine = (end[0] - begin[0]) / length, (end[1] - begin[1]) / length
    middle = begin[1] + (along - begin[0]) * (sine / cosine)
    half = int(np.ceil(profile.size * _STEP / abs(cosine))) + 1
    across = np.round(middle).astype(np.int64)[:, None] + np.arange(-half, half + 1)[None, :]
    distance = np.abs((across - middle[:, None]) * cosine)
    value = row["peak"] * np.interp(distance, np.arange(profile.size) * _STEP, profile, right=0.0)
    if row["period_pix"] > 0:
        path = (along[:, None] - begin[0]) * cosine + (across - begin[1]) * sine
        value *= np.exp(-0.5 * np.square((path % row["period_pix"] - row["period_pix"] / 2) / 8.0))
    ok = (across >= 0) & (across < n_across)
    rows = np.broadcast_to(along[:, None], across.shape)
    canvas[rows[ok], across[ok]] += value[ok].astype(np.float32)


def _ends(x: float, y: float, angle: float, shape: tuple[int, int]) -> tuple[float, float, float, float]:
    """Where a line through (x, y) crosses the rim."""
    ny, nx = shape
    c, s = np.cos(angle), np.sin(angle)
    steps = [(bound - start) / slope for bound, start, slope in (
        (-0.5, x, c), (nx - 0.5, x, c), (-0.5, y, s), (ny - 0.5, y, s)) if abs(slope) > 1e-9]  # fmt: skip
    back, forth = max(t for t in steps if t <= 0), min(t for t in steps if t > 0)
    return x + back * c, y + back * s, x + forth * c, y + forth * s
