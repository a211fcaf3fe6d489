"""Where reference stars are at the time of a visit: proper motion and parallax."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.contracts.catalogs import Catalog

Float64 = NDArray[np.float64]

_MJD_J2000: Final = 51544.5
_DAYS_PER_YEAR: Final = 365.25
_MAS_PER_DEG: Final = 3.6e6


def earth_position_au(mjd_tai: float) -> Float64:
    """Heliocentric position of the Earth [AU, ICRS axes], to 0.01 AU: the Astronomical Almanac's low-precision Sun.

    Enough for parallaxes: 0.01 AU of a parallax of 50 mas is 0.5 mas.
    """
    n = mjd_tai - _MJD_J2000
    anomaly = np.radians(357.528 + 0.9856003 * n)
    longitude = np.radians(280.460 + 0.9856474 * n + 1.915 * np.sin(anomaly) + 0.020 * np.sin(2 * anomaly))
    obliquity = np.radians(23.439 - 4e-7 * n)
    distance = 1.00014 - 0.01671 * np.cos(anomaly) - 0.00014 * np.cos(2 * anomaly)
    # precession since J2000 moves the equinox by 50 arcsec a year
    longitude -= np.radians(50.29 / 3600 * n / _DAYS_PER_YEAR)
    sun = np.array([np.cos(longitude), np.sin(longitude) * np.cos(obliquity), np.sin(longitude) * np.sin(obliquity)])
    return np.asarray(-distance * sun, np.float64)


def positions_at_epoch(stars: Catalog, mjd_tai: float) -> tuple[Float64, Float64]:
    """ICRS (ra, dec) [deg] of :data:`REFERENCE_STAR` rows as seen from the Earth; unknown motions count as zero."""
    ra, dec = np.radians(stars["ra"]), np.radians(stars["dec"])
    years = (mjd_tai - stars["epochMjdTai"]) / _DAYS_PER_YEAR
    east, north = (np.nan_to_num(stars[name].astype(np.float64)) * years for name in ("pmRa", "pmDec"))
    parallax = np.nan_to_num(stars["parallax"].astype(np.float64))
    x, y, z = earth_position_au(mjd_tai)
    east = east + parallax * (x * np.sin(ra) - y * np.cos(ra))
    north = north + parallax * (x * np.cos(ra) * np.sin(dec) + y * np.sin(ra) * np.sin(dec) - z * np.cos(dec))
    moved_dec = stars["dec"] + north / _MAS_PER_DEG
    moved_ra = stars["ra"] + east / _MAS_PER_DEG / np.maximum(np.cos(dec), 1e-6)
    return np.asarray(moved_ra % 360.0), np.asarray(moved_dec)
