"""Association with known partners, and what claims make of the rest."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from core.contracts.catalogs import (
    DIA_OBJECT,
    DIA_SOURCE,
    EPHEMERIS,
    NULL_LONG,
    Catalog,
    empty_catalog,
)
from core.stages.associate import (
    AssociateConfig,
    apply_claims,
    associate,
    drop_orphans,
    new_object_claims,
)
from tests.support.sky_scene import VISIT

CONFIG = AssociateConfig()
ARCSEC = 1 / 3600
RA, DEC = 150.0, -30.0
COS = np.cos(np.radians(DEC))


def objects_of(east: list[float], north: list[float]) -> Catalog:
    objects = empty_catalog(DIA_OBJECT, len(east))
    objects["diaObjectId"] = 1000 + np.arange(len(east))
    objects["ra"] = RA + np.array(east) * ARCSEC / COS
    objects["dec"] = DEC + np.array(north) * ARCSEC
    objects["raErr"] = objects["decErr"] = 0.02 * ARCSEC
    return objects


def sources_at(east: list[float], north: list[float], error_arcsec: float = 0.05) -> Catalog:
    rows = empty_catalog(DIA_SOURCE, len(east))
    rows["diaSourceId"] = 1 + np.arange(len(east))
    rows["ra"] = RA + np.array(east) * ARCSEC / COS
    rows["dec"] = DEC + np.array(north) * ARCSEC
    rows["raErr"] = rows["decErr"] = error_arcsec * ARCSEC
    rows["snr"] = 10.0 + np.arange(len(east))
    return rows


def no_ephemerides() -> Catalog:
    return np.zeros(0, EPHEMERIS)


def mover(east: float, north: float, error_arcsec: float = 0.3) -> Catalog:
    row = np.zeros(1, EPHEMERIS)
    row["ssObjectId"], row["designation"] = 77, "2026 AB1"
    row["startMjdTai"], row["endMjdTai"] = VISIT.midpoint_mjd_tai - 1, VISIT.midpoint_mjd_tai + 1
    ra, dec = np.radians(RA + east * ARCSEC / COS), np.radians(DEC + north * ARCSEC)
    row["object"][0, :, 0] = 2.5 * np.array([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
    row["object"][0, :, 1] = 1e-3
    row["observer"][0, :, 0] = [0.3, 0.9, 0.1]
    row["object"][0, :, 0] += row["observer"][0, :, 0]
    row["errorArcsec"] = error_arcsec
    return row


def test_each_source_finds_its_object() -> None:
    random = np.random.default_rng(2)
    east, north = random.uniform(-300, 300, (2, 200))
    shuffled = random.permutation(200)
    objects = objects_of(list(east), list(north))
    sources = sources_at(
        list(east[shuffled] + random.normal(0, 0.05, 200)), list(north[shuffled] + random.normal(0, 0.05, 200))
    )
    found = associate(sources, objects, no_ephemerides(), VISIT, CONFIG)
    np.testing.assert_array_equal(found.history_index, shuffled)
    assert not found.is_new.any()


def test_beyond_the_radius_is_new() -> None:
    found = associate(
        sources_at([0.9, 31.2], [0.0, 0.0]), objects_of([0.0, 30.0], [0.0, 0.0]), no_ephemerides(), VISIT, CONFIG
    )
    assert found.history_index.tolist() == [0, -1]
    assert found.is_new.tolist() == [False, True]


def test_conflicts_take_the_best_sum_one_to_one() -> None:
    # two sources nearest to the same object: greedy would give the second nothing
    objects = objects_of([0.0, 0.7], [0.0, 0.0])
    found = associate(sources_at([0.1, -0.5], [0.0, 0.0]), objects, no_ephemerides(), VISIT, CONFIG)
    assert found.history_index.tolist() == [1, 0]


def test_crowded_matching_equals_the_dense_optimum() -> None:
    random = np.random.default_rng(9)
    objects, points = random.uniform(0, 6, (2, 40)), random.uniform(0, 6, (2, 40))
    found = associate(sources_at(*map(list, points)), objects_of(*map(list, objects)), no_ephemerides(), VISIT, CONFIG)
    east = points[0][:, None] - objects[0]
    north = points[1][:, None] - objects[1]
    variance = 0.05**2 + 0.02**2 + 0.05**2
    allowed = np.hypot(east, north) <= 1
    cost = (east**2 + north**2) / (2 * variance)
    cost += 1 - cost[allowed].min()
    way_out = np.where(np.eye(40) > 0, 2 * cost[allowed].max(), 1e9)
    dense = np.hstack([np.where(allowed, cost, 1e9), way_out])
    rows, columns = linear_sum_assignment(dense)
    chosen = np.where(found.history_index >= 0, found.history_index, 40 + np.arange(40))
    assert dense[np.arange(40), chosen].sum() == pytest.approx(dense[rows, columns].sum(), rel=1e-6)
    matched = found.history_index[found.history_index >= 0]
    assert np.unique(matched).size == matched.size > 25


def test_solar_system_comes_first_with_the_error_of_its_ephemeris() -> None:
    objects = objects_of([0.0], [0.0])
    sources = sources_at([0.05, 60.0], [0.0, 0.0])
    found = associate(sources, objects, mover(1.2, 0.0), VISIT, CONFIG)
    assert found.ephemeris_index.tolist() == [0, -1]
    assert found.history_index.tolist() == [-1, -1]
    assert found.is_new.tolist() == [False, True]
    late = mover(0.0, 0.0)
    late["endMjdTai"] = VISIT.midpoint_mjd_tai - 0.5
    assert associate(sources, objects, late, VISIT, CONFIG).ephemeris_index.tolist() == [-1, -1]


def test_flagged_sources_make_no_object_and_are_dropped_unless_they_match_one() -> None:
    sources = sources_at([0.0, 30.0, 60.0], [0.0, 0.0, 0.0])
    sources["pixelFlags_crCenter"][1:] = 1
    found = associate(sources, objects_of([60.0], [0.0]), no_ephemerides(), VISIT, CONFIG)
    assert found.is_new.tolist() == [True, False, False]
    assert found.history_index.tolist() == [-1, -1, 0]
    kept, association = drop_orphans(sources, found)
    assert kept["diaSourceId"].tolist() == sources["diaSourceId"][[0, 2]].tolist()
    assert association.history_index.tolist() == [-1, 0]


def test_unreliable_sources_make_no_object_where_that_is_asked() -> None:
    sources = sources_at([0.0, 30.0, 60.0, 90.0], [0.0] * 4)
    sources["reliability"] = [0.9, 0.1, 0.1, np.nan]
    objects = objects_of([60.0], [0.0])
    strict = replace(CONFIG, new_object_min_reliability=0.5)
    assert associate(sources, objects, no_ephemerides(), VISIT, CONFIG).is_new.tolist() == [True, True, False, True]
    found = associate(sources, objects, no_ephemerides(), VISIT, strict)
    assert found.is_new.tolist() == [True, False, False, True]
    assert found.history_index.tolist() == [-1, -1, 0, -1]


def test_claims_propose_ids_and_take_the_answers() -> None:
    sources = sources_at([0.0, 30.0, 60.0, 30.6, 90.0], [0.0] * 5)
    objects = objects_of([0.1], [0.0])
    ephemerides = mover(90.0, 0.2)
    found = associate(sources, objects, ephemerides, VISIT, CONFIG)
    claims = new_object_claims(sources, found, CONFIG)
    # rows 1 and 3 are 0.6 arcsec apart: one object, claimed by the brighter
    assert claims.row.tolist() == [2, 3]
    assert claims.proposed_id.tolist() == [3, 4]
    assert claims.follower_row.tolist() == [1]
    assert claims.follower_claim.tolist() == [1]
    out = apply_claims(sources, found, objects, ephemerides, claims, np.array([555, 4]))
    assert out["diaObjectId"].tolist() == [1000, 4, 555, 4, NULL_LONG]
    assert out["ssObjectId"].tolist() == [NULL_LONG] * 4 + [77]
    assert (sources["diaObjectId"] == NULL_LONG).all()


def test_nothing_to_match() -> None:
    empty = associate(sources_at([], []), objects_of([0.0], [0.0]), mover(0, 0), VISIT, CONFIG)
    assert empty.is_new.size == 0
    claims = new_object_claims(sources_at([], []), empty, CONFIG)
    assert claims.row.size == 0
