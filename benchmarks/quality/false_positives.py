"""DIASources without a true change, and what most likely made them."""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from benchmarks.quality.matching import nearest_arcsec
from benchmarks.quality.products import Products
from benchmarks.quality.truth import Truth
from core.flags import UNCLAIMED

Bool = NDArray[np.bool_]

EXCUSE_ARCSEC: Final = 1.0
CAUSES: Final = ("cosmic_ray", "edge", "bright_star", "dipole", "galaxy_core", "other")
"""In the order in which they are tried; each false positive has one."""
COSMIC_RAY_PIX: Final = 3.0
EDGE_PIX: Final = 20
_MASK_REACH: Final = 2
_BRIGHT_MAG: Final = 18.0
_BRIGHT_ARCSEC: Final = 4.0
_BRIGHT_ARCSEC_MAX: Final = 30.0
_DIPOLE_MAG: Final = 23.0


def is_false(products: Products, truth: Truth) -> Bool:
    """(n,) DIASources with no true change of \\|SNR_true\\| > 2 within 1 arcsec."""
    changes = truth.rows[truth.is_change]
    distance, _ = nearest_arcsec(_sky(products.dia_sources), (changes["ra"], changes["dec"]))
    return np.asarray(distance > EXCUSE_ARCSEC)


def cause_of(products: Products, truth: Truth) -> NDArray[np.int8]:
    """(n,) index in :data:`CAUSES` of what each DIASource would be, were it false."""
    cause = np.full(products.dia_sources.size, -1, np.int8)
    for number, (_, applies) in enumerate(_tests(products, truth)):
        cause[applies & (cause < 0)] = number
    return cause


def causes(products: Products, truth: Truth, is_suspect: Bool) -> dict[str, int]:
    """How many of the suspects fall to each of :data:`CAUSES`."""
    cause = cause_of(products, truth)[is_suspect]
    return {name: int(np.count_nonzero(cause == number)) for number, name in enumerate(CAUSES)}


def _tests(products: Products, truth: Truth) -> Iterator[tuple[str, Bool]]:
    sources = products.dia_sources
    star, galaxy = truth.is_kind("star", "variable"), truth.is_kind("galaxy")
    yield "cosmic_ray", _near_pixels(sources, truth.cosmic_rays)
    yield "edge", _near_edge(products)
    yield "bright_star", _near_bright(sources, truth, star)
    faint = star & (truth.rows["mag"] < _DIPOLE_MAG)
    yield "dipole", nearest_arcsec(_sky(sources), _sky(truth.rows[faint]))[0] < EXCUSE_ARCSEC
    yield "galaxy_core", nearest_arcsec(_sky(sources), _sky(truth.rows[galaxy]))[0] < EXCUSE_ARCSEC
    yield "other", np.ones(sources.size, bool)


def _sky(rows: NDArray[np.void]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return rows["ra"], rows["dec"]


def _near_pixels(sources: NDArray[np.void], pixels: NDArray[np.int64]) -> Bool:
    if sources.size == 0 or pixels.size == 0:
        return np.zeros(sources.size, bool)
    distance, _ = cKDTree(pixels).query(np.stack([sources["y"], sources["x"]], axis=-1))
    return np.asarray(np.asarray(distance) <= COSMIC_RAY_PIX)


def _near_edge(products: Products) -> Bool:
    """Within 20 pixels of the frame's rim or two of an unclaimed pixel."""
    sources, (ny, nx) = products.dia_sources, products.difference.shape
    y, x = (np.rint(sources[name]).astype(np.int64) for name in ("y", "x"))
    near = (np.minimum(x, nx - 1 - x) < EDGE_PIX) | (np.minimum(y, ny - 1 - y) < EDGE_PIX)
    offset = np.arange(-_MASK_REACH, _MASK_REACH + 1)
    rows = np.clip(y[:, None, None] + offset[None, :, None], 0, ny - 1)
    columns = np.clip(x[:, None, None] + offset[None, None, :], 0, nx - 1)
    unclaimed = (products.difference.mask[rows, columns] & np.uint16(UNCLAIMED)) != 0
    return np.asarray(near | unclaimed.any(axis=(1, 2)))


def _near_bright(sources: NDArray[np.void], truth: Truth, star: Bool) -> Bool:
    """Within 4 arcsec of a star of 18 mag, farther of brighter ones (as the square root of flux, up to 30 arcsec)."""
    near = np.zeros(sources.size, bool)
    mags = truth.rows["mag"]
    for bright in range(int(np.floor(_BRIGHT_MAG)), 7, -1):
        chosen = star & (mags <= bright) & (mags > bright - 1)
        radius = min(_BRIGHT_ARCSEC * 10 ** (0.2 * (_BRIGHT_MAG - bright)), _BRIGHT_ARCSEC_MAX)
        near |= nearest_arcsec(_sky(sources), _sky(truth.rows[chosen]))[0] < radius
    return near
