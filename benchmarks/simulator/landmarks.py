"""What a hard sky adds to the usual one: a very bright star, a large galaxy."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.simulator.config import SimulationConfig
from benchmarks.simulator.photometry import BANDS, mag_to_njy
from benchmarks.simulator.randomness import stream
from benchmarks.simulator.scene import Frame, Placed, paint
from benchmarks.simulator.skymodel import SKY, Rows
from core.camera import Camera

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

LANDMARK_IDS: Final = 5 * 10**15
GALAXY_RADIUS_ARCSEC: Final = 90.0
_DISK_SCALE_ARCSEC: Final = 22.0
_BULGE_RE_ARCSEC: Final = 4.0
_BULGE_FRACTION: Final = 0.25
_BULGE_POINTS: Final = 4000
_AXIS_RATIO: Final = 0.4
_ANGLE_DEG: Final = 35.0
_KNOTS: Final = 80
_COLOR: Final = np.array([1.6, 0.5, 0.0, -0.25, -0.4, -0.5])
"""Magnitudes by band, of the galaxy, minus r."""
_STAR_PLACE: Final = (0.62, 0.40)
"""Of the bright star, as fractions of the detector's sides."""
_GALAXY_PLACE: Final = (0.5, 0.45)


@dataclass(frozen=True, slots=True)
class LargeGalaxy:
    """Center [deg] and total r magnitude of the galaxy; its knots are rows of the sky."""

    ra: float
    dec: float
    mag: float

    def paint(self, canvas: Float32, frame: Frame) -> None:
        """Add bulge and disk to a canvas in electrons (before the detector's response).

        The disk varies over tens of pixels and is not blurred; the bulge is points of equal flux behind the PSF.
        """
        flux = float(mag_to_njy(self.mag + _COLOR[BANDS.index(frame.band)])) / frame.njy_per_electron
        _paint_disk(canvas, self._local(frame), flux * (1 - _BULGE_FRACTION), frame.optics.scale_arcsec)
        u = (np.arange(_BULGE_POINTS) + 0.5) / _BULGE_POINTS
        r = np.linspace(0, 5, 2001)
        growth = 1 - (1 + 1.678 * r) * np.exp(-1.678 * r)
        radius = _BULGE_RE_ARCSEC * np.interp(u, growth / growth[-1], r)
        theta = np.arange(_BULGE_POINTS) * 2.399963
        x, y, matrix = self._local(frame)
        offset = np.linalg.inv(matrix) @ np.stack([radius * np.cos(theta), 0.8 * radius * np.sin(theta)])
        points = np.array([0, _BULGE_POINTS]), offset[0].astype(np.float32), offset[1].astype(np.float32)
        color = np.array([_COLOR[1] - _COLOR[3]])
        njy = np.array([flux * _BULGE_FRACTION * frame.njy_per_electron])
        paint(canvas, frame, Placed(x=np.array([x]), y=np.array([y]), flux=njy, color=color, points=points))

    def _local(self, frame: Frame) -> tuple[float, float, Float64]:
        """Pixel of the center, and (2, 2) of pixel offsets to (major, minor) [arcsec]."""
        step = 20.0 / 3600
        ra = np.array([self.ra, self.ra + step / np.cos(np.radians(self.dec)), self.ra])
        dec = np.array([self.dec, self.dec, self.dec + step])
        x, y = frame.to_pixel(ra, dec)
        to_pixel = np.array([[x[1] - x[0], x[2] - x[0]], [y[1] - y[0], y[2] - y[0]]]) / 20.0
        s, c = np.sin(np.radians(_ANGLE_DEG)), np.cos(np.radians(_ANGLE_DEG))
        turn = np.array([[s, c], [-c, s]])
        return float(x[0]), float(y[0]), np.asarray(turn @ np.linalg.inv(to_pixel), np.float64)


def _paint_disk(canvas: Float32, local: tuple[float, float, Float64], electrons: float, scale: float) -> None:
    x, y, matrix = local
    ny, nx = canvas.shape
    reach = GALAXY_RADIUS_ARCSEC * 1.15 / scale
    j0, j1 = max(int(y - reach), 0), min(int(y + reach) + 2, ny)
    i0, i1 = max(int(x - reach), 0), min(int(x + reach) + 2, nx)
    if j0 >= j1 or i0 >= i1:
        return
    dy, dx = np.arange(j0, j1)[:, None] - y, np.arange(i0, i1)[None, :] - x
    major, minor = matrix[0, 0] * dx + matrix[0, 1] * dy, matrix[1, 0] * dx + matrix[1, 1] * dy
    r = np.hypot(major, minor / _AXIS_RATIO)
    # flat in the middle and faded at the rim: nothing that pixels could not follow
    profile = np.exp(-np.hypot(r, 3.0) / _DISK_SCALE_ARCSEC)
    profile *= 0.5 - 0.5 * np.tanh((r - GALAXY_RADIUS_ARCSEC * 0.95) / 3.0)
    total = 2 * np.pi * _DISK_SCALE_ARCSEC**2 * _AXIS_RATIO / scale**2
    canvas[j0:j1, i0:i1] += (electrons / total * profile).astype(np.float32)


def _place(config: SimulationConfig, camera: Camera, fraction: tuple[float, float]) -> tuple[float, float]:
    ny, nx = camera.detectors[config.detectors[0]].shape
    x, y = np.array([fraction[0] * nx]), np.array([fraction[1] * ny])
    ra, dec = camera.pixel_to_sky(config.detectors[0], x, y, config.ra_deg, config.dec_deg, config.rot_sky_deg)
    return float(ra[0]), float(dec[0])


def large_galaxy(config: SimulationConfig, camera: Camera) -> LargeGalaxy | None:
    """The configuration's galaxy."""
    if config.large_galaxy_mag is None:
        return None
    return LargeGalaxy(*_place(config, camera, _GALAXY_PLACE), config.large_galaxy_mag)


def landmark_rows(config: SimulationConfig, camera: Camera) -> Rows:
    """Rows of the sky that a hard sky adds: the bright star, the galaxy's knots."""
    star = np.zeros(1 if config.bright_star_mag is not None else 0, SKY)
    if config.bright_star_mag is not None:
        star["is_star"] = True
        star["ra"], star["dec"] = _place(config, camera, _STAR_PLACE)
        star["mag"] = config.bright_star_mag
    galaxy = large_galaxy(config, camera)
    knots = np.zeros(_KNOTS if galaxy else 0, SKY)
    if galaxy:
        rng = stream(config.seed, "knots")
        radius = _DISK_SCALE_ARCSEC * rng.gamma(2.0, 0.8, _KNOTS)
        theta = rng.uniform(0, 2 * np.pi, _KNOTS)
        major, minor = radius * np.cos(theta), _AXIS_RATIO * radius * np.sin(theta)
        s, c = np.sin(np.radians(_ANGLE_DEG)), np.cos(np.radians(_ANGLE_DEG))
        knots["ra"] = galaxy.ra + (major * s - minor * c) / 3600 / np.cos(np.radians(galaxy.dec))
        knots["dec"] = galaxy.dec + (major * c + minor * s) / 3600
        knots["mag"] = rng.uniform(18.5, 22.0, _KNOTS)[:, None] + 0.3 * _COLOR
        knots["re"] = rng.uniform(0.15, 0.5, _KNOTS)
    rows = np.concatenate([star, knots])
    rows["axis_ratio"] = 1.0
    rows["id"] = LANDMARK_IDS + np.arange(rows.size)
    return rows
