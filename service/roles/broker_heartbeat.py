"""A sign of life for those who listen to the alerts: it tells a quiet sky from a dead service."""

import json
from typing import Final

from core.timescales import format_tai
from service import topics
from service.clock import Clock
from service.log.contract import LogUnavailable, Producer, Record
from service.metrics import Metrics

EVERY_S: Final = 10.0
FORMAT: Final = 1


class BrokerHeartbeat:
    """One JSON record every ten seconds; one that cannot be written is counted and left out."""

    def __init__(self, worker: str, producer: Producer, clock: Clock, metrics: Metrics) -> None:
        self._worker = worker
        self._producer = producer
        self._clock = clock
        self._metrics = metrics
        self._next_s = clock.monotonic_s()
        self._n_committed = 0
        self._n_alerts = 0
        self._last_commit_tai_s: float | None = None

    def committed(self, n_alerts: int, at_tai_s: float) -> None:
        """A readout was committed."""
        self._n_committed += 1
        self._n_alerts += n_alerts
        self._last_commit_tai_s = at_tai_s

    def turn(self, *, is_ready: bool, alerts_held: bool) -> None:
        """Say so when it is time."""
        now = self._clock.monotonic_s()
        if now < self._next_s:
            return
        self._next_s = max(self._next_s, now - EVERY_S) + EVERY_S  # in step, without making up for a long pause
        last = self._last_commit_tai_s
        beat = {
            "format": FORMAT,
            "worker": self._worker,
            "time_tai": format_tai(self._clock.tai_s()),
            "ready": is_ready,
            "alerts_held": alerts_held,
            "n_committed": self._n_committed,
            "n_alerts": self._n_alerts,
            "last_commit_tai": None if last is None else format_tai(last),
        }
        try:
            self._producer.append([Record(topics.HEARTBEAT, self._worker.encode(), json.dumps(beat).encode())])
        except LogUnavailable:
            self._metrics.log_errors.inc()
