"""When and where the telescope looked: commanded pointing, what it really did, and the weather."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.simulator.config import SimulationConfig
from benchmarks.simulator.photometry import njy_per_electron, sky_electrons
from benchmarks.simulator.randomness import stream
from core.camera import Camera

Float64 = NDArray[np.float64]

DAY_S: Final = 86400.0
_TAI_UTC_S: Final = 37.0
_SLEW_S: Final = 4.6
SHUTTER_CROSSING_S: Final = 0.9
"""The blades' motion lasts this long from edge to edge of the focal plane."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One exposure: header values (commanded) and truth."""

    index: int
    day_obs: int
    sequence: int
    band: str
    start_mjd_tai: float
    exposure_s: float
    ra_deg: float
    dec_deg: float
    rot_sky_deg: float
    true_ra_deg: float
    true_dec_deg: float
    true_rot_sky_deg: float
    airmass: float
    zenith_angle_deg: float
    """Position angle of the zenith."""
    seeing_arcsec: float
    njy_per_electron: float
    sky_electrons: float

    @property
    def visit(self) -> int:
        """Visit number ``YYYYMMDDsssss``."""
        return self.day_obs * 100_000 + self.sequence

    @property
    def end_mjd_tai(self) -> float:
        """Shutter closed."""
        return self.start_mjd_tai + self.exposure_s / DAY_S

    @property
    def midpoint_mjd_tai(self) -> float:
        """Middle of the exposure."""
        return self.start_mjd_tai + self.exposure_s / 2 / DAY_S

    @property
    def tan_zenith(self) -> float:
        """Tangent of the zenith distance."""
        return float(np.sqrt(self.airmass**2 - 1))


def altitude(camera: Camera, mjd_tai: float, ra_deg: float, dec_deg: float) -> tuple[float, float]:
    """Airmass (secant) and parallactic angle [deg]: the position angle of the zenith. UT1 is taken as UTC."""
    days = mjd_tai - _TAI_UTC_S / DAY_S - 51544.5
    sidereal = (280.46061837 + 360.98564736629 * days + camera.longitude_deg) % 360
    h, d, lat = (np.radians(v) for v in (sidereal - ra_deg, dec_deg, camera.latitude_deg))
    sin_altitude = np.sin(lat) * np.sin(d) + np.cos(lat) * np.cos(d) * np.cos(h)
    q = np.arctan2(np.sin(h), np.tan(lat) * np.cos(d) - np.sin(d) * np.cos(h))
    return float(1 / max(sin_altitude, 0.2)), float(np.degrees(q))


def make_visits(config: SimulationConfig, camera: Camera) -> list[Visit]:
    """The night's visits, dithered about the field."""
    visits = []
    for index in range(config.visits):
        rng = stream(config.seed, "visit", index)
        band = config.band(index)
        start = config.start_mjd_tai + index * (config.exposure_s + config.readout_s + _SLEW_S) / DAY_S
        cos_dec = np.cos(np.radians(config.dec_deg))
        ra = config.ra_deg + rng.uniform(-1, 1) * config.dither_arcsec / 3600 / cos_dec
        dec = config.dec_deg + rng.uniform(-1, 1) * config.dither_arcsec / 3600
        rot = config.rot_sky_deg + rng.uniform(-1, 1) * config.dither_rot_deg
        wrong = 1.0 if config.effects.pointing_error else 0.0
        radius = 5.0 * wrong * np.sqrt(rng.uniform(0.04, 1)) + config.pointing_offset_arcsec
        angle = rng.uniform(0, 2 * np.pi)
        airmass, zenith_angle = altitude(camera, start, config.ra_deg, config.dec_deg)
        extinction = rng.uniform(0.0, 0.05)
        visits.append(
            Visit(
                index=index,
                day_obs=config.day_obs,
                sequence=config.first_sequence + index,
                band=band,
                start_mjd_tai=start,
                exposure_s=config.exposure_s,
                ra_deg=ra,
                dec_deg=dec,
                rot_sky_deg=rot,
                true_ra_deg=ra + radius * np.cos(angle) / 3600 / cos_dec,
                true_dec_deg=dec + radius * np.sin(angle) / 3600,
                true_rot_sky_deg=rot + wrong * rng.uniform(-0.05, 0.05),
                airmass=airmass,
                zenith_angle_deg=zenith_angle,
                seeing_arcsec=config.seeing_arcsec[index % len(config.seeing_arcsec)],
                njy_per_electron=njy_per_electron(band, config.exposure_s, airmass, extinction),
                sky_electrons=sky_electrons(band, config.exposure_s, camera.pixel_scale_arcsec, rng.uniform(0.0, 0.25)),
            )
        )
    return visits
