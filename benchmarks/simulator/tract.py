"""The sky grid of the templates: one gnomonic tract, cut in patches and cells."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.simulator.config import SimulationConfig
from benchmarks.simulator.skymodel import plane_to_sky, sky_to_plane

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tract:
    """North-up TAN grid; pixel (0, 0) is the center of the first pixel, x grows to the west."""

    ra_deg: float
    dec_deg: float
    shape: tuple[int, int]
    scale_arcsec: float
    patch_size: int
    cell_size: int

    @property
    def center(self) -> tuple[float, float]:
        """Pixel (x, y) of the tangent point."""
        return (self.shape[1] - 1) / 2, (self.shape[0] - 1) / 2

    def sky_to_pixel(self, ra: Float64, dec: Float64) -> tuple[Float64, Float64]:
        """Tract pixel (x, y) of ICRS positions [deg]."""
        xi, eta = sky_to_plane(ra, dec, self.ra_deg, self.dec_deg)
        per_pixel = self.scale_arcsec / 3600
        return self.center[0] - xi / per_pixel, self.center[1] + eta / per_pixel

    def pixel_to_sky(self, x: Float64, y: Float64) -> tuple[Float64, Float64]:
        """ICRS (ra, dec) [deg] of tract pixels."""
        per_pixel = self.scale_arcsec / 3600
        return plane_to_sky(
            (self.center[0] - x) * per_pixel, (y - self.center[1]) * per_pixel, self.ra_deg, self.dec_deg
        )

    def wcs_keywords(self) -> dict[str, float | str]:
        """TAN keywords for FITS (one-based)."""
        per_pixel = self.scale_arcsec / 3600
        return {
            "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CUNIT1": "deg", "CUNIT2": "deg", "RADESYS": "ICRS",
            "CRPIX1": self.center[0] + 1, "CRPIX2": self.center[1] + 1, "CRVAL1": self.ra_deg, "CRVAL2": self.dec_deg,
            "CD1_1": -per_pixel, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": per_pixel,
        }  # fmt: skip


def make_tract(config: SimulationConfig) -> Tract:
    """The dataset's tract: its tangent point is off the field's center, so no grid lines up with it."""
    return Tract(
        ra_deg=config.ra_deg + 0.0123,
        dec_deg=config.dec_deg - 0.0071,
        shape=config.tract_shape,
        scale_arcsec=0.2,
        patch_size=config.patch_size,
        cell_size=config.cell_size,
    )
