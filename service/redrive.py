"""Sends what was given up or held back to work again: events to their topic, visit-detectors to the work topic.

Nothing is sent twice. A visit-detector goes back as a :class:`~service.records.Readout` whose ``redrive`` is the number
of manifests it has; workers know duplicates by (visit, detector, redrive). One redrive runs at a time: the control
topic says which.
"""

import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from core.errors import Outcome, RejectedInputError
from core.timescales import unix_utc_to_tai
from service import topics
from service.audit.collect import Progress, TopicScan, hash_of
from service.clock import Clock
from service.control import read_control, send_order
from service.log.contract import Log, Record
from service.records import DeadLetter, Manifest, Readout, Verb, pack, unpack_any
from service.roles.commit_records import MAX_PAYLOAD_BYTES
from service.roles.fanout import REDRIVEN

BATCH: Final = 100
RETURNABLE: Final = frozenset({Outcome.HELD, Outcome.CRASHED, Outcome.REJECTED})
"""Last outcomes after which a visit-detector may go back to work; a makeshift of single-frame products may too."""
Key = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What an operator asks for. Empty sets and None: any."""

    dead_letters: bool
    held: bool
    codes: frozenset[str] = frozenset()
    visits: frozenset[int] = frozenset()
    detectors: frozenset[int] = frozenset()
    start_tai_s: float | None = None
    end_tai_s: float | None = None

    def has(self, code: str, key: Key | None, time_tai_s: float) -> bool:
        """Whether it matches. What has no visit matches no visit or detector asked for."""
        return (
            (not self.codes or code in self.codes)
            and (not self.visits or (key is not None and key[0] in self.visits))
            and (not self.detectors or (key is not None and key[1] in self.detectors))
            and (self.start_tai_s is None or time_tai_s >= self.start_tai_s)
            and (self.end_tai_s is None or time_tai_s <= self.end_tai_s)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing that could go back; ``refusal`` says why it cannot, empty where it can."""

    topic: str
    what: str
    code: str
    key: Key | None = None
    record: Record | None = None
    refusal: str = ""


@dataclass(slots=True)
class _Visit:
    """What the log says of one visit-detector."""

    manifests: list[tuple[float, Manifest]] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    readout: Readout | None = None
    queued: int = -1
    """Highest redrive on the work topic."""


def plan_redrive(log: Log, wanted: Wanted, progress: Progress) -> list[Item]:
    """Everything that matches, in the order in which it came to its end; raises ``LogUnavailable``."""
    visits: dict[Key, _Visit] = {}
    for message, manifest in TopicScan(log, topics.MANIFESTS, progress).records(Manifest):
        if manifest.outcome is not Outcome.DUPLICATE:
            visit = visits.setdefault((manifest.visit, manifest.detector), _Visit())
            visit.manifests.append((unix_utc_to_tai(message.timestamp_ms / 1000), manifest))
    events: list[DeadLetter] = []
    for _, letter in TopicScan(log, topics.DEAD_LETTERS, progress).records(DeadLetter):
        if letter.topic in topics.INPUTS:
            events.append(letter)
        elif letter.visit is not None and letter.detector is not None:
            visits.setdefault((letter.visit, letter.detector), _Visit()).letters.append(letter)
    chosen = {key: visit for key, visit in visits.items() if _is_wanted(key, visit, wanted)}
    if chosen:
        _find_readouts(log, chosen, progress)
    items = [_visit_item(key, visit, log.partitions(topics.WORK)) for key, visit in chosen.items()]
    if wanted.dead_letters:
        items += _event_items(log, events, wanted, progress)
    return items


def send_back(log: Log, items: Sequence[Item], progress: Progress) -> int:
    """Append what can go back; how many. The caller holds :func:`only_one` and has made the plan within it."""
    records = [item.record for item in items if item.record is not None and not item.refusal]
    producer = log.producer()
    try:
        for start in range(0, len(records), BATCH):
            producer.append(records[start : start + BATCH])
            progress("sent back", min(start + BATCH, len(records)), len(records))
    finally:
        producer.close()
    return len(records)


@contextmanager
def only_one(log: Log, clock: Clock, who: str) -> Iterator[None]:
    """Keep other redrives out meanwhile; refused while one runs, and while alerts are held.

    The first to stand on the control topic wins; one that died is forgotten after ten minutes.
    """
    mine = f"{who} {secrets.token_hex(4)}"
    producer = log.producer()
    try:
        state, _ = read_control(log)
        if state.is_held:
            raise RejectedInputError(
                f"alerts are held ({state.reason}, by {state.who}): what goes back would be held again; "
                "`sub60 release` first",
                code="alerts_held",
            )
        send_order(producer, Verb.REDRIVE_BEGIN, clock.tai_s(), "", mine)
        state, _ = read_control(log)
        if state.redrive_by != mine:
            raise RejectedInputError(
                f"another redrive is running, by {state.redrive_by}; try again when it has ended (at most ten minutes)",
                code="redrive_running",
            )
        yield
    finally:
        send_order(producer, Verb.REDRIVE_END, clock.tai_s(), "", mine)
        producer.close()


def _is_wanted(key: Key, visit: _Visit, wanted: Wanted) -> bool:
    time_s, last = visit.manifests[-1] if visit.manifests else (visit.letters[-1].at_tai_s, None)
    is_held = last is not None and last.outcome is Outcome.HELD
    code = last.code if last is not None else visit.letters[-1].code
    is_asked = (wanted.held and is_held) or (wanted.dead_letters and bool(visit.letters) and not is_held)
    return is_asked and wanted.has(code, key, time_s)


def _find_readouts(log: Log, chosen: dict[Key, _Visit], progress: Progress) -> None:
    for message in TopicScan(log, topics.WORK, progress).messages():
        try:
            record = unpack_any(message.value)
        except RejectedInputError:
            continue
        if isinstance(record, Readout) and (visit := chosen.get((record.visit, record.detector))) is not None:
            visit.readout = record
            visit.queued = max(visit.queued, record.redrive)


def _visit_item(key: Key, visit: _Visit, partitions: int) -> Item:
    last = visit.manifests[-1][1] if visit.manifests else None
    code = last.code if last is not None else visit.letters[-1].code
    outcome = last.outcome.value if last is not None else "dead letter"
    item = Item(topic=topics.WORK, what=outcome, code=code, key=key)
    readout = visit.readout or _from_letter(visit.letters)
    done = [manifest.redrive for _, manifest in visit.manifests]
    redrive = max(len(done), 1 + max(done, default=0))  # the oldest manifests may be gone
    if last is None:
        return replace(item, refusal="its manifest is no longer in the log: nobody knows what came out")
    if any(manifest.n_alerts for _, manifest in visit.manifests):
        return replace(item, refusal="its alerts are out")
    is_makeshift = last.outcome is Outcome.NO_TEMPLATE and bool(visit.letters)
    if last.outcome not in RETURNABLE and not is_makeshift:
        return replace(item, refusal=f"it has come out since, as {outcome}")
    if visit.queued >= redrive:
        return replace(item, refusal="it is on its way already")
    if readout is None:
        too_long = any(len(letter.payload) >= MAX_PAYLOAD_BYTES for letter in visit.letters)
        reason = "its dead letter was cut at 64 KB" if too_long else "its readout is no longer in the log"
        return replace(item, refusal=f"{reason}: let the telescope's system send the event again")
    back = pack(replace(readout, redrive=redrive))
    return replace(item, record=Record(topics.WORK, b"%d" % key[1], back, key[1] % partitions))


def _from_letter(letters: list[DeadLetter]) -> Readout | None:
    for letter in reversed(letters):
        try:
            record = unpack_any(letter.payload)
        except RejectedInputError:
            continue
        if isinstance(record, Readout):
            return record
    return None


def _event_items(log: Log, letters: list[DeadLetter], wanted: Wanted, progress: Progress) -> list[Item]:
    """Events that fan-out refused, each payload once; one that stands on its topic after its last letter went back."""
    n_letters = Counter((letter.topic, hash_of(letter.payload)) for letter in letters)
    last = {
        (letter.topic, hash_of(letter.payload)): letter
        for letter in letters
        if wanted.has(letter.code, None, letter.at_tai_s)
    }
    n_sent: Counter[tuple[str, bytes]] = Counter()
    for topic in sorted({topic for topic, _ in last}):
        hashes = (hash_of(message.value) for message in TopicScan(log, topic, progress).messages())
        n_sent.update((topic, digest) for digest in hashes if (topic, digest) in last)
    items = []
    for place, letter in last.items():
        item = Item(topic=letter.topic, what="event", code=letter.code)
        if len(letter.payload) >= MAX_PAYLOAD_BYTES:
            item = replace(item, refusal="its dead letter was cut at 64 KB: let its sender send it again")
        elif n_sent[place] > n_letters[place]:
            item = replace(item, refusal="it has gone back already")
        else:
            item = replace(item, record=Record(letter.topic, b"redrive", letter.payload, headers={REDRIVEN: b"1"}))
        items.append(item)
    return items
