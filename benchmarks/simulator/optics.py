"""How one frame is imaged: its PSF over the field, turbulence, and dispersion by the atmosphere."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.simulator.config import SimulationConfig
from benchmarks.simulator.photometry import CHROMATIC_WIDTH, DCR_ARCSEC, MEAN_COLOR, WAVELENGTH_NM
from benchmarks.simulator.psf import PsfBasis, basis_weights, make_basis
from benchmarks.simulator.randomness import WaveField

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

TURBULENCE_MAS: Final = 5.0
"""Root mean square displacement per axis."""
_WAVES_ARCSEC: Final = (120.0, 400.0)
"""Wavelengths whose correlation falls off over 1-3 arcmin."""
_MOFFAT_WAVES_ARCSEC: Final = (90.0, 250.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Optics:
    """Imaging of one frame of ``shape`` (ny, nx); positions are frame pixels.

    ``dcr_pix`` is the shift (x, y) [pixel] per magnitude of g - i bluer than the mean.
    """

    basis: PsfBasis
    shape: tuple[int, int]
    scale_arcsec: float
    origin_arcsec: tuple[float, float]
    """Place of pixel (0, 0) in the focal plane: the random fields run on between detectors."""
    tilt: Float64
    """(3, 5) coefficients of u, v, u², uv, v² for width, e1, e2."""
    coma: Float64
    """(2, 2) of u, v for the two comas."""
    fields: tuple[WaveField, ...]
    """Turbulence x, y; width; e1; e2; and beta for Moffats."""
    dcr_pix: tuple[float, float]
    chromatic: float
    varies: bool
    turbulent: bool
    family: str = "von_karman"

    def _plane(self, x: Float64, y: Float64) -> tuple[Float64, Float64]:
        return self.origin_arcsec[0] + x * self.scale_arcsec, self.origin_arcsec[1] + y * self.scale_arcsec

    def weights(self, x: Float64, y: Float64, color: Float64) -> Float32:
        """(n, 7) PSF weights of sources with g - i ``color``."""
        u, v = 2 * x / self.shape[1] - 1, 2 * y / self.shape[0] - 1
        terms = np.stack([u, v, u * u - 1 / 3, u * v, v * v - 1 / 3])
        width, e1, e2 = self.tilt @ terms
        c1, c2 = self.coma @ terms[:2]
        plane = self._plane(x, y)
        if self.varies:
            width = width + 0.01 * self.fields[2](*plane)
            e1 = e1 + 0.007 * self.fields[3](*plane)
            e2 = e2 + 0.007 * self.fields[4](*plane)
            if self.family == "moffat":
                width, e1, e2, c1, c2 = self._moffat_structure(u, v, plane)
        else:
            width, e1, e2, c1, c2 = (np.zeros_like(x) for _ in range(5))
        width = width + self.chromatic * (np.clip(color, -1, 4) - MEAN_COLOR)
        return basis_weights(width, e1, e2, c1, c2)

    def _moffat_structure(
        self, u: Float64, v: Float64, plane: tuple[Float64, Float64]
    ) -> tuple[Float64, Float64, Float64, Float64, Float64]:
        """Another field: rings of focus about a center off the detector's, astigmatism, shorter waves, beta 2.5-3.5."""
        radius = np.hypot(u - 3 * self.coma[0, 0], v - 3 * self.coma[0, 1])
        width = 0.04 * np.cos(2.2 * radius + self.coma[1, 0]) + 0.05 * u * v + 0.01 * self.fields[2](*plane)
        e1 = 0.03 * (u * u - v * v) + 0.008 * self.fields[3](*plane)
        e2 = 0.06 * u * v + 0.008 * self.fields[4](*plane)
        steep = np.clip(0.6 * np.sin(2 * u - v + 10 * self.coma[1, 1]) + 0.3 * self.fields[5](*plane), -1, 1)
        return width, e1, e2, steep, steep * steep

    def displacement(self, x: Float64, y: Float64, color: Float64) -> tuple[Float64, Float64]:
        """Shift [pixel] by turbulence and dispersion."""
        blue = MEAN_COLOR - np.clip(color, -1, 4)
        dx, dy = blue * self.dcr_pix[0], blue * self.dcr_pix[1]
        if self.turbulent:
            amplitude = TURBULENCE_MAS / 1000 / self.scale_arcsec
            plane = self._plane(x, y)
            dx = dx + amplitude * self.fields[0](*plane)
            dy = dy + amplitude * self.fields[1](*plane)
        return dx, dy


def make_optics(
    config: SimulationConfig,
    rng: np.random.Generator,
    shape: tuple[int, int],
    scale_arcsec: float,
    origin_arcsec: tuple[float, float],
    band: str,
    fwhm_arcsec: float,
    zenith: tuple[float, float],
    rot_deg: float,
) -> Optics:
    """Draw the imaging of one frame; ``zenith`` = (tan of zenith distance, position angle of the zenith [deg])."""
    effects = config.effects
    direction = rng.uniform(0, 2 * np.pi)
    tilt = rng.normal(0.0, 0.008, (3, 5))
    # more than 10 % of width from corner to corner
    tilt[0] = [0.035 * np.cos(direction), 0.035 * np.sin(direction), 0.02, 0.005, 0.02]
    amplitude = DCR_ARCSEC[band] * zenith[0] / scale_arcsec if effects.dcr else 0.0
    angle = np.radians(zenith[1])
    east, north = amplitude * np.sin(angle), amplitude * np.cos(angle)
    c, s = np.cos(np.radians(rot_deg)), np.sin(np.radians(rot_deg))
    coma = rng.normal(0.0, 0.1, (2, 2))
    fields = tuple(WaveField.draw(rng, *_WAVES_ARCSEC) for _ in range(5))
    if config.psf_family == "moffat":
        fields = (*fields[:2], *(WaveField.draw(rng, *_MOFFAT_WAVES_ARCSEC) for _ in range(4)))
    return Optics(
        basis=make_basis(
            fwhm_arcsec, WAVELENGTH_NM[band], scale_arcsec, aureole=effects.aureole, family=config.psf_family
        ),
        shape=shape,
        scale_arcsec=scale_arcsec,
        origin_arcsec=origin_arcsec,
        tilt=tilt,
        coma=coma,
        fields=fields,
        dcr_pix=(float(-east * c + north * s), float(east * s + north * c)),
        chromatic=CHROMATIC_WIDTH[band] if effects.chromatic_psf else 0.0,
        varies=effects.psf_variation,
        turbulent=effects.turbulence,
        family=config.psf_family,
    )
