"""Checks where nothing changed: empty sky, its S/N map, and the stars of the science image."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from benchmarks.quality.photometry import forced_flux, robust_sd, snr_tile, source_free
from benchmarks.quality.products import Products
from benchmarks.quality.truth import Truth

Float64 = NDArray[np.float64]

_STAR_MATCH_ARCSEC: Final = 0.5
_STAR_SNR: Final = 50.0
_ISOLATION_ARCSEC: Final = 3.0
_MIN_STARS: Final = 10
_POSITIONS: Final = 400
_TILES: Final = 4
_TILE_SIDE: Final = 384
_FAINTEST_SNR: Final = 3.0


def zero_point_error(products: Products, truth: Truth) -> float:
    """Median of measured minus true magnitude of bright, isolated, clean stars of the science image.

    NaN where there are fewer than ten.
    """
    sources = products.sources
    clean = np.isfinite(sources["psfFlux"]) & (sources["psfFlux"] > _STAR_SNR * sources["psfFluxErr"])
    sources = sources[clean & (sources["mask"] == 0)]
    is_static = truth.is_kind("star", "galaxy") & (truth.rows["science_flux"] > 0)
    rows, is_star = truth.rows[is_static], truth.is_kind("star")[is_static]
    if sources.size < _MIN_STARS or rows.size < _MIN_STARS:
        return float("nan")
    everything = cKDTree(_xy(rows))
    distance, row = everything.query(_xy(sources), k=1)
    neighbor, _ = everything.query(_xy(rows[row]), k=2)
    reach = _STAR_MATCH_ARCSEC / products.pixel_scale_arcsec
    good = is_star[row] & (distance < reach) & (neighbor[:, 1] > _ISOLATION_ARCSEC / products.pixel_scale_arcsec)
    if good.sum() < _MIN_STARS:
        return float("nan")
    return float(np.median(-2.5 * np.log10(sources["psfFlux"][good] / rows["science_flux"][row[good]])))


def sky_pulls(products: Products, truth: Truth, seed: int) -> Float64:
    """Forced flux over error at random claimed positions far from every source of the truth."""
    rng = np.random.default_rng(seed)
    ny, nx = products.difference.shape
    x, y = rng.uniform(0, nx - 1, _POSITIONS), rng.uniform(0, ny - 1, _POSITIONS)
    free = _empty_sky(products, truth) & products.claimed()
    keep = free[np.rint(y).astype(np.int64), np.rint(x).astype(np.int64)]
    flux, error = forced_flux(products, x[keep], y[keep])
    pulls = flux / error
    return np.asarray(pulls[np.isfinite(pulls)], np.float64)


def snr_map_sd(products: Products, truth: Truth) -> float:
    """Robust width of our own matched filter's S/N map over source-free claimed pixels of a grid of tiles."""
    ny, nx = products.difference.shape
    side = min(_TILE_SIDE, ny // 2, nx // 2)
    free = _empty_sky(products, truth) & products.claimed()
    values = []
    n_y, n_x = (min(_TILES, length // side) for length in (ny, nx))
    for y0 in np.linspace(0, ny - side, n_y).astype(int):
        for x0 in np.linspace(0, nx - side, n_x).astype(int):
            snr = snr_tile(products, int(y0), int(x0), side)
            values.append(snr[free[y0 : y0 + side, x0 : x0 + side] & np.isfinite(snr)])
    return robust_sd(np.concatenate(values))


def _xy(rows: NDArray[np.void]) -> Float64:
    return np.stack([rows["x"], rows["y"]], axis=-1).astype(np.float64)


def _empty_sky(products: Products, truth: Truth) -> NDArray[np.bool_]:
    """Pixels away from every source that the science image shows at three sigma, farther from brighter ones."""
    ny, nx = products.difference.shape
    grid_y, grid_x = np.meshgrid(np.linspace(0.1, 0.9, 7) * ny, np.linspace(0.1, 0.9, 7) * nx, indexing="ij")
    _, error = forced_flux(products, grid_x.ravel(), grid_y.ravel())
    brightest = np.maximum(np.abs(truth.rows["science_flux"]), np.abs(truth.rows["flux"]))
    snr = brightest / np.nanmedian(error)
    shown = snr > _FAINTEST_SNR
    radius = 1.5 * truth.fwhm_arcsec / products.pixel_scale_arcsec * (1 + np.log10(snr[shown]))
    return source_free((ny, nx), truth.rows["x"][shown], truth.rows["y"][shown], radius)
