"""The truth that a dataset carries beside its pixels."""

from pathlib import Path
from typing import Any, Final

import fitsio
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from benchmarks.simulator.changes import BRIGHT_MAG
from benchmarks.simulator.config import SimulationConfig
from benchmarks.simulator.photometry import BANDS
from benchmarks.simulator.scene import Frame, Placed
from benchmarks.simulator.skymodel import Rows, positions_at
from benchmarks.simulator.template import TemplateTruth

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

TRUTH: Final = np.dtype(
    [
        ("id", "<i8"), ("kind", "S10"), ("x", "<f8"), ("y", "<f8"), ("ra", "<f8"), ("dec", "<f8"), ("flux", "<f8"),
        ("science_flux", "<f8"), ("template_flux", "<f8"), ("snr_true", "<f8"), ("mag", "<f8"), ("hosted", "?"),
        ("near_bright", "?"), ("moved_px", "<f4"), ("bright_mag", "<f4"), ("bright_arcsec", "<f4"),
    ]
)  # fmt: skip


def write_truth(
    path: Path,
    table: NDArray[np.void],
    events: tuple[NDArray[np.void], NDArray[np.void]],
    positions: tuple[Float64, Float64],
    psf: Float32,
    template_psf: Float32,
    header: dict[str, Any],
) -> None:
    """Write the tables of one visit-detector (docs/dataset.md, "Truth"); ``events``: pixels hit, satellites."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grid = np.zeros(positions[0].size, [("x", "<f8"), ("y", "<f8")])
    grid["x"], grid["y"] = positions
    with fitsio.FITS(str(path), "rw", clobber=True) as fits:
        fits.write(None, header=header)
        fits.write(table, extname="TRUTH")
        fits.write(events[0], extname="CR")
        fits.write(events[1], extname="STREAK")
        fits.write(psf, extname="PSF")
        fits.write(grid, extname="PSFPOS")
        fits.write(template_psf, extname="PSFT")


def static_truth(
    config: SimulationConfig,
    frame: Frame,
    placed: Placed,
    rows: Rows,
    at: tuple[Float64, Float64],
    variance: Float32,
    template: TemplateTruth | None,
) -> NDArray[np.void]:
    """Rows of stars and galaxies. ``snr_true`` of a star is that of the dipole its motion since the template leaves."""
    keep = placed.inside(frame.shape)
    table = np.zeros(int(keep.sum()), TRUTH)
    table["id"] = rows["id"][keep]
    table["kind"] = np.where(rows["is_star"][keep], b"star", b"galaxy")
    table["x"], table["y"] = placed.x[keep], placed.y[keep]
    table["ra"], table["dec"] = at[0][keep], at[1][keep]
    table["science_flux"] = table["template_flux"] = placed.flux[keep]
    table["mag"] = rows["mag"][keep, BANDS.index(frame.band)]
    if template is None:
        return table
    past = np.zeros((2, table.size))
    for epoch, weight in zip(template.epochs, template.weights, strict=True):
        past += weight * np.stack(positions_at(rows[keep], epoch, proper_motion=config.effects.proper_motion))
    x0, y0 = frame.to_pixel(past[0], past[1])
    x1, y1 = frame.to_pixel(table["ra"], table["dec"])
    table["moved_px"] = np.hypot(x1 - x0, y1 - y0)
    moved = np.flatnonzero(table["moved_px"] > 0.02)
    iy = np.clip(np.round(table["y"][moved]).astype(int), 0, variance.shape[0] - 1)
    ix = np.clip(np.round(table["x"][moved]).astype(int), 0, variance.shape[1] - 1)
    # S/N of the derivative of a Gaussian PSF: F m / (sqrt(2) s) / (2 s sqrt(pi) noise)
    s = frame.optics.basis.fwhm_arcsec / frame.optics.scale_arcsec / 2.3548
    noise = np.sqrt(variance[iy, ix])
    table["snr_true"][moved] = (
        table["science_flux"][moved] * table["moved_px"][moved] / (2.8284 * s**2 * 1.7725 * noise)
    )
    return table


def add_bright_neighbors(table: NDArray[np.void], placed: Placed, rows: Rows, frame: Frame) -> None:
    """Magnitude and distance of the star brighter than 18 mag nearest to each row that is not such a star itself."""
    table["bright_mag"] = table["bright_arcsec"] = np.nan
    mag = rows["mag"][:, BANDS.index(frame.band)]
    stars = np.flatnonzero(rows["is_star"] & (mag < BRIGHT_MAG))
    others = np.flatnonzero(~((table["kind"] == b"star") & (table["mag"] < BRIGHT_MAG)))
    if stars.size == 0:
        return
    tree = cKDTree(np.stack([placed.x[stars], placed.y[stars]], axis=-1))
    distance, nearest = tree.query(np.stack([table["x"][others], table["y"][others]], axis=-1))
    table["bright_mag"][others] = mag[stars[nearest]]
    table["bright_arcsec"][others] = distance * frame.optics.scale_arcsec
