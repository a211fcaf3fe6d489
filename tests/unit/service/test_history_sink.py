"""The history's sink after a flush of the cache: what it appends again, whatever fails meanwhile."""

import pytest
from prometheus_client import CollectorRegistry

from core.contracts.bundle import History
from core.errors import TransientError
from core.timescales import unix_tai_to_utc
from service import topics
from service.log import LogUnavailable, Record
from service.metrics import Metrics
from service.records import pack
from service.roles.archive import APDB, CHECK_SENTINEL_S, HISTORY, HistorySink
from service.storage.history import PRUNE_AFTER_S
from service.storage.tables import empty_history
from tests.support.service.builders import T0, result
from tests.support.service.fakes import FakeClock
from tests.support.service.memory_log import MemoryLog

N, N_OLD = 100, 50
NOW_MS = int(unix_tai_to_utc(T0) * 1000)


class Tails:
    """Remembers the visits that were appended since the last flush."""

    prune_after_s = PRUNE_AFTER_S

    def __init__(self) -> None:
        self.has_sentinel = False
        self.is_away = False
        self.visits: list[int] = []

    def flush(self) -> None:
        self.has_sentinel, self.visits = False, []

    def is_marked(self) -> bool:
        return self.has_sentinel

    def mark(self) -> None:
        self.has_sentinel = True

    def append(self, visit: int, detector: int, rows: History) -> None:
        if self.is_away:
            raise TransientError("away", code="history_unavailable")
        self.visits.append(visit)


class Bench:
    """A sink that has written 100 results, of which the first 50 are older than a worker's oldest base."""

    def __init__(self, written_by_apdb: int | None, *, has_apdb: bool = True) -> None:
        self.log, self.tails, self.clock = MemoryLog(), Tails(), FakeClock(T0)
        for visit in range(N):
            age_s = PRUNE_AFTER_S + (60 if visit < N_OLD else -60)
            self.log.time_ms = NOW_MS - int(age_s * 1000)
            self.log.append([Record(topics.RESULTS, b"", pack(result(visit, empty_history())))])
        if written_by_apdb is not None:
            self.log.reader(topics.RESULTS, name=APDB).commit({0: written_by_apdb})
        self.has_apdb = has_apdb
        self.sink = self.make()
        self.run()
        assert self.tails.visits == list(range(N))

    def make(self) -> HistorySink:
        """As the archive does at its start."""
        metrics = Metrics(CollectorRegistry())
        return HistorySink(self.log, self.tails, self.clock, metrics, has_apdb=self.has_apdb)  # type: ignore[arg-type]

    @property
    def stored(self) -> int:
        return self.log.reader(topics.RESULTS, name=HISTORY).committed()[0]

    def look(self) -> None:
        """One round in which the sentinel is looked for."""
        self.clock.now += CHECK_SENTINEL_S
        self.sink.turn()

    def run(self) -> None:
        """To the end of the results."""
        self.look()
        while self.stored < N:
            self.sink.turn()


@pytest.mark.parametrize(
    ("written_by_apdb", "has_apdb", "first"), [(70, True, 50), (20, True, 20), (None, True, 0), (70, False, 0)]
)
def test_a_flush_brings_back_what_a_reader_can_need(written_by_apdb: int | None, has_apdb: bool, first: int) -> None:
    bench = Bench(written_by_apdb, has_apdb=has_apdb)
    for _ in range(2):
        bench.tails.flush()
        bench.run()
        assert bench.tails.visits == list(range(first, N))
        assert bench.tails.has_sentinel


def test_a_second_flush_during_the_rewind_starts_it_again() -> None:
    bench = Bench(20)
    bench.tails.flush()
    bench.look()
    assert 20 < bench.stored < N
    bench.tails.flush()
    bench.run()
    assert bench.tails.visits == list(range(20, N))


def test_never_before_the_oldest_record_held_and_never_forward() -> None:
    bench = Bench(20)
    bench.log.cut(topics.RESULTS, 30)
    bench.tails.flush()
    bench.run()
    assert bench.tails.visits == list(range(30, N))
    bench.log.reader(topics.RESULTS, name=HISTORY).commit({0: 40})  # the sink is behind, the APDB has it all
    bench.log.reader(topics.RESULTS, name=APDB).commit({0: N})
    bench.sink = bench.make()
    bench.tails.flush()
    bench.run()
    assert bench.tails.visits == list(range(40, N))


def test_a_rewind_that_failed_is_tried_again() -> None:
    bench = Bench(20)
    bench.tails.flush()
    bench.log.is_away = True
    for _ in range(2):
        with pytest.raises(LogUnavailable):
            bench.look()
    assert not bench.tails.has_sentinel
    bench.log.is_away = False
    bench.run()
    assert bench.tails.visits == list(range(20, N))


def test_a_rewind_outlives_its_process() -> None:
    bench = Bench(20)
    bench.tails.flush()
    bench.tails.is_away = True
    with pytest.raises(TransientError):
        bench.look()
    bench.tails.is_away = False
    bench.sink = bench.make()
    bench.run()
    assert bench.tails.visits == list(range(20, N))
