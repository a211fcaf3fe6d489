"""Plain queries give what ``lsst-dax-apdb`` gives, on SQLite and on a real PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from lsst.dax.apdb.sql import ApdbSql

from core.contracts.bundle import History
from core.contracts.catalogs import NULL_LONG
from core.errors import ConfigurationError, TransientError
from service.storage import apdb_rows
from service.storage.apdb import ApdbStore, create_apdb
from service.storage.apdb_rows import SqlRegions
from tests.support.apdb import make_apdb
from tests.support.postgres import PostgresServer
from tests.unit.storage.test_apdb import MJD, assert_equal, make_visit

PLACES = [(10.0, 0.0, 0.1), (10.5, 0.0, 0.2), (200.0, 40.0, 0.1)]


@pytest.fixture(params=["sqlite", "last_object_table", "postgresql"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Configuration file of an empty APDB."""
    path = tmp_path / "config.yaml"
    if request.param == "sqlite":
        make_apdb(tmp_path)
        yield str(path)
    elif request.param == "last_object_table":
        ApdbSql.init_database(
            f"sqlite:///{tmp_path}/last.sqlite", dia_object_index="last_object_table", prefix="T_"
        ).save(path)
        yield str(path)
    else:
        with PostgresServer(tmp_path / "pg") as server:
            create_apdb(server.url, path)
            yield str(path)


def assert_same(found: History, expected: History) -> None:
    assert_equal(found.dia_objects, expected.dia_objects)
    # rows of one object and time come in no order
    for table, key in (("dia_sources", "diaSourceId"), ("dia_forced_sources", "diaForcedSourceId")):
        ours, theirs = getattr(found, table), getattr(expected, table)
        assert_equal(ours[np.argsort(ours[key])], theirs[np.argsort(theirs[key])])


def test_plain_queries_give_what_the_package_gives(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apdb_rows, "_IDS", 100)
    monkeypatch.setattr(apdb_rows, "_ROWS", 70)
    store = ApdbStore(config)
    regions = SqlRegions.open(config)
    assert regions is not None
    assert_same(regions.read_region(*PLACES[0], MJD), store.read_region(*PLACES[0], MJD))
    for visit, days in ((1, -400.0), (2, -364.0), (3, -1.0), (4, -2.0)):
        objects, sources, forced = make_visit(visit, MJD + days, n=240, seed=visit)
        sources["diaObjectId"][:3] = NULL_LONG
        sources["ssObjectId"][5:9] = NULL_LONG
        sources["detector"] = forced["detector"] = 3
        sources["diaSourceId"] = forced["diaForcedSourceId"] = 10_000 * visit + np.arange(240)
        store.store(visit, 3, MJD + days, objects, sources, forced)
    for place in PLACES:
        found, expected = regions.read_region(*place, MJD), store.read_region(*place, MJD)
        assert_same(found, expected)
    assert regions.read_region(*PLACES[0], MJD).dia_forced_sources.size > 100


def test_what_is_no_sql_database_is_left_to_the_package(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    assert SqlRegions.open(str(path)) is None
    for text in (
        "implementation_type: cassandra\n",
        "db_url: sqlite:///file.sqlite\nimplementation_type: sql\n",
        "db_url: mysql://host/name\nimplementation_type: sql\n",
        "db_url: sqlite:///file%3Ax?mode=rw&uri=true\nimplementation_type: sql\nconnection_config: {timeout: 3}\n",
    ):
        path.write_text(text)
        assert SqlRegions.open(str(path)) is None


def test_a_database_that_is_not_there_or_goes_away(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"db_url: sqlite:///file%3A{tmp_path}/none.sqlite?mode=rw&uri=true\nimplementation_type: sql\n")
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        SqlRegions.open(str(path))
    assert not (tmp_path / "none.sqlite").exists()
    with PostgresServer(tmp_path / "pg") as server:
        create_apdb(server.url, path)
        regions = SqlRegions.open(str(path))
        assert regions is not None
        server.kill()
        with pytest.raises(TransientError):
            regions.read_region(*PLACES[0], MJD)
        with pytest.raises(TransientError):
            SqlRegions.open(str(path))
