"""The visits of the past that templates are made of: when, how deep, and on which canvas."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.simulator.config import SimulationConfig
from benchmarks.simulator.optics import make_optics
from benchmarks.simulator.photometry import BANDS, njy_per_electron, sky_electrons
from benchmarks.simulator.randomness import stream
from benchmarks.simulator.scene import Frame
from benchmarks.simulator.skymodel import plane_to_sky, sky_to_plane
from core.camera import Camera

Float64 = NDArray[np.float64]

_OLDEST_DAYS: Final = 800.0
_YOUNGEST_DAYS: Final = 380.0
_CUBIC: Final = 1.2e-11
"""Radial distortion of a canvas [pixel**-2]: a fifth of a pixel at 2,500 pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateInput:
    """One visit of the past."""

    band: str
    key: int
    mjd_tai: float
    seeing_arcsec: float
    rot_sky_deg: float
    dither_arcsec: tuple[float, float]
    airmass: float
    zenith_angle_deg: float
    njy_per_electron: float
    sky_electrons: float
    weight: float
    """Inverse variance of its sky [nJy**-2]."""


def template_inputs(config: SimulationConfig, camera: Camera, band: str) -> list[TemplateInput]:
    """Inputs of a band's template, older than the history; good seeing is preferred as in real coadds."""
    inputs = []
    for k in range(config.template_inputs):
        rng = stream(config.seed, "template input", BANDS.index(band), k)
        airmass = rng.uniform(1.02, 1.35)
        zero_point = njy_per_electron(band, config.exposure_s, airmass, rng.uniform(0.0, 0.05))
        sky = sky_electrons(band, config.exposure_s, camera.pixel_scale_arcsec, rng.uniform(0.0, 0.25))
        inputs.append(
            TemplateInput(
                band=band,
                key=BANDS.index(band) * 1000 + k,
                mjd_tai=config.start_mjd_tai - rng.uniform(_YOUNGEST_DAYS, _OLDEST_DAYS),
                seeing_arcsec=rng.uniform(*config.template_seeing_arcsec),
                rot_sky_deg=config.rot_sky_deg + rng.uniform(-1, 1) * config.template_rotation_deg,
                dither_arcsec=(rng.uniform(-4, 4), rng.uniform(-4, 4)),
                airmass=airmass,
                zenith_angle_deg=rng.uniform(-180, 180),
                njy_per_electron=zero_point,
                sky_electrons=sky,
                weight=1.0 / ((sky + 36.0) * zero_point**2),
            )
        )
    return inputs


def group_extent(config: SimulationConfig, camera: Camera, detectors: tuple[int, ...]) -> tuple[float, float, float]:
    """Center (ra, dec) [deg] of a group of detectors and the half-size [pixel] of a canvas that holds them padded."""
    corners = []
    for detector in detectors:
        ny, nx = camera.detectors[detector].shape
        x, y = np.array([0.0, nx, 0.0, nx]), np.array([0.0, 0.0, ny, ny])
        corners.append(camera.pixel_to_sky(detector, x, y, config.ra_deg, config.dec_deg, config.rot_sky_deg))
    ra, dec = np.concatenate([c[0] for c in corners]), np.concatenate([c[1] for c in corners])
    xi, eta = sky_to_plane(ra, dec, config.ra_deg, config.dec_deg)
    center = plane_to_sky(
        np.array([(xi.min() + xi.max()) / 2]), np.array([(eta.min() + eta.max()) / 2]), config.ra_deg, config.dec_deg
    )
    c, s = np.cos(np.radians(config.rot_sky_deg)), np.sin(np.radians(config.rot_sky_deg))
    xi, eta = sky_to_plane(ra, dec, float(center[0][0]), float(center[1][0]))
    reach = max(np.abs(-xi * c + eta * s).max(), np.abs(xi * s + eta * c).max()) * 3600
    turn = np.radians(config.template_rotation_deg)
    half = (reach + config.template_padding_arcsec) * (np.cos(turn) + np.sin(turn)) + 8.0
    return float(center[0][0]), float(center[1][0]), half / camera.pixel_scale_arcsec


def input_frame(config: SimulationConfig, camera: Camera, detectors: tuple[int, ...], visit: TemplateInput) -> Frame:
    """The canvas of one input: its own center, rotation, distortion and imaging."""
    ra0, dec0, half = group_extent(config, camera, detectors)
    ra0 += visit.dither_arcsec[0] / 3600 / np.cos(np.radians(dec0))
    dec0 += visit.dither_arcsec[1] / 3600
    side = int(np.ceil(2 * half / 8)) * 8
    middle = (side - 1) / 2
    per_pixel = camera.pixel_scale_arcsec / 3600
    c, s = np.cos(np.radians(visit.rot_sky_deg)), np.sin(np.radians(visit.rot_sky_deg))

    def to_pixel(ra: Float64, dec: Float64) -> tuple[Float64, Float64]:
        xi, eta = sky_to_plane(ra, dec, ra0, dec0)
        u, v = (-xi * c + eta * s) / per_pixel, (xi * s + eta * c) / per_pixel
        stretch = 1 + _CUBIC * (u * u + v * v)
        return middle + u * stretch, middle + v * stretch

    def to_sky(x: Float64, y: Float64) -> tuple[Float64, Float64]:
        u, v = x - middle, y - middle
        for _ in range(4):
            stretch = 1 + _CUBIC * (u * u + v * v)
            u, v = (x - middle) / stretch, (y - middle) / stretch
        xi, eta = (-u * c + v * s) * per_pixel, (u * s + v * c) * per_pixel
        return plane_to_sky(xi, eta, ra0, dec0)

    optics = make_optics(
        config, stream(config.seed, "template optics", visit.key), (side, side), camera.pixel_scale_arcsec, (0.0, 0.0),
        visit.band, visit.seeing_arcsec, (float(np.sqrt(visit.airmass**2 - 1)), visit.zenith_angle_deg),
        visit.rot_sky_deg,
    )  # fmt: skip
    return Frame(
        to_pixel=to_pixel,
        to_sky=to_sky,
        optics=optics,
        rot_deg=visit.rot_sky_deg,
        band=visit.band,
        njy_per_electron=visit.njy_per_electron,
        noise_electrons=float(np.sqrt(visit.sky_electrons + 36.0)),
    )
