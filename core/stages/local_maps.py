"""Maps of what varies over a detector faster than a polynomial: turbulence in positions, structure of the PSF.

Stars measure it with errors; between them a Gaussian process predicts (Rasmussen & Williams 2006, algorithm 2.1;
for astrometric turbulence Fortino et al. 2021, AJ 162, 106, and Leget et al. 2021, A&A 650, A81).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial import cKDTree

from core.contracts.local_maps import LocalMaps, lattice_shape

Float64 = NDArray[np.float64]

_MIN_PAIRS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalMapsConfig:
    """How maps are made of what single stars measure."""

    length_pix: float = 230.0
    """Correlation length (Gaussian sigma): 46 arcsec at 0.2 arcsec a pixel."""
    step_pix: int = 64
    min_stars: int = 40
    max_stars: int = 1000
    """The best of each part of the detector; the cost goes with the cube of their number."""
    clip_sigma: float = 4.0
    """A star farther from zero than this, by its error and the field's own width, is left out."""


def fit_maps(
    x: Float64, y: Float64, values: Float64, errors: Float64, shape: tuple[int, int], config: LocalMapsConfig
) -> LocalMaps | None:
    """Predict smooth fields of zero mean on a lattice; None where stars are too few.

    The width of each field is measured on the products of neighbours (independent errors drop out of them), what then
    remains of the scatter is a common error added to each star's own. A field that is lost in the errors is zero.

    Parameters
    ----------
    x, y : (n,) stars [pixel].    values, errors : (n, m) of m fields, NaN where a star says nothing.
    shape : (ny, nx) of the detector.
    """
    if x.size < config.min_stars:
        return None
    if x.size > config.max_stars:
        chosen = _best_of_each_part(x, y, np.nanmax(errors, axis=1), config)
        x, y, values, errors = x[chosen], y[chosen], values[chosen], errors[chosen]
    shape_nodes = lattice_shape(shape, config.step_pix)
    maps = np.zeros((values.shape[1], *shape_nodes), np.float32)
    stars = np.stack([x, y], axis=-1)
    node_y, node_x = (np.arange(n) * float(config.step_pix) for n in shape_nodes)
    # the Gaussian factors over the axes: nodes times stars, along each
    along_y, along_x = (_correlation(node[:, None] - star[None, :], config)
                        for node, star in ((node_y, y), (node_x, x)))  # fmt: skip
    between = _correlation(np.hypot(x[:, None] - x[None, :], y[:, None] - y[None, :]), config)
    pairs = cKDTree(stars).query_pairs(0.7 * config.length_pix, output_type="ndarray")
    for m in range(values.shape[1]):
        weights = _predictor(values[:, m], errors[:, m], between, pairs, config)
        if weights is not None:
            maps[m] = (along_y * weights) @ along_x.T
    return LocalMaps(values=maps, step_pix=config.step_pix)


def _best_of_each_part(x: Float64, y: Float64, error: Float64, config: LocalMapsConfig) -> NDArray[np.int64]:
    """Rows of ``max_stars``: of each cell of a correlation length in turn the one with the least error."""
    cell = np.floor(y / config.length_pix) * 100_000 + np.floor(x / config.length_pix)
    order = np.lexsort((error, cell))
    _, first, count = np.unique(cell[order], return_index=True, return_counts=True)
    rank = np.empty(x.size, np.int64)
    rank[order] = np.arange(x.size) - np.repeat(first, count)
    return np.sort(np.lexsort((error, rank))[: config.max_stars])


def _correlation(distance: Float64, config: LocalMapsConfig) -> Float64:
    return np.asarray(np.exp(-0.5 * np.square(distance / config.length_pix)), np.float64)


def _predictor(
    value: Float64, error: Float64, between: Float64, pairs: NDArray[np.int64], config: LocalMapsConfig
) -> Float64 | None:
    """(n,) weights whose sum with the correlations predicts the field; None where there is no field to be seen."""
    use = np.isfinite(value) & np.isfinite(error) & (error > 0)
    power = 0.0
    for _ in range(3):
        if use.sum() < config.min_stars:
            return None
        power, common = _powers(value, error, use, between, pairs)
        keep = use & (np.abs(value) < config.clip_sigma * np.sqrt(error**2 + common + max(power, 0.0)))
        if (keep == use).all():
            break
        use = keep
    if power <= 0:
        return None
    rows = np.flatnonzero(use)
    covariance = power * between[np.ix_(rows, rows)]
    covariance[np.diag_indices(rows.size)] += error[rows] ** 2 + common
    weights = np.zeros(value.size)
    weights[rows] = power * cho_solve(cho_factor(covariance, lower=True, check_finite=False), value[rows])
    return weights


def _powers(
    value: Float64, error: Float64, use: NDArray[np.bool_], between: Float64, pairs: NDArray[np.int64]
) -> tuple[float, float]:
    """Variance of the field, and of errors beyond the stars' own."""
    i, j = pairs[use[pairs].all(axis=1)].T
    if i.size < _MIN_PAIRS:
        return 0.0, 0.0
    scatter = np.square(1.4826 * np.median(np.abs(value[use])))
    share = error**2 + scatter
    weight = between[i, j] ** 2 / (share[i] * share[j])
    power = float((weight * value[i] * value[j] / between[i, j]).sum() / weight.sum())
    # a robust width, and the errors of the stars that weigh most
    own = float(np.median(error[use] ** 2))
    return power, max(float(scatter) - own - max(power, 0.0), 0.0)
