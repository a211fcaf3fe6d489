"""Bands: zero points, sky, wavelengths and how far colors move and widen an image."""

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]

BANDS: Final = ("u", "g", "r", "i", "z", "y")

AB_ZERO_NJY: Final = 31.4

# Instrumental AB magnitude of 1 e-/s at airmass 1 and dark-sky surface brightness [mag/arcsec²], rounded from
# the project's published throughputs (SMTN-002).
ZERO_POINT_1S: Final = {"u": 26.52, "g": 28.51, "r": 28.36, "i": 28.17, "z": 27.78, "y": 26.82}
SKY_MAG: Final = {"u": 23.05, "g": 22.25, "r": 21.2, "i": 20.46, "z": 19.61, "y": 18.6}
WAVELENGTH_NM: Final = {"u": 368.0, "g": 480.0, "r": 622.0, "i": 754.0, "z": 869.0, "y": 971.0}

# Shift along the vertical per magnitude of g - i at zenith distance 45 degrees [arcsec]: slope of the atmosphere's
# dispersion times the shift of the effective wavelength with color.
DCR_ARCSEC: Final = {"u": 0.05, "g": 0.035, "r": 0.008, "i": 0.004, "z": 0.002, "y": 0.001}
# Relative change of FWHM per magnitude of g - i.
CHROMATIC_WIDTH: Final = {"u": -0.006, "g": -0.005, "r": -0.003, "i": -0.0015, "z": -0.001, "y": -0.0005}
# The reference catalog's system differs by c1 (color - 0.8) + c2 (color - 0.8)², color = g - i.
REFERENCE_COLOR_TERM: Final = {
    "u": (0.04, 0.006),
    "g": (0.020, -0.003),
    "r": (0.008, 0.001),
    "i": (-0.005, 0.001),
    "z": (-0.006, 0.0),
    "y": (0.008, 0.0),
}
MEAN_COLOR: Final = 0.8


def mag_to_njy(mag: ArrayLike) -> Float64:
    """AB magnitudes to nJy."""
    return np.asarray(10.0 ** (0.4 * (AB_ZERO_NJY - np.asarray(mag, np.float64))), np.float64)


def njy_to_mag(flux: ArrayLike) -> Float64:
    """NJy to AB magnitudes; NaN where not positive."""
    values = np.asarray(flux, np.float64)
    return AB_ZERO_NJY - 2.5 * np.log10(np.where(values > 0, values, np.nan))


def njy_per_electron(band: str, exposure_s: float, airmass: float, extinction_mag: float) -> float:
    """Zero point of a visit under grey ``extinction_mag`` of cloud and 0.1 mag per unit airmass."""
    zero_point = ZERO_POINT_1S[band] + 2.5 * np.log10(exposure_s) - 0.1 * (airmass - 1.0) - extinction_mag
    return float(10.0 ** (0.4 * (AB_ZERO_NJY - zero_point)))


def sky_electrons(band: str, exposure_s: float, pixel_scale_arcsec: float, brightening_mag: float) -> float:
    """Sky level [e-/pixel] of the band's dark sky made brighter by ``brightening_mag``."""
    zero_point = ZERO_POINT_1S[band] + 2.5 * np.log10(exposure_s)
    surface = SKY_MAG[band] - brightening_mag
    return float(10.0 ** (0.4 * (zero_point - surface)) * pixel_scale_arcsec**2)
