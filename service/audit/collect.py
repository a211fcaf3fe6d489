"""Reads topics to their present end and keeps numbers, not payloads."""

import hashlib
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from core.errors import Outcome, RejectedInputError
from core.timescales import unix_tai_to_utc
from service import topics
from service.audit.holdings import Alerts, Events, Filed, Key, Letter, Stored, Verdict, by_visit
from service.audit.report import Discrepancy, Kind, SourceRange
from service.events import ReadoutEvent, object_keys, parse_event, parse_json
from service.log.contract import Log, Message
from service.records import DeadLetter, Manifest, Result, unpack
from service.roles.archive import APDB, FILES
from service.roles.commit_records import MAX_PAYLOAD_BYTES

POLL_S: Final = 0.5
UNREADABLE_NAMED: Final = 100

Progress = Callable[[str, int, int], None]
"""Called with a source's name, records read, and records there are."""
R = TypeVar("R", Manifest, Result, DeadLetter)


class TopicScan:
    """One pass over what a topic holds now; afterwards :meth:`range` says what that was."""

    def __init__(self, log: Log, topic: str, progress: Progress) -> None:
        self._log, self._topic, self._progress = log, topic, progress
        self._first: dict[int, int] = {}
        self._last_ms: int | None = None
        self._trimmed: set[int] = set()
        self.n_records = 0
        self.problems: list[Discrepancy] = []

    def messages(self) -> Iterator[Message]:
        """Every message up to the end as it stood at the start."""
        reader = self._log.reader(self._topic)
        try:
            bounds = reader.bounds()
            self._trimmed = {partition for partition, (first, _) in bounds.items() if first > 0}
            position = {partition: first for partition, (first, _) in bounds.items()}
            ends = {partition: end for partition, (_, end) in bounds.items()}
            total = sum(end - first for first, end in bounds.values())
            while any(position[p] < end for p, end in ends.items()):
                found = reader.poll(POLL_S)
                if not found:  # on Kafka the end counts markers of transactions too: ask where it really is
                    ends = {p: min(ends[p], end) for p, (_, end) in reader.bounds().items()}
                for message in found:
                    position[message.partition] = message.offset + 1
                    if message.offset < ends[message.partition]:
                        self._note(message)
                        yield message
                self._progress(self._topic, self.n_records, total)
        finally:
            reader.close()

    def records(self, kind: type[R]) -> Iterator[tuple[Message, R]]:
        """Messages with their records; what cannot be read is a problem."""
        for message in self.messages():
            try:
                yield message, unpack(kind, message.value)
            except RejectedInputError as error:
                if len(self.problems) < UNREADABLE_NAMED:
                    place = f"{self._topic}, partition {message.partition}, offset {message.offset}"
                    self.problems.append(Discrepancy(kind=Kind.UNREADABLE_RECORD, detail=f"{place}: {error}"))

    def range(self, note: str = "") -> SourceRange:
        """What was held."""
        first = min(self._first.values(), default=None)
        if self._trimmed:  # of a partition that was trimmed to nothing the edge is not known
            edges = [self._first.get(partition) for partition in self._trimmed]
            known = [edge for edge in edges if edge is not None]
            first = max(known) if len(known) == len(edges) else None
        return SourceRange(
            name=self._topic,
            n_records=self.n_records,
            first_ms=first,
            last_ms=self._last_ms,
            is_trimmed=bool(self._trimmed),
            note=note,
        )

    def _note(self, message: Message) -> None:
        self.n_records += 1
        self._first.setdefault(message.partition, message.timestamp_ms)
        self._last_ms = max(self._last_ms or 0, message.timestamp_ms)


def collect_manifests(scan: TopicScan) -> dict[Key, list[Verdict]]:
    """Manifests that are no duplicates, in the order of the topic."""
    verdicts: dict[Key, list[Verdict]] = {}
    for message, manifest in scan.records(Manifest):
        if manifest.outcome is Outcome.DUPLICATE:
            continue
        counts = manifest.counts
        kept = ("n_sent", "n_low_reliability", "n_withheld", "n_dropped")
        n_kept = sum(counts.get(name, 0) for name in kept)
        if manifest.outcome is Outcome.HELD and "n_withheld" not in counts:  # of a version before it was counted
            n_kept = counts.get("n_detected", 0) - counts.get("n_flagged", 0)
        verdict = Verdict(
            time_ms=message.timestamp_ms,
            received_ms=int(unix_tai_to_utc(manifest.received_tai_s) * 1000) if manifest.received_tai_s else 0,
            outcome=manifest.outcome,
            redrive=manifest.redrive,
            n_alerts=manifest.n_alerts,
            id_digest=manifest.id_digest,
            n_kept=n_kept,
        )
        verdicts.setdefault((manifest.visit, manifest.detector), []).append(verdict)
    return verdicts


def collect_events(scan: TopicScan, root: Path) -> Events:
    """Readout events; those of object notifications by the sidecar in ``root``, as fan-out reads it."""
    events = Events()
    for message in scan.messages():
        payload_hash = hash_of(message.value)
        try:
            value = parse_json(message.value)
            names = object_keys(value)
            found = [value] if names is None else [side for name in names if (side := _sidecar(root, name)) is not None]
            events.n_unresolved += 0 if names is None else len(names) - len(found)
            parsed = [parse_event(ReadoutEvent, item) for item in found]
        except RejectedInputError:
            events.unreadable.append((message.timestamp_ms, payload_hash))
            continue
        for event in parsed:
            key = (event.visit, event.detector)
            events.first_ms.setdefault(key, message.timestamp_ms)
            events.hashes.setdefault(key, set()).add(payload_hash)
    return events


def collect_results(scan: TopicScan, log: Log) -> dict[Key, list[Stored]]:
    """Numbers of rows of every result, and whether the APDB's sink says it has them."""
    committed = _committed(log, topics.RESULTS, APDB)
    results: dict[Key, list[Stored]] = {}
    for message, result in scan.records(Result):
        stored = Stored(
            time_ms=message.timestamp_ms,
            n_sources=int(result.dia_sources.size),
            n_forced=int(result.dia_forced_sources.size),
            midpoint_mjd_tai=result.midpoint_mjd_tai,
            is_in_apdb=message.offset < committed.get(message.partition, 0),
        )
        results.setdefault((result.visit, result.detector), []).append(stored)
    return results


def collect_alerts(scan: TopicScan, log: Log, filed: Filed) -> Alerts:
    """Ids of the topic, by the messages' keys."""
    committed = _committed(log, topics.ALERTS, FILES)
    ids, times, is_filed = array("q"), array("q"), array("b")
    for message in scan.messages():
        try:
            number = int(message.key)
        except ValueError:
            place = f"alerts, partition {message.partition}, offset {message.offset}"
            scan.problems.append(Discrepancy(kind=Kind.UNREADABLE_RECORD, detail=f"{place}: the key is no id"))
            continue
        ids.append(number)
        times.append(message.timestamp_ms)
        first = filed.first_offset.get(message.partition, 0)
        is_filed.append(first <= message.offset < committed.get(message.partition, 0))
    order = by_visit(np.frombuffer(ids, np.int64))
    return Alerts(
        ids=np.frombuffer(ids, np.int64)[order],
        time_ms=np.frombuffer(times, np.int64)[order],
        is_filed=np.frombuffer(is_filed, np.bool_)[order],
    )


def collect_letters(scan: TopicScan) -> list[Letter]:
    """Dead letters."""
    return [
        Letter(
            time_ms=message.timestamp_ms,
            topic=letter.topic,
            code=letter.code,
            key=(letter.visit, letter.detector or 0) if letter.visit is not None else None,
            payload_hash=hash_of(letter.payload),
        )
        for message, letter in scan.records(DeadLetter)
    ]


def hash_of(payload: bytes) -> bytes:
    """Digest of as much of a payload as a dead letter keeps."""
    return hashlib.blake2b(payload[:MAX_PAYLOAD_BYTES], digest_size=16).digest()


def _committed(log: Log, topic: str, sink: str) -> dict[int, int]:
    reader = log.reader(topic, name=sink)  # looks only: nothing is committed under the sink's name
    try:
        return reader.committed()
    finally:
        reader.close()


def _sidecar(root: Path, name: str) -> dict[str, Any] | None:
    path = (root / name).with_suffix(".json")
    if not path.resolve().is_relative_to(root.resolve()):
        return None
    try:
        return parse_json(path.read_bytes()) | {"uri": name}
    except (OSError, RejectedInputError):
        return None
