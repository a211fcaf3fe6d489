"""Puts a sky on a frame: which sources, where on its pixels, how bright."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.simulator.drawing import draw
from benchmarks.simulator.optics import Optics
from benchmarks.simulator.photometry import BANDS, mag_to_njy
from benchmarks.simulator.psf import CORE_HALF, WING_MAX
from benchmarks.simulator.skymodel import Rows, galaxy_points

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Points = tuple[Int64, Float32, Float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Geometry and imaging of one frame: a detector of a visit or a template input."""

    to_pixel: Callable[[Float64, Float64], tuple[Float64, Float64]]
    """ICRS (ra, dec) [deg] to smooth pixel (x, y), before turbulence and dispersion."""
    to_sky: Callable[[Float64, Float64], tuple[Float64, Float64]]
    """Its inverse."""
    optics: Optics
    rot_deg: float
    band: str
    njy_per_electron: float
    noise_electrons: float
    """Noise of a sky pixel: decides how far profiles are drawn."""

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx)."""
        return self.optics.shape

    def place(self, ra: Float64, dec: Float64, color: Float64) -> tuple[Float64, Float64]:
        """True pixels of sources."""
        x, y = self.to_pixel(ra, dec)
        dx, dy = self.optics.displacement(x, y, color)
        return x + dx, y + dy


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Sources on a frame: pixels, flux [nJy], g - i, and the points that each consists of."""

    x: Float64
    y: Float64
    flux: Float64
    color: Float64
    points: Points

    def inside(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Which have their center on the frame."""
        return (self.x > -0.5) & (self.x < shape[1] - 0.5) & (self.y > -0.5) & (self.y < shape[0] - 0.5)


def single_points(n: int) -> Points:
    """The points of n unresolved sources."""
    return np.arange(n + 1), np.zeros(n, np.float32), np.zeros(n, np.float32)


def row_color(rows: Rows) -> Float64:
    """g - i [mag]."""
    return np.asarray(rows["mag"][:, 1] - rows["mag"][:, 3], np.float64)


def place_rows(frame: Frame, rows: Rows, ra: Float64, dec: Float64) -> tuple[Placed, Int64]:
    """Rows of the sky that can leave light on the frame, and which those are."""
    color = row_color(rows)
    x, y = frame.place(ra, dec, color)
    flux = mag_to_njy(rows["mag"][:, BANDS.index(frame.band)])
    is_bright = flux / frame.njy_per_electron > 3e5
    reach = np.where(is_bright, WING_MAX, CORE_HALF + 10 * rows["re"])
    ny, nx = frame.shape
    keep = np.flatnonzero((x > -reach) & (x < nx + reach) & (y > -reach) & (y < ny + reach))
    kept = rows[keep]
    points = galaxy_points(kept, frame.rot_deg, frame.optics.scale_arcsec)
    return Placed(x=x[keep], y=y[keep], flux=flux[keep], color=color[keep], points=points), keep


def paint(canvas: Float32, frame: Frame, sources: Placed) -> None:
    """Add sources to a canvas in electrons (before the detector's response)."""
    weights = frame.optics.weights(sources.x, sources.y, sources.color)
    flux = sources.flux / frame.njy_per_electron
    draw(canvas, frame.optics.basis, weights, sources.x, sources.y, flux, frame.noise_electrons, sources.points)
