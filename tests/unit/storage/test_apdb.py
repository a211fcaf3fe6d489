"""The APDB keeps what it is given, once."""

from pathlib import Path

import numpy as np
import pytest
from lsst.dax.apdb.sql import ApdbSql

from core.contracts.catalogs import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, NULL_LONG, Catalog
from core.errors import ConfigurationError
from service.storage.apdb import ApdbStore
from tests.support.apdb import make_apdb
from tests.unit.alerts.records import random_catalog

MJD = 61000.0


@pytest.fixture
def apdb(tmp_path: Path) -> ApdbStore:
    return make_apdb(tmp_path)


def make_visit(visit: int, mjd: float, n: int, seed: int = 1) -> tuple[Catalog, Catalog, Catalog]:
    """Objects 1..n near (10, 0) with a source and a forced source each."""
    tables = []
    for table, dtype, first in (
        ("diaObject", DIA_OBJECT, 0),
        ("diaSource", DIA_SOURCE, 1000),
        ("diaForcedSource", DIA_FORCED_SOURCE, 2000),
    ):
        rows = random_catalog(table, dtype, n, seed)
        rows["diaObjectId"] = 1 + np.arange(n)
        rows["ra"], rows["dec"] = 10 + 0.001 * np.arange(n), 0.002
        if table == "diaObject":
            rows["validityStartMjdTai"] = mjd
        else:
            rows[f"{table}Id"] = first * visit + np.arange(n)
            rows["visit"], rows["detector"], rows["midpointMjdTai"] = visit, 3, mjd
        for name in rows.dtype.names or ():
            # What a database of doubles and text can hold.
            if rows[name].dtype.kind == "f":
                rows[name] = np.where(np.abs(rows[name]) > 1e30, 1.5, rows[name])
        tables.append(rows)
    return tables[0], tables[1], tables[2]


def assert_equal(found: Catalog, expected: Catalog) -> None:
    for name in expected.dtype.names or ():
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_history_comes_back_as_it_was_stored(apdb: ApdbStore) -> None:
    objects, sources, forced = make_visit(1, MJD, n=20)
    sources["diaObjectId"][3] = NULL_LONG
    assert apdb.store(1, 3, MJD, objects, sources, forced)
    history = apdb.read_region(10.0, 0.0, 0.1, MJD + 1)
    assert_equal(history.dia_objects, objects)
    assert_equal(history.dia_sources, sources[np.lexsort((sources["midpointMjdTai"], sources["diaObjectId"]))])
    assert_equal(history.dia_forced_sources, forced)


def test_a_repeat_is_no_change(apdb: ApdbStore) -> None:
    tables = make_visit(1, MJD, n=5)
    assert apdb.store(1, 3, MJD, *tables)
    assert not apdb.store(1, 3, MJD, *tables)
    assert apdb.read_region(10.0, 0.0, 0.1, MJD + 1).dia_sources.size == 5


@pytest.mark.parametrize("reopened", [False, True])
def test_a_late_older_visit_leaves_newer_objects_alone(apdb: ApdbStore, tmp_path: Path, reopened: bool) -> None:
    newer, older = make_visit(2, MJD, n=4, seed=2), make_visit(1, MJD - 1, n=6, seed=3)
    apdb.store(2, 3, MJD, *newer)
    if reopened:
        apdb = ApdbStore(str(tmp_path / "config.yaml"))
    apdb.store(1, 3, MJD - 1, *older)
    history = apdb.read_region(10.0, 0.0, 0.1, MJD + 1)
    assert history.dia_objects["validityStartMjdTai"].tolist() == [MJD] * 4 + [MJD - 1] * 2
    assert history.dia_sources.size == 10
    third = make_visit(3, MJD + 1, n=6, seed=4)
    apdb.store(3, 3, MJD + 1, *third)
    assert_equal(apdb.read_region(10.0, 0.0, 0.1, MJD + 2).dia_objects, third[0])


def test_two_detectors_of_a_visit_may_touch_one_object(apdb: ApdbStore) -> None:
    objects, sources, forced = make_visit(1, MJD, n=3)
    apdb.store(1, 3, MJD, objects, sources, forced)
    for rows, key in ((sources, "diaSourceId"), (forced, "diaForcedSourceId")):
        rows["detector"] = 4
        rows[key] += 100
    assert apdb.store(1, 4, MJD, objects, sources, forced[:0])
    assert apdb.read_region(10.0, 0.0, 0.1, MJD + 1).dia_sources.size == 6


def test_three_detectors_of_a_visit_may_touch_one_object_over_a_restart(apdb: ApdbStore, tmp_path: Path) -> None:
    """The database refuses a second version of an object with the same start."""
    for detector in (3, 4, 5):
        objects, sources, forced = make_visit(1, MJD, n=3)
        sources["detector"] = detector
        sources["diaSourceId"] += 100 * detector
        assert apdb.store(1, detector, MJD, objects, sources, forced[:0])
        if detector == 3:
            apdb = ApdbStore(str(tmp_path / "config.yaml"))
    assert apdb.read_region(10.0, 0.0, 0.1, MJD + 1).dia_sources.size == 9


def test_history_is_a_year_and_a_region(apdb: ApdbStore) -> None:
    apdb.store(1, 3, MJD - 364, *make_visit(1, MJD - 364, n=2))
    apdb.store(2, 3, MJD - 366, *make_visit(2, MJD - 366, n=2))
    history = apdb.read_region(10.0, 0.0, 0.1, MJD)
    assert set(history.dia_sources["visit"]) == {1}
    assert apdb.read_region(60.0, 0.0, 0.1, MJD).dia_objects.size == 0


def test_an_empty_visit_is_nothing_to_store(apdb: ApdbStore) -> None:
    tables = make_visit(1, MJD, n=0)
    assert apdb.store(1, 3, MJD, *tables)


def test_no_apdb_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        ApdbStore(str(tmp_path / "nowhere.yaml"))


def test_statements_of_earlier_visits_are_not_kept(apdb: ApdbStore) -> None:
    for visit in range(1, 6):
        apdb.store(visit, 3, MJD + visit, *make_visit(visit, MJD + visit, 4 + visit))
    assert isinstance(apdb._apdb, ApdbSql)
    assert len(apdb._apdb._engine._compiled_cache) == 0
    rows = apdb.read_region(10.0, 0.0, 0.2, MJD + 10)
    assert rows.dia_sources.size == 35
