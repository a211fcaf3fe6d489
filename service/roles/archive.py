"""Archive: three sinks behind the results and alerts, each idempotent, each with its own checkpoint.

A slow or dead sink is lag, never loss, and never delays an alert.
"""

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from alerts.files import schema_of, write_alerts
from core.contracts.bundle import History
from core.errors import RejectedInputError, TransientError
from core.timescales import unix_tai_to_utc
from service import topics
from service.clock import Clock
from service.failpoints import Failpoint, reach
from service.log.contract import Log, Message, Reader
from service.metrics import Metrics
from service.records import Result, UnknownFormatError, unpack
from service.storage.history import HistoryStore

if TYPE_CHECKING:  # its packages take seconds to import
    from service.storage.apdb import ApdbStore

HISTORY: Final = "sink-history"
APDB: Final = "sink-apdb"
FILES: Final = "sink-files"
POLL_S: Final = 0.2
BATCH: Final = 64
MAX_FILE_BYTES: Final = 256 << 20
CHECK_SENTINEL_S: Final = 1.0
TRIM_S: Final = 5.0

log = structlog.get_logger()


class ResultSink:
    """Writes result records one by one; a record that fails is tried again before any later one.

    Parameters
    ----------
    write : idempotent; raises ``TransientError`` where it may be tried again.
    """

    def __init__(self, name: str, reader: Reader, write: Callable[[Result], None], metrics: Metrics) -> None:
        self._name = name
        self._reader = reader
        self._write = write
        self._metrics = metrics
        self._pending: deque[Message] = deque()
        self._done: dict[int, int] = {}
        """Partition → offset behind what is written and not yet stored so."""

    def turn(self) -> None:
        """Write what has come, then store how far."""
        if not self._pending:
            self._pending.extend(self._reader.poll(POLL_S, BATCH))
        if self._pending:
            self._reach("polled")
        try:
            while self._pending:
                message = self._pending[0]
                self._take(message)
                self._reach("written")
                self._done[message.partition] = message.offset + 1
                self._pending.popleft()
        except TransientError:
            self._metrics.sink_errors.labels(self._name).inc()
            raise
        finally:
            if self._done:
                self._reader.commit(self._done)
                self._done = {}
                self._reach("committed")
        self._metrics.sink_lag.labels(self._name).set(lag(self._reader))

    def has_written(self) -> bool:
        """Whether anything was ever stored as written; not so on a fresh log."""
        return any(self._reader.committed().values())

    def rewind(self, needed: Mapping[int, int]) -> int:
        """Go back to these offsets, to the oldest record held where none is given; never forward. How many come again.

        That is stored at once: whoever goes on after a crash does so from there, and nothing of it is trimmed.
        """
        stored = self._reader.committed()
        starts: dict[int, int] = {}
        n_again = 0
        for partition, (first, _) in self._reader.bounds().items():
            stands = stored.get(partition, first)
            starts[partition] = max(first, min(needed.get(partition, first), stands))
            n_again += max(0, stands - starts[partition])
        self._pending.clear()
        self._done = {}
        self._reader.seek(starts)
        self._reader.commit(starts)
        return n_again

    def _reach(self, step: str) -> None:
        reach(Failpoint(f"{self._name.removeprefix('sink-')}-{step}"))

    def _take(self, message: Message) -> None:
        try:
            result = unpack(Result, message.value)
        except UnknownFormatError as error:  # it waits here for an archive that reads it
            raise TransientError(f"cannot write {error}", code=error.code, offset=message.offset) from error
        except RejectedInputError as error:
            self._metrics.failures.labels(error.code).inc()
            log.error("unreadable_result", offset=message.offset, code=error.code)
            return
        self._write(result)
        self._metrics.sink_records.labels(self._name).inc()


class HistorySink:
    """Appends results to the history's tails in Redis; after a flush, those again that a reader can need.

    Bases are then read from the APDB. A reader needs what it does not hold yet, and what is younger than the store's
    ``prune_after_s``: a worker may have a base from before that was written to the APDB.

    Parameters
    ----------
    has_apdb : whether an :class:`ApdbSink` writes the same results; else all that the log holds is needed.
    """

    def __init__(self, log_: Log, history: HistoryStore, clock: Clock, metrics: Metrics, *, has_apdb: bool) -> None:
        self._log = log_
        self._has_apdb = has_apdb
        self._history = history
        self._clock = clock
        self._sink = ResultSink(HISTORY, log_.reader(topics.RESULTS, name=HISTORY), self._write, metrics)
        self._check_at_s = 0.0

    def turn(self) -> None:
        """One round."""
        if self._clock.monotonic_s() >= self._check_at_s:
            if not self._history.is_marked():
                if self._sink.has_written():
                    log.warning("history_flushed", n_again=self._sink.rewind(self._needed()))
                self._history.mark()  # last: a rewind that failed is tried again
            self._check_at_s = self._clock.monotonic_s() + CHECK_SENTINEL_S
        self._sink.turn()

    def _needed(self) -> dict[int, int]:
        """Partition → first offset that a reader can need, of those where the APDB's sink has written."""
        if not self._has_apdb:
            return {}
        since_s = unix_tai_to_utc(self._clock.tai_s()) - self._history.prune_after_s
        # Open for this only: a reader on Kafka fetches ahead. Nothing is committed under the sink's name.
        with closing(self._log.reader(topics.RESULTS, name=APDB)) as reader:
            written = reader.committed()
            young = reader.offsets_at(int(since_s * 1000))
        return {partition: min(offset, young[partition]) for partition, offset in written.items()}

    def _write(self, result: Result) -> None:
        self._history.append(result.visit, result.detector, rows_of(result))


class ApdbSink:
    """Writes results to the APDB; the only one that does."""

    def __init__(self, log_: Log, apdb: "ApdbStore", metrics: Metrics) -> None:
        self._apdb = apdb
        self._sink = ResultSink(APDB, log_.reader(topics.RESULTS, name=APDB), self._write, metrics)

    def turn(self) -> None:
        """One round."""
        self._sink.turn()

    def _write(self, result: Result) -> None:
        rows = rows_of(result)
        is_new = self._apdb.store(
            result.visit,
            result.detector,
            result.midpoint_mjd_tai,
            rows.dia_objects,
            rows.dia_sources,
            rows.dia_forced_sources,
        )
        if not is_new:
            log.info("apdb_has_it", visit=result.visit, detector=result.detector)


class FileSink:
    """Alert files, a few seconds of alerts each, named by partition and first offset.

    A crash between file and checkpoint writes the file again under the same name.
    """

    def __init__(self, log_: Log, folder: Path, close_after_s: float, clock: Clock, metrics: Metrics) -> None:
        self._reader = log_.reader(topics.ALERTS, name=FILES)
        self._folder = folder
        self._close_after_s = close_after_s
        self._clock = clock
        self._metrics = metrics
        self._batch: list[Message] = []
        self._batch_bytes = 0
        self._close_at_s = 0.0

    def turn(self) -> None:
        """Collect; write when the file is old or large enough. What is due is written before more is read."""
        if not self._is_due:
            messages = self._reader.poll(POLL_S)
            if messages:
                reach(Failpoint.FILES_POLLED)
            if messages and not self._batch:
                self._close_at_s = self._clock.monotonic_s() + self._close_after_s
            self._batch += messages
            self._batch_bytes += sum(len(message.value) for message in messages)
        if self._is_due:
            self.flush()
        self._metrics.sink_lag.labels(FILES).set(lag(self._reader))

    @property
    def _is_due(self) -> bool:
        is_old = self._clock.monotonic_s() >= self._close_at_s
        return bool(self._batch) and (is_old or self._batch_bytes >= MAX_FILE_BYTES)

    def flush(self) -> None:
        """Write what is collected and store how far."""
        by_partition: dict[int, list[Message]] = {}
        for message in self._batch:
            by_partition.setdefault(message.partition, []).append(message)
        self._folder.mkdir(parents=True, exist_ok=True)
        for messages in by_partition.values():
            for _, run in groupby(messages, key=_schema_of):
                self._write(list(run))
        if by_partition:
            reach(Failpoint.FILES_WRITTEN)
            self._reader.commit({partition: messages[-1].offset + 1 for partition, messages in by_partition.items()})
            reach(Failpoint.FILES_COMMITTED)
            self._metrics.sink_records.labels(FILES).inc(len(self._batch))
        self._batch, self._batch_bytes = [], 0

    def _write(self, messages: list[Message]) -> None:
        """Neighbors of one partition and one schema."""
        path = self._folder / f"alerts-{messages[0].partition:03d}-{messages[0].offset:015d}.avro"
        try:
            write_alerts(path, [message.value for message in messages])
        except OSError as error:
            self._metrics.sink_errors.labels(FILES).inc()
            raise TransientError("an alert file cannot be written", code="alert_file", path=str(path)) from error


def _schema_of(message: Message) -> int:
    """Id of the schema of an alert; one that this release does not have waits for an archive that has it."""
    try:
        return schema_of(message.value)
    except RejectedInputError as error:
        raise TransientError(f"cannot file {error}", code="unknown_schema", offset=message.offset) from error


class Trimmer:
    """Keeps topics on Redis below their size; never drops what a sink has not written."""

    def __init__(self, log_: Log, limits: Mapping[str, tuple[int, tuple[str, ...]]], clock: Clock) -> None:
        self._log = log_
        self._limits = limits
        self._clock = clock
        self._at_s = 0.0

    def turn(self) -> None:
        """One round, every few seconds."""
        if self._clock.monotonic_s() < self._at_s:
            return
        self._at_s = self._clock.monotonic_s() + TRIM_S
        for topic, (max_bytes, sinks) in self._limits.items():
            self._log.trim(topic, max_bytes, sinks)


def rows_of(result: Result) -> History:
    """Catalogs of a result as rows of the history."""
    return History(
        dia_objects=result.dia_objects,
        dia_sources=result.dia_sources,
        dia_forced_sources=result.dia_forced_sources,
    )


def lag(reader: Reader) -> int:
    """Records after the last one stored as written."""
    committed = reader.committed()
    return sum(end - max(first, committed.get(p, first)) for p, (first, end) in reader.bounds().items())
