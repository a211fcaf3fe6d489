"""History and claims on a real Valkey, with a real APDB behind."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from core.camera import load_camera
from core.contracts.bundle import History, PartSource
from core.contracts.catalogs import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, empty_catalog
from core.contracts.wcs import separation_arcsec
from core.errors import ConfigurationError, TransientError
from core.timescales import unix_utc_to_tai
from service import topics
from service.embedded import EmbeddedValkey, log_settings
from service.log import Log, Record, open_log
from service.metrics import Metrics
from service.records import pack
from service.roles.archive import APDB, HISTORY, HistorySink
from service.storage.apdb import ApdbStore
from service.storage.cache import connect
from service.storage.claims import Claims
from service.storage.footprint import detector_corners
from service.storage.history import MAX_TAIL, PRUNE_AFTER_S, REFRESH_S, HistoryStore
from service.storage.sky_pixels import HISTORY_ORDER, cells_of, cone_cells
from tests.contract.stores_support import DEC, KEY, MJD, RA, cache_url, valkey
from tests.support.apdb import make_apdb
from tests.support.log_harness import read_until
from tests.support.service.builders import result
from tests.support.service.fakes import FakeClock

__all__ = ["cache_url", "valkey"]

CAMERA = load_camera("testcam")
N_RESULTS = 8


class Results(NamedTuple):
    """A log with results, their rows and times."""

    log: Log
    rows: list[History]
    times_ms: list[int]


class Clock:
    """A clock that stands still."""

    now_s = 1e9

    def __call__(self) -> float:
        return self.now_s


def make_rows(visit: int, mjd: float, n: int = 40, seed: int = 0) -> History:
    """Objects spread over the detector and around it, each with a source and a forced source of the visit."""
    rng = np.random.default_rng(seed)
    corners = detector_corners(CAMERA, 0, RA, DEC, 25.0)
    ra, dec = corners.mean(axis=0)
    position = np.stack([ra + rng.uniform(-0.05, 0.05, n), dec + rng.uniform(-0.05, 0.05, n)])
    tables = [empty_catalog(dtype, n) for dtype in (DIA_OBJECT, DIA_SOURCE, DIA_FORCED_SOURCE)]
    for table in tables:
        table["diaObjectId"] = 1 + np.arange(n)
        table["ra"], table["dec"] = position
    tables[0]["validityStartMjdTai"] = mjd
    for table, name, first in ((tables[1], "diaSourceId", 1000), (tables[2], "diaForcedSourceId", 2000)):
        table[name] = first * visit + np.arange(n)
        table["visit"], table["midpointMjdTai"], table["psfFlux"] = visit, mjd, rng.normal(size=n)
    return History(dia_objects=tables[0], dia_sources=tables[1], dia_forced_sources=tables[2])


@pytest.fixture
def client(cache_url: str) -> Iterator[Any]:
    """As the service opens it."""
    with connect(cache_url, 1.0) as opened:
        yield opened


@pytest.fixture
def apdb(tmp_path: Path) -> ApdbStore:
    return make_apdb(tmp_path)


def store(apdb: ApdbStore, visit: int, mjd: float, rows: History) -> None:
    apdb.store(visit, 0, mjd, rows.dia_objects, rows.dia_sources, rows.dia_forced_sources)


def near_detector(rows: History) -> set[int]:
    """diaObjectIds of sources within the detector's inscribed circle."""
    corners = detector_corners(CAMERA, 0, RA, DEC, 25.0)
    distance = separation_arcsec(rows.dia_sources["ra"], rows.dia_sources["dec"], *corners.mean(axis=0))
    return set(rows.dia_sources["diaObjectId"][distance < 50])


def test_bases_come_from_the_apdb_once(client: Any, apdb: ApdbStore) -> None:
    rows = make_rows(1, MJD - 10)
    store(apdb, 1, MJD - 10, rows)
    history = HistoryStore(client, apdb, CAMERA, Clock())
    cold, source = history.load(KEY)
    assert source is PartSource.COLD
    assert near_detector(rows) <= set(cold.dia_objects["diaObjectId"])
    assert near_detector(rows)
    again, source = HistoryStore(client, None, CAMERA, Clock()).load(KEY)
    assert source is PartSource.REDIS
    for name in ("dia_objects", "dia_sources", "dia_forced_sources"):
        assert getattr(again, name).tobytes() == getattr(cold, name).tobytes()
    assert min(client.ttl(key) for key in client.keys("sub60:history:base:*")) > 0


def test_the_tail_is_what_was_appended_once(client: Any) -> None:
    history = HistoryStore(client, None, CAMERA, Clock())
    rows = make_rows(2, MJD - 1)
    for _ in range(2):
        history.append(2, 0, rows)
    cells = history.cells(KEY)
    tail = history.read_tail(cells)
    expected = np.isin(cells_of(rows.dia_sources["ra"], rows.dia_sources["dec"], HISTORY_ORDER), cells)
    assert expected.sum() > 0
    assert tail.dia_sources.tobytes() == rows.dia_sources[expected].tobytes()
    assert tail.dia_objects.tobytes() == rows.dia_objects[expected].tobytes()
    assert {client.ttl(key) for key in client.keys("sub60:history:tail:*")} == {-1}


def test_a_new_base_prunes_only_what_it_holds_and_what_is_old(client: Any, apdb: ApdbStore) -> None:
    clock = Clock()
    history = HistoryStore(client, apdb, CAMERA, clock)
    stored, waiting = make_rows(1, MJD - 2), make_rows(2, MJD - 1, seed=1)
    store(apdb, 1, MJD - 2, stored)
    history.append(1, 0, stored)
    history.append(2, 0, waiting)
    history.load(KEY)
    assert set(history.read_tail(history.cells(KEY)).dia_sources["visit"]) == {1, 2}
    forget_bases(client)
    clock.now_s += PRUNE_AFTER_S + 1
    base, _ = history.load(KEY)
    assert set(history.read_tail(history.cells(KEY)).dia_sources["visit"]) == {2}
    assert set(base.dia_sources["visit"]) == {1}
    assert client.keys("sub60:history:held:*") == []


def test_what_the_apdb_got_late_stays_for_those_with_an_older_base(client: Any, apdb: ApdbStore) -> None:
    """A worker that loaded its base just before must still find the entry, however old it is."""
    clock = Clock()
    history = HistoryStore(client, apdb, CAMERA, clock)
    rows = make_rows(1, MJD - 2)
    history.append(1, 0, rows)
    clock.now_s += 10 * PRUNE_AFTER_S
    older, _ = history.load(KEY)
    assert older.dia_sources.size == 0
    store(apdb, 1, MJD - 2, rows)
    forget_bases(client)
    history.load(KEY)
    assert set(history.read_tail(history.cells(KEY)).dia_sources["visit"]) == {1}
    forget_bases(client)
    clock.now_s += PRUNE_AFTER_S + 1
    history.load(KEY)
    assert history.read_tail(history.cells(KEY)).dia_sources.size == 0


def test_a_tail_that_outgrows_its_base_has_it_read_anew(client: Any, apdb: ApdbStore) -> None:
    clock = Clock()
    history = HistoryStore(client, apdb, CAMERA, clock)
    history.load(KEY)
    for visit in range(1, MAX_TAIL + 2):
        rows = make_rows(visit, MJD - 1, seed=1)
        history.append(visit, 0, rows)
        if visit % 10 == 0:
            store(apdb, visit, MJD - 1 + 0.001 * visit, rows)
    assert history.load(KEY)[1] is PartSource.REDIS  # the base is young
    clock.now_s += REFRESH_S + 1
    loaded, source = history.load(KEY)
    assert source is PartSource.COLD
    assert set(loaded.dia_sources["visit"]) == {10, 20, 30}
    clock.now_s += PRUNE_AFTER_S + 1
    history.load(KEY)
    left = set(history.read_tail(history.cells(KEY)).dia_sources["visit"])
    assert left == set(range(1, MAX_TAIL + 2)) - {10, 20, 30}


def test_a_base_that_cannot_be_read_anew_serves_on(client: Any, apdb: ApdbStore) -> None:
    class Away:
        def read_region(self, *_: float) -> History:
            raise TransientError("away", code="apdb_unavailable")

    clock = Clock()
    HistoryStore(client, apdb, CAMERA, clock).load(KEY)
    history = HistoryStore(client, Away(), CAMERA, clock)
    for visit in range(1, MAX_TAIL + 2):
        history.append(visit, 0, make_rows(visit, MJD - 1, seed=1))
    clock.now_s += REFRESH_S + 1
    assert history.load(KEY)[1] is PartSource.REDIS


@pytest.mark.parametrize("spoil", ["flip", "cut", "columns", "text"])
def test_spoiled_tail_entries_are_left_out(client: Any, spoil: str) -> None:
    history = HistoryStore(client, None, CAMERA, Clock())
    for visit in (1, 2):
        history.append(visit, 0, make_rows(visit, MJD - 1))
    for key in client.keys("sub60:history:tail:*"):
        value = bytearray(client.hget(key, "1:0"))
        if spoil == "flip":
            value[len(value) // 2] ^= 0xFF
        number, added_s, (columns, checksum, parts) = msgpack.unpackb(
            bytes(value) if spoil != "flip" else client.hget(key, "2:0")
        )
        changed = {
            "flip": bytes(value),
            "cut": msgpack.packb((number, added_s, (columns, checksum, [part[:-1] for part in parts]))),
            "columns": msgpack.packb((number, added_s, ("other", checksum, parts))),
            "text": b"2",
        }[spoil]
        client.hset(key, "1:0", changed)
    assert set(history.read_tail(history.cells(KEY)).dia_sources["visit"]) == {2}


def test_a_warmed_sky_is_not_read_again(client: Any, apdb: ApdbStore) -> None:
    store(apdb, 1, MJD - 10, make_rows(1, MJD - 10))
    history = HistoryStore(client, apdb, CAMERA, Clock())
    cells = cone_cells(RA, DEC, 0.1, HISTORY_ORDER)
    counted: list[int] = []
    assert history.warm(cells, MJD, 500, counted.append) > 0
    assert sum(counted) == len(cells)
    loaded, source = HistoryStore(client, None, CAMERA, Clock()).load(KEY)
    assert source is PartSource.REDIS
    assert loaded.dia_sources.size > 0
    assert {client.ttl(key) <= 500 for key in client.keys("sub60:history:base:*")} == {True}
    assert history.warm(cells, MJD, 500, counted.append) == 0
    with pytest.raises(ConfigurationError):
        HistoryStore(None, apdb, CAMERA, Clock()).warm(cells, MJD, 500, counted.append)


def forget_bases(client: Any) -> None:
    """As their time to live does."""
    for key in client.keys("sub60:history:base:*"):
        client.delete(key)


def test_the_sentinel_tells_a_flush(client: Any) -> None:
    history = HistoryStore(client, None, CAMERA, Clock())
    assert not history.is_marked()
    history.mark()
    assert history.is_marked()
    client.flushall()
    assert not history.is_marked()


@pytest.fixture(scope="module")
def results(short_folder: Path) -> Iterator[Results]:
    """Eight results of one field on a log of two partitions, at times of their own."""
    with (
        EmbeddedValkey(short_folder / "results", log_settings(64)) as server,
        open_log(server.url) as log,
        closing(log.producer()) as producer,
    ):
        log.ensure_topics({topics.RESULTS: 2})
        rows = [make_rows(visit, MJD - 10 + visit) for visit in range(1, N_RESULTS + 1)]
        for i, part in enumerate(rows):
            value = pack(result(i + 1, part, MJD - 9 + i))
            producer.append([Record(topics.RESULTS, key=b"", value=value, partition=i % 2)])
            time.sleep(0.003)
        with closing(log.reader(topics.RESULTS)) as reader:
            times = sorted(m.timestamp_ms for m in read_until(reader, N_RESULTS))
        assert len(set(times)) == N_RESULTS
        yield Results(log, rows, times)


@pytest.mark.parametrize("n_old", [0, 3, N_RESULTS])
@pytest.mark.parametrize("n_written", [0, 1, 5, N_RESULTS])
def test_after_a_flush_base_and_tail_hold_every_row(
    client: Any, apdb: ApdbStore, results: Results, n_written: int, n_old: int
) -> None:
    """The APDB holds the first ``n_written``; the first ``n_old`` are older than any base that a worker holds."""
    with closing(results.log.reader(topics.RESULTS, name=APDB)) as written:
        written.commit({0: (n_written + 1) // 2, 1: n_written // 2})
    for i, rows in enumerate(results.rows[:n_written]):
        store(apdb, i + 1, MJD - 9 + i, rows)
    cut_ms = [*results.times_ms, results.times_ms[-1] + 1][n_old]
    clock = FakeClock(unix_utc_to_tai((cut_ms + 0.5) / 1000 + PRUNE_AFTER_S))
    with closing(results.log.reader(topics.RESULTS, name=HISTORY)) as done:
        done.commit(ends := {p: end for p, (_, end) in done.bounds().items()})
        client.flushall()
        filled = HistoryStore(client, None, CAMERA, clock.tai_s)
        sink = HistorySink(results.log, filled, clock, Metrics(CollectorRegistry()), has_apdb=True)
        sink.turn()
        while done.committed() != ends:
            sink.turn()
    fresh = HistoryStore(client, apdb, CAMERA, clock.tai_s)
    cells = fresh.cells(KEY)
    base, tail = fresh.load(KEY)[0], fresh.read_tail(cells)
    for name, column in (("dia_sources", "diaSourceId"), ("dia_forced_sources", "diaForcedSourceId")):
        expected = [_ids(getattr(rows, name), column, cells) for rows in results.rows]
        assert all(expected)
        in_tail = set(getattr(tail, name)[column])
        assert set(getattr(base, name)[column]) & set().union(*expected) == set().union(*expected[:n_written])
        assert in_tail | set(getattr(base, name)[column]) >= set().union(*expected)
        # also with a base of 15 minutes ago, and no more than that
        assert in_tail == set().union(*expected[min(n_written, n_old) :])
    assert set(base.dia_objects["diaObjectId"]) | set(tail.dia_objects["diaObjectId"]) >= set().union(
        *(_ids(rows.dia_objects, "diaObjectId", cells) for rows in results.rows)
    )


def _ids(table: Any, column: str, cells: list[int]) -> set[int]:
    """Ids of the rows in some cells."""
    return set(table[column][np.isin(cells_of(table["ra"], table["dec"], HISTORY_ORDER), cells)])


def test_spoiled_entries_are_missing_ones(client: Any, apdb: ApdbStore) -> None:
    history = HistoryStore(client, apdb, CAMERA, Clock())
    store(apdb, 1, MJD - 10, make_rows(1, MJD - 10))
    whole, _ = history.load(KEY)
    key = client.keys("sub60:history:base:*")[0]
    value = bytearray(client.get(key) or b"")
    value[-1] ^= 0xFF
    client.set(key, bytes(value))
    again, source = history.load(KEY)
    assert source is PartSource.COLD
    assert again.dia_sources.tobytes() == whole.dia_sources.tobytes()


def test_redis_away_is_transient_for_the_tail_and_cold_for_the_base(apdb: ApdbStore) -> None:
    history = HistoryStore(connect(NOWHERE, 0.1), apdb, CAMERA, Clock())
    store(apdb, 1, MJD - 10, make_rows(1, MJD - 10))
    rows, source = history.load(KEY)
    assert source is PartSource.COLD
    assert rows.dia_sources.size
    with pytest.raises(TransientError):
        history.read_tail([1, 2])
    with pytest.raises(TransientError):
        history.append(1, 0, make_rows(1, MJD))
    with pytest.raises(TransientError):
        history.mark()
    with pytest.raises(TransientError):
        history.is_marked()


NOWHERE = "redis://127.0.0.1:1"
ARCSEC = 1 / 3600


def claim(client: Any, owner: str, positions: list[tuple[float, float]], ids: list[int]) -> list[int]:
    ra, dec = np.array(positions, np.float64).T
    return Claims(client).claim(owner, ra, dec, np.array(ids, np.int64)).tolist()


@pytest.mark.parametrize(("ra", "dec"), [(150.0, 2.0), (0.0, 0.0), (45.0, 88.0), (300.0, -60.0)])
def test_a_claim_within_an_arcsecond_is_adopted(client: Any, ra: float, dec: float) -> None:
    east = ARCSEC / np.cos(np.radians(dec))
    big = 2**62 + 1
    assert claim(client, "1:1", [(ra, dec)], [big]) == [big]
    near = [((ra + 0.6 * east) % 360, dec), ((ra - 0.6 * east) % 360, dec + 0.7 * ARCSEC)]
    far = [((ra + 1.1 * east) % 360, dec), (ra, dec - 1.1 * ARCSEC)]
    assert claim(client, "2:1", near + far, [11, 12, 13, 14]) == [big, big, 13, 14]


def test_a_repeated_claim_gets_the_same_answer(client: Any) -> None:
    first = claim(client, "1:1", [(10.0, 5.0), (11.0, 5.0)], [1, 2])
    assert claim(client, "2:1", [(10.0, 5.0)], [7]) == [1]
    assert claim(client, "1:1", [(10.0, 5.0), (11.0, 5.0)], [1, 2]) == first == [1, 2]
    assert claim(client, "2:1", [(10.0, 5.0)], [7]) == [1]


def test_sources_of_one_image_stay_apart(client: Any) -> None:
    assert claim(client, "1:1", [(10.0, 5.0), (10.0, 5.0 + 0.5 * ARCSEC)], [1, 2]) == [1, 2]
    nearest = claim(client, "2:1", [(10.0, 5.0 + 0.4 * ARCSEC)], [3])
    assert nearest == [2]


def test_claims_expire_and_no_claim_asks_nobody(client: Any) -> None:
    claim(client, "1:1", [(10.0, 5.0)], [1])
    assert all(0 < client.ttl(key) <= 7200 for key in client.keys("sub60:claim:*"))
    none = np.empty(0)
    away = Claims(connect(NOWHERE, 0.1))
    assert away.claim("1:1", none, none, np.empty(0, np.int64)).size == 0
    with pytest.raises(TransientError):
        away.claim("1:1", np.ones(1), np.ones(1), np.ones(1, np.int64))
