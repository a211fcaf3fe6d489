"""Which DIASource belongs to what: solar-system objects first, then known DIAObjects, the rest may be new."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from scipy.spatial import cKDTree

from core.contracts.catalogs import NULL_LONG, Catalog, take_rows
from core.contracts.exposure import VisitInfo
from core.contracts.results import Association
from core.stages.solar_system import ids_of, predict

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_ARCSEC: Final = np.pi / 180 / 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociateConfig:
    """Parameters of :func:`associate`."""

    radius_arcsec: float = 1.0
    sigma_floor_arcsec: float = 0.05
    """Added in quadrature per axis: errors of the frame that the rows' own errors do not hold."""
    sigma_unknown_arcsec: float = 0.2
    """Taken where a row has no error."""
    new_object_bad_flags: tuple[str, ...] = (
        "centroid_flag",
        "pixelFlags_crCenter",
        "pixelFlags_nodataCenter",
        "pixelFlags_saturatedCenter",
        "pixelFlags_streakCenter",
        "glint_trail",
    )
    """A source with any of these set makes no new object; of interpolated centers the flag cuts judge."""
    new_object_min_reliability: float = 0.0
    """Nor does one whose reliability is below; of known objects every source counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """New objects to register: source rows, positions [deg], proposed ids (m,).

    New sources within the radius of each other make one object: the brightest claims it. ``follower_row`` are the
    rows of the others and ``follower_claim`` the claim each shares.
    """

    row: Int64
    ra: Float64
    dec: Float64
    proposed_id: Int64
    follower_row: Int64
    follower_claim: Int64


def associate(
    sources: Catalog, dia_objects: Catalog, ephemerides: Catalog, visit_info: VisitInfo, config: AssociateConfig
) -> Association:
    """Match sources one-to-one within ``radius_arcsec``, minimizing the sum of Gaussian negative log-likelihoods.

    Solar-system objects get that radius plus the error of their ephemeris, and take their sources first.
    """
    everyone = np.arange(sources.size, dtype=np.int64)
    ephemeris_index = _match_ephemerides(sources, ephemerides, visit_info, config)
    rest = everyone[ephemeris_index < 0]
    history_index = np.full(sources.size, -1, np.int64)
    history_index[rest] = _match_objects(sources[rest], dia_objects, config)
    is_bad = sources["reliability"] < config.new_object_min_reliability
    for flag in config.new_object_bad_flags:
        is_bad |= sources[flag] == 1
    is_new = (ephemeris_index < 0) & (history_index < 0) & ~is_bad
    return Association(history_index=history_index, ephemeris_index=ephemeris_index, is_new=is_new)


def drop_orphans(sources: Catalog, association: Association) -> tuple[Catalog, Association]:
    """Leave out sources that match nothing and may not begin an object: an alert needs one or the other."""
    keep = (association.history_index >= 0) | (association.ephemeris_index >= 0) | association.is_new
    return take_rows(sources, keep), Association(
        history_index=association.history_index[keep],
        ephemeris_index=association.ephemeris_index[keep],
        is_new=association.is_new[keep],
    )


def new_object_claims(sources: Catalog, association: Association, config: AssociateConfig) -> Claims:
    """The new objects of this visit, in the order of the sources."""
    rows = np.flatnonzero(association.is_new).astype(np.int64)
    leader = np.arange(rows.size)
    if rows.size > 1:
        points = _unit_vectors(sources["ra"][rows], sources["dec"][rows])
        pairs = cKDTree(points).query_pairs(config.radius_arcsec * _ARCSEC, output_type="ndarray")
        is_taken = np.zeros(rows.size, bool)
        order = np.argsort(-sources["snr"][rows], kind="stable")
        rank = np.argsort(order, kind="stable")
        for first in order[np.isin(order, pairs)]:
            if is_taken[first]:
                continue
            is_taken[first] = True
            near = np.concatenate([pairs[pairs[:, 0] == first, 1], pairs[pairs[:, 1] == first, 0]])
            near = near[~is_taken[near] & (rank[near] > rank[first])]
            leader[near], is_taken[near] = first, True
    leads = np.flatnonzero(leader == np.arange(rows.size))
    follows = np.flatnonzero(leader != np.arange(rows.size))
    claimed = rows[leads]
    return Claims(
        row=claimed,
        ra=sources["ra"][claimed],
        dec=sources["dec"][claimed],
        proposed_id=sources["diaSourceId"][claimed],
        follower_row=rows[follows],
        follower_claim=np.searchsorted(leads, leader[follows]),
    )


def apply_claims(
    sources: Catalog,
    association: Association,
    dia_objects: Catalog,
    ephemerides: Catalog,
    claims: Claims,
    answered_id: Int64,
) -> Catalog:
    """Copy of the sources with ``diaObjectId`` and ``ssObjectId`` set, null where they belong to nothing.

    ``answered_id`` (m,) is what the registry said for each claim; the proposed ids where it could not be asked.
    """
    out = sources.copy()
    ids = np.full(sources.size, NULL_LONG, np.int64)
    known = association.history_index >= 0
    ids[known] = dia_objects["diaObjectId"][association.history_index[known]]
    ids[claims.row] = answered_id
    ids[claims.follower_row] = answered_id[claims.follower_claim]
    out["diaObjectId"] = ids
    out["ssObjectId"] = ids_of(ephemerides, association.ephemeris_index)
    return out


def _match_ephemerides(sources: Catalog, ephemerides: Catalog, visit_info: VisitInfo, config: AssociateConfig) -> Int64:
    index = np.full(sources.size, -1, np.int64)
    if sources.size == 0 or ephemerides.size == 0:
        return index
    prediction = predict(ephemerides, visit_info.midpoint_mjd_tai)
    usable = np.flatnonzero(prediction.is_valid & np.isfinite(prediction.ra))
    if usable.size == 0:
        return index
    error = np.nan_to_num(ephemerides["errorArcsec"][usable].astype(np.float64))
    variance = np.maximum(error, config.sigma_floor_arcsec) ** 2
    found = _match(
        sources, prediction.ra[usable], prediction.dec[usable], variance, variance, config.radius_arcsec + error, config
    )
    index[found >= 0] = usable[found[found >= 0]]
    return index


def _match_objects(sources: Catalog, objects: Catalog, config: AssociateConfig) -> Int64:
    if sources.size == 0 or objects.size == 0:
        return np.full(sources.size, -1, np.int64)
    radius = np.full(objects.size, config.radius_arcsec)
    return _match(
        sources, objects["ra"], objects["dec"], _variance(objects["raErr"], config),
        _variance(objects["decErr"], config), radius, config,
    )  # fmt: skip


def _variance(error_deg: NDArray[np.float32], config: AssociateConfig) -> Float64:
    """[arcsec**2] of one axis."""
    error = error_deg.astype(np.float64) * 3600
    return np.asarray(np.where(np.isfinite(error), error, config.sigma_unknown_arcsec) ** 2, np.float64)


def _match(
    sources: Catalog,
    ra: Float64,
    dec: Float64,
    variance_ra: Float64,
    variance_dec: Float64,
    radius_arcsec: Float64,
    config: AssociateConfig,
) -> Int64:
    """Row of the target matched to each source, -1 none; the best one-to-one assignment of all."""
    tree = cKDTree(_unit_vectors(sources["ra"], sources["dec"]))
    near = tree.query_ball_point(_unit_vectors(ra, dec), radius_arcsec * _ARCSEC)
    counts = np.fromiter((len(n) for n in near), np.int64, count=ra.size)
    target = np.repeat(np.arange(ra.size), counts)
    row = np.fromiter((i for n in near for i in n), np.int64, count=int(counts.sum()))
    index = np.full(sources.size, -1, np.int64)
    if row.size == 0:
        return index
    north = (sources["dec"][row] - dec[target]) * 3600
    east = ((sources["ra"][row] - ra[target] + 180) % 360 - 180) * 3600 * np.cos(np.radians(dec[target]))
    floor = config.sigma_floor_arcsec**2
    v_east = _variance(sources["raErr"][row], config) + variance_ra[target] + floor
    v_north = _variance(sources["decErr"][row], config) + variance_dec[target] + floor
    cost = 0.5 * (east**2 / v_east + north**2 / v_north) + 0.5 * np.log(v_east * v_north)
    matched_row, matched_target = _assign(row, target, cost)
    index[matched_row] = matched_target
    return index


def _assign(row: Int64, target: Int64, cost: Float64) -> tuple[Int64, Int64]:
    """Cheapest assignment; every row has a private way out that costs as much as two of the dearest pairs."""
    rows, r = np.unique(row, return_inverse=True)
    targets, t = np.unique(target, return_inverse=True)
    # weights must be positive: the solver takes zero as no edge
    weight = cost - cost.min() + 1.0
    way_out = np.full(rows.size, 2 * weight.max())
    ghosts = np.arange(rows.size)
    matrix = coo_array(
        (np.concatenate([weight, way_out]), (np.concatenate([r, ghosts]), np.concatenate([t, targets.size + ghosts]))),
        shape=(rows.size, targets.size + rows.size),
    )
    chosen_row, chosen_column = min_weight_full_bipartite_matching(matrix.tocsr())
    real = chosen_column < targets.size
    return rows[chosen_row[real]], targets[chosen_column[real]]


def _unit_vectors(ra_deg: Float64, dec_deg: Float64) -> Float64:
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)
