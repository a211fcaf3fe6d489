"""Particles that still make a DIASource, and stars that the search for particles spoils."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from benchmarks.quality.products import Products
from benchmarks.quality.truth import Truth
from core.flags import Mask

Bool = NDArray[np.bool_]
Float64 = NDArray[np.float64]

EVENT_SIGMA: Final = 5.0
"""Counted are particles whose brightest pixel stands this far above the noise of a pixel of the difference."""
LEFT_PIX: Final = 3.0
"""A DIASource without a true change so near a pixel hit is the particle's."""
STAR_SNR: Final = 20.0
_HIT_PIX: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CosmicRayCounts:
    """Of one detector-visit: particles over 5 sigma and what they left, stars over 20 and those spoiled."""

    n_events: int
    n_left: int
    n_stars: int
    n_stars_lost: int


def count_cosmic_rays(products: Products, truth: Truth, is_false: Bool) -> CosmicRayCounts:
    """Count both; ``is_false`` (n,) tells the DIASources without a true change."""
    is_event, is_left = _events(products, truth, is_false)
    lost = _stars_lost(products, truth)
    return CosmicRayCounts(
        n_events=int(is_event.sum()),
        n_left=int((is_event & is_left).sum()),
        n_stars=int(lost.size),
        n_stars_lost=int(lost.sum()),
    )


def is_center_lost(products: Products, truth: Truth, x: Float64, y: Float64) -> Bool:
    """(n,) whether a pixel within one of (x, y) is masked as a cosmic ray with no pixel truly hit within three."""
    ny, nx = products.difference.shape
    iy, ix = np.rint(y).astype(np.int64), np.rint(x).astype(np.int64)
    offset = np.arange(-1, 2)
    rows = np.clip(iy[:, None, None] + offset[None, :, None], 0, ny - 1)
    columns = np.clip(ix[:, None, None] + offset[None, None, :], 0, nx - 1)
    masked = (products.difference.mask[rows, columns] & np.uint16(Mask.CR)).any(axis=(1, 2))
    if truth.cosmic_rays.size:
        distance, _ = cKDTree(truth.cosmic_rays).query(np.stack([y, x], axis=-1))
        masked &= np.asarray(distance) > _HIT_PIX
    return np.asarray(masked, bool)


def _events(products: Products, truth: Truth, is_false: Bool) -> tuple[Bool, Bool]:
    """By particle: whether it is over 5 sigma, and whether a false DIASource lies at one of its pixels."""
    n = int(truth.event.max()) + 1 if truth.event.size else 0
    brightest, is_left = np.zeros(n), np.zeros(n, bool)
    y, x = truth.cosmic_rays.T
    noise = np.sqrt(np.median(products.difference.variance[products.claimed()]))
    np.maximum.at(brightest, truth.event, truth.electrons * truth.njy_per_electron / noise)
    left = products.dia_sources[is_false]
    if n and left.size:
        distance, _ = cKDTree(np.stack([left["y"], left["x"]], axis=-1)).query(np.stack([y, x], axis=-1))
        np.logical_or.at(is_left, truth.event, np.asarray(distance) <= LEFT_PIX)
    return brightest > EVENT_SIGMA, is_left


def _stars_lost(products: Products, truth: Truth) -> Bool:
    """(n,) :func:`is_center_lost` of each star of the science image over S/N 20 that is not saturated."""
    rows = truth.rows[truth.is_kind("star", "variable")]
    ny, nx = products.difference.shape
    rows = rows[(rows["x"] > 1) & (rows["y"] > 1) & (rows["x"] < nx - 2) & (rows["y"] < ny - 2)]
    iy, ix = np.rint(rows["y"]).astype(np.int64), np.rint(rows["x"]).astype(np.int64)
    reach = np.sqrt(np.square(truth.mean_psf()).sum())
    snr = rows["science_flux"] * reach / np.sqrt(products.difference.variance[iy, ix])
    is_open = (products.difference.mask[iy, ix] & np.uint16(Mask.SAT | Mask.NODATA | Mask.EDGE | Mask.BAD)) == 0
    rows = rows[is_open & (snr > STAR_SNR)]
    return is_center_lost(products, truth, rows["x"].astype(np.float64), rows["y"].astype(np.float64))
