"""What came out of a site, read by connections of its own: the independent side of every account."""

import io
import threading
import time
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import redis

from alerts.check import check_alert
from benchmarks.alert_reader import Source, decode, open_source
from core.errors import Outcome, RejectedInputError
from core.ids import source_ids, visits_of
from service import topics
from service.log import LogUnavailable, Reader, open_log
from service.records import DeadLetter, Manifest, unpack
from service.roles.commit_records import id_digest
from tests.faults.night import Key

CHECKED = 10
"""Every so many alerts one is checked whole, column by column."""


class Ledger:
    """Manifests, alerts, results and dead letters of a log, taken in a thread; outlives a server that dies."""

    def __init__(self, log_url: str, release: int) -> None:
        self._release = release
        self._lock = threading.Lock()
        self.manifests: dict[Key, list[tuple[float, Manifest]]] = defaultdict(list)
        """With the monotonic time at which each was seen."""
        self._alerts: dict[Key, Counter[int]] = defaultdict(Counter)
        """Ids seen, by visit-detector."""
        self._n_alerts = 0
        self.invalid: list[str] = []
        self.results: Counter[Key] = Counter()
        self.letters: list[DeadLetter] = []
        self.error: BaseException | None = None
        self._source: Source = open_source(log_url)
        log = open_log(log_url)
        self._readers = {t: log.reader(t) for t in (topics.MANIFESTS, topics.RESULTS, topics.DEAD_LETTERS)}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop reading."""
        self._stopping.set()
        self._thread.join()
        self._source.close()

    def outcome(self, key: Key) -> Manifest | None:
        """The last manifest of a visit-detector that is no duplicate's."""
        found = self.outcomes(key)
        return found[-1] if found else None

    def outcomes(self, key: Key) -> list[Manifest]:
        """All manifests of a visit-detector that are no duplicate's."""
        with self._lock:
            return [m for _, m in self.manifests.get(key, ()) if m.outcome is not Outcome.DUPLICATE]

    def seen_at_s(self, key: Key) -> float:
        """When the first of them was seen."""
        with self._lock:
            return next(at for at, m in self.manifests[key] if m.outcome is not Outcome.DUPLICATE)

    def n_duplicates(self, key: Key) -> int:
        """Readouts acknowledged as duplicates."""
        with self._lock:
            return sum(m.outcome is Outcome.DUPLICATE for _, m in self.manifests.get(key, ()))

    def ids(self, key: Key) -> list[int]:
        """Alerts of a visit-detector, each as often as it was seen."""
        with self._lock:
            return sorted(self._alerts[key].elements())

    def rows(self, key: Key) -> set[int]:
        """Rows of the detection list whose alerts were seen."""
        first = self._first_id(key)
        return {i - first for i in self.ids(key)}

    def is_whole(self, key: Key) -> bool:
        """Whether all that the manifest promises was seen."""
        manifest = self.outcome(key)
        if manifest is None:
            return False
        is_held = self.results[key] >= (1 if manifest.n_alerts else 0)
        return is_held and len(set(self.ids(key))) >= manifest.n_alerts

    def is_exact(self, key: Key) -> bool:
        """Whether the alerts seen are those of the manifest, each once."""
        manifest, ids = self.outcome(key), self.ids(key)
        assert manifest is not None
        return not ids if not manifest.n_alerts else id_digest(np.array(ids, np.int64)) == manifest.id_digest

    def _first_id(self, key: Key) -> int:
        return int(source_ids(self._release, *key, np.zeros(1, np.int64))[0])

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                if not self._turn():
                    time.sleep(0.03)
        except BaseException as error:  # carried over to the thread that asks
            self.error = error

    def _turn(self) -> bool:
        """Whether anything came."""
        found = False
        try:
            for value in self._source.read(0.01):
                found = True
                self._take_alert(value)
            for topic, reader in self._readers.items():
                found |= self._take(topic, reader)
        except (LogUnavailable, redis.exceptions.RedisError):
            time.sleep(0.1)
        return found

    def _take(self, topic: str, reader: Reader) -> bool:
        messages = reader.poll(0)
        with self._lock:
            for message in messages:
                if topic == topics.MANIFESTS:
                    manifest = unpack(Manifest, message.value)
                    self.manifests[manifest.visit, manifest.detector].append((time.monotonic(), manifest))
                elif topic == topics.RESULTS:
                    visit, _, detector = message.key.partition(b":")
                    self.results[int(visit), int(detector)] += 1
                else:
                    self.letters.append(unpack(DeadLetter, message.value))
        return bool(messages)

    def _take_alert(self, value: bytes) -> None:
        number = _first_long(value)
        problem = ""
        if self._n_alerts % CHECKED == 0:
            problem = _problem(value, number)
        visit, detector = visits_of(np.array([number], np.int64))
        with self._lock:
            self._alerts[int(visit[0]), int(detector[0])][number] += 1
            self._n_alerts += 1
            if problem:
                self.invalid.append(problem)


def _problem(value: bytes, number: int) -> str:
    """What is wrong with an alert, read with the published schema."""
    try:
        record: dict[str, Any] = decode(value)
        check_alert(record)
    except (RejectedInputError, ValueError, EOFError) as error:
        return str(error)
    return "" if record["diaSourceId"] == number else "the first field is not diaSourceId"


def _first_long(value: bytes) -> int:
    """The Avro long behind the five bytes of the frame: diaSourceId, the schema's first field."""
    body = io.BytesIO(value[5:15])
    number = shift = 0
    while True:
        byte = body.read(1)[0]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1)
        shift += 7
