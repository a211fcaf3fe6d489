"""What the HTTP API knows: recent manifests, commits, dead letters and alerts, read from the log; bounded."""

import threading
from collections import OrderedDict, deque
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Final

from core.errors import Outcome, RejectedInputError
from service.control import ControlState
from service.log.contract import Message
from service.records import Committed, Control, DeadLetter, Heartbeat, Manifest, unpack, unpack_any

MAX_MANIFESTS: Final = 20_000
MAX_ALERTS: Final = 2_000
MAX_ALERT_BYTES: Final = 128 << 20
MAX_DEAD_LETTERS: Final = 500
LATENCIES_KEPT: Final = 20_000

Key = tuple[int, int]


@dataclass(slots=True, kw_only=True)
class ApiState:
    """Filled by the role's loops, read by HTTP handlers; every method takes the lock for a moment only."""

    manifests: OrderedDict[Key, bytes] = field(default_factory=OrderedDict)
    """Packed as they came: unpacked they take five times the room."""
    committed: OrderedDict[Key, Committed] = field(default_factory=OrderedDict)
    dead_letters: deque[DeadLetter] = field(default_factory=lambda: deque(maxlen=MAX_DEAD_LETTERS))
    heartbeats: dict[str, Heartbeat] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    bundle: dict[str, dict[str, int]] = field(default_factory=dict)
    n_alerts: int = 0
    control: ControlState = field(default_factory=ControlState)
    _timed: OrderedDict[Key, Committed] = field(default_factory=OrderedDict)
    """Commits of what the telescope sent."""
    _alerts: OrderedDict[int, bytes] = field(default_factory=OrderedDict)
    _alert_bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take_record(self, message: Message) -> None:
        """A manifest, committed record, dead letter, heartbeat or order."""
        try:
            record = unpack_any(message.value)
        except RejectedInputError:
            return  # of a version that this process does not read
        with self._lock:
            if isinstance(record, Manifest):
                self._take_manifest(record, message.value)
            elif isinstance(record, Committed) and record.outcome is not Outcome.DUPLICATE:
                self._take_committed(record)
            elif isinstance(record, DeadLetter):
                self.dead_letters.append(record)
            elif isinstance(record, Heartbeat):
                self.heartbeats[record.worker] = record
            elif isinstance(record, Control):
                self.control.take(record)

    def take_alert(self, message: Message) -> None:
        """A framed alert."""
        with self._lock:
            self._alerts[int(message.key)] = message.value
            self._alert_bytes += len(message.value)
            while len(self._alerts) > MAX_ALERTS or self._alert_bytes > MAX_ALERT_BYTES:
                _, dropped = self._alerts.popitem(last=False)
                self._alert_bytes -= len(dropped)

    def alert(self, dia_source_id: int) -> bytes | None:
        """One recent alert."""
        with self._lock:
            return self._alerts.get(dia_source_id)

    def alert_ids(self, limit: int) -> list[int]:
        """Ids of the most recent alerts, newest first."""
        with self._lock:
            return list(reversed(self._alerts))[:limit]

    def detector(self, visit: int, detector: int) -> dict[str, Any] | None:
        """Manifest of one detector-visit with its commit, if that is known."""
        with self._lock:
            packed = self.manifests.get((visit, detector))
            committed = self.committed.get((visit, detector))
        if packed is None:
            return None
        return as_json(unpack(Manifest, packed)) | {"committed": as_json(committed) if committed else None}

    def recent(self, limit: int) -> list[dict[str, Any]]:
        """The last detector-visits, newest first, a line each."""
        with self._lock:
            newest = list(islice(reversed(self.manifests.items()), limit))
            commits = [self.committed.get(key) for key, _ in newest]
        manifests = [unpack(Manifest, packed) for _, packed in newest]
        return [
            {
                "visit": m.visit,
                "detector": m.detector,
                "band": m.band,
                "outcome": m.outcome.value,
                "code": m.code,
                "message": m.message,
                "n_alerts": m.n_alerts,
                "wall_s": m.wall_s,
                "latency_s": c.latency_s if c else None,
                "commit_s": c.commit_s if c else None,
            }
            for m, c in zip(manifests, commits, strict=True)
        ]

    def commits(self) -> list[Committed]:
        """Commits whose latency counts."""
        uncounted = (Outcome.DUPLICATE, Outcome.EXPIRED)
        with self._lock:
            return [c for c in self._timed.values() if not c.is_clock_suspect and c.outcome not in uncounted]

    def summary(self) -> dict[str, Any]:
        """Totals and workers."""
        with self._lock:
            return {
                "outcomes": dict(self.outcomes),
                "alerts": self.n_alerts,
                "alerts_held": self.control.is_held,
                "hold_reason": self.control.reason if self.control.is_held else "",
                "dead_letters": len(self.dead_letters),
                "bundle": {kind: dict(sources) for kind, sources in self.bundle.items()},
                "workers": [as_json(beat) for _, beat in sorted(self.heartbeats.items())],
            }

    def letters(self, limit: int) -> list[dict[str, Any]]:
        """Recent dead letters, newest first."""
        with self._lock:
            letters = list(self.dead_letters)[::-1][:limit]
        return [as_json(letter) | {"payload": letter.payload[:2000].decode("utf-8", "replace")} for letter in letters]

    def _take_committed(self, record: Committed) -> None:
        key = (record.visit, record.detector)
        self.committed[key] = record
        if not record.redrive:  # what an operator sent back is late by intent
            self._timed[key] = record
        for held in (self.committed, self._timed):
            while len(held) > LATENCIES_KEPT:
                held.popitem(last=False)

    def _take_manifest(self, manifest: Manifest, packed: bytes) -> None:
        self.outcomes[manifest.outcome.value] = self.outcomes.get(manifest.outcome.value, 0) + 1
        if manifest.outcome is Outcome.DUPLICATE:
            return  # the first one stays the manifest of its detector-visit
        self.n_alerts += manifest.n_alerts
        for kind, source, _, _ in manifest.bundle:
            sources = self.bundle.setdefault(kind, {})
            sources[source] = sources.get(source, 0) + 1
        self.manifests[manifest.visit, manifest.detector] = packed
        while len(self.manifests) > MAX_MANIFESTS:
            self.manifests.popitem(last=False)


def as_json(record: Manifest | Committed | DeadLetter | Heartbeat) -> dict[str, Any]:
    """A record's fields; payloads are left to the caller."""
    value = asdict(record)
    value.pop("payload", None)
    return value


def percentile(values: list[float], fraction: float) -> float | None:
    """Nearest rank."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, -int(-fraction * len(ordered) // 1) - 1)]
