"""The reference catalog: what a Gaia-like survey knows, with its errors, gaps and own passbands."""

from pathlib import Path
from typing import Any, Final

import cdshealpix
import fitsio
import numpy as np
from astropy import units
from astropy.coordinates import Latitude, Longitude
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from benchmarks.simulator.config import SimulationConfig
from benchmarks.simulator.photometry import BANDS, MEAN_COLOR, REFERENCE_COLOR_TERM, mag_to_njy
from benchmarks.simulator.randomness import stream
from benchmarks.simulator.scene import row_color
from benchmarks.simulator.skymodel import REFERENCE_EPOCH, Rows

Float64 = NDArray[np.float64]

ORDER: Final = 6
FAINT_LIMIT: Final = 21.2
_MISSING: Final = 0.03
_NO_MOTION: Final = 0.12
_BLEND_ARCSEC: Final = 0.6

REFERENCE_STAR: Final = np.dtype(
    [
        ("ra", "<f8"), ("dec", "<f8"), ("raErr", "<f4"), ("decErr", "<f4"), ("epochMjdTai", "<f8"), ("pmRa", "<f4"),
        ("pmDec", "<f4"), ("parallax", "<f4"), ("isStar", "?"),
        *((f"{band}_flux", "<f4") for band in BANDS), *((f"{band}_fluxErr", "<f4") for band in BANDS),
    ]
)  # fmt: skip
"""The columns of docs/dataset.md, "Reference catalog"."""


def reference_magnitude(band: str, mag: Float64, color: Float64) -> Float64:
    """Magnitude in the reference system, whose passband differs: a nonlinear color term."""
    c1, c2 = REFERENCE_COLOR_TERM[band]
    excess = np.clip(color - MEAN_COLOR, -1.5, 2.5)
    return np.asarray(mag + c1 * excess + c2 * excess**2, np.float64)


def make_reference_catalog(config: SimulationConfig, rows: Rows) -> NDArray[np.void]:
    """Catalog of the sky's brighter rows: 3 % missing, close pairs merged, errors growing with magnitude."""
    rng = stream(config.seed, "refcat")
    rows = rows[rows["mag"][:, 2] < FAINT_LIMIT]
    rows = rows[np.argsort(rows["id"])]
    known = np.full(rows.size, True)
    if config.effects.reference_errors:
        known = (rng.random(rows.size) > _MISSING) & ~_hidden_by_neighbor(rows)
    rows = rows[known]
    n = rows.size
    noisy = 1.0 if config.effects.reference_errors else 0.0
    table = np.zeros(n, REFERENCE_STAR)
    error_mas = np.maximum(0.05, 0.08 * 10 ** (0.23 * (rows["mag"][:, 2] - 15.0))) * np.where(rows["is_star"], 1.0, 8.0)
    shift = noisy * error_mas[:, None] * rng.normal(size=(n, 2)) / 3.6e6
    table["ra"] = rows["ra"] + shift[:, 0] / np.cos(np.radians(rows["dec"]))
    table["dec"] = rows["dec"] + shift[:, 1]
    table["raErr"] = table["decErr"] = error_mas
    table["epochMjdTai"] = REFERENCE_EPOCH
    for ours, theirs in (("pmRa", "pm_ra"), ("pmDec", "pm_dec"), ("parallax", "parallax")):
        table[ours] = rows[theirs] + noisy * error_mas * rng.normal(size=n)
    without = (rng.random(n) < _NO_MOTION * noisy) | ~rows["is_star"]
    for name in ("pmRa", "pmDec", "parallax"):
        table[name][without] = np.nan
    table["isStar"] = rows["is_star"]
    color = row_color(rows)
    for i, band in enumerate(BANDS):
        flux = mag_to_njy(reference_magnitude(band, rows["mag"][:, i], color))
        relative = 0.004 + 0.02 * 10 ** (0.3 * (rows["mag"][:, i] - 20.0))
        table[f"{band}_flux"] = flux * (1 + noisy * relative * rng.normal(size=n))
        table[f"{band}_fluxErr"] = flux * relative
    return table


def _hidden_by_neighbor(rows: Rows) -> NDArray[np.bool_]:
    """Rows within half an arcsecond of a brighter one: the catalog has one entry for both."""
    cos_dec = np.cos(np.radians(rows["dec"].mean())) if rows.size else 1.0
    tree = cKDTree(np.column_stack([rows["ra"] * cos_dec, rows["dec"]]) * 3600)
    hidden = np.zeros(rows.size, bool)
    r = rows["mag"][:, 2]
    for i, j in tree.query_pairs(_BLEND_ARCSEC):
        hidden[i if r[i] > r[j] else j] = True
    return hidden


def write_reference_catalog(out: Path, table: NDArray[np.void]) -> None:
    """One file a HEALPix pixel (nested, order 6)."""
    folder = out / "refcat"
    folder.mkdir(parents=True, exist_ok=True)
    ra, dec = Longitude(table["ra"], units.deg), Latitude(table["dec"], units.deg)
    pixel: NDArray[Any] = np.asarray(cdshealpix.lonlat_to_healpix(ra, dec, ORDER)).astype(np.int64)
    for value in np.unique(pixel):
        with fitsio.FITS(str(folder / f"{value}.fits"), "rw", clobber=True) as fits:
            fits.write(table[pixel == value], extname="REFCAT")
