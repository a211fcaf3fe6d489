"""A dataset's events published open-loop, as the observatory would send them, whatever the service does."""

import json
import random
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import count, groupby
from pathlib import Path
from typing import Any, Final

from core.ids import pack_visit, unpack_visit
from core.timescales import format_tai, parse_tai
from service import topics
from service.clock import SystemClock
from service.log import Log, Producer, Record

SEQUENCE_STEP: Final = 1000
"""A later round of the same visits has sequence numbers this much higher: a visit number is used once."""
MAX_ROUNDS: Final = 90
START_AFTER_S: Final = 0.5
_TAI_FIELDS: Final = ("exposure_start_tai", "exposure_end_tai", "readout_end_tai")
_UNIX_FIELDS: Final = ("startTime", "private_sndStamp")
_CARD: Final = 80
_HEADER_BYTES: Final = 28800


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedEvent:
    """One event of a dataset: its topic, when it comes [s from the first], its content."""

    topic: str
    at_s: float
    event: dict[str, Any]


def read_events(dataset: Path) -> list[TimedEvent]:
    """``events.jsonl`` in the order of time."""
    lines = (dataset / "events.jsonl").read_text(encoding="utf-8").splitlines()
    events = [TimedEvent(**json.loads(line)) for line in lines if line.strip()]
    return sorted(events, key=lambda item: item.at_s)


def readouts(events: Iterable[TimedEvent]) -> list[dict[str, Any]]:
    """The readout events."""
    return [item.event for item in events if item.topic == topics.READOUT]


def time_origin(events: Sequence[TimedEvent]) -> float:
    """TAI unix time that the dataset's own events give to ``at_s`` = 0: a readout comes when it ends."""
    first = next(item for item in events if item.topic == topics.READOUT)
    return parse_tai(first.event["readout_end_tai"]) - first.at_s


def moved(event: dict[str, Any], by_s: float) -> dict[str, Any]:
    """The event with all its times later by ``by_s``; the raw's header keeps the times of its exposure."""
    times: dict[str, Any] = {name: format_tai(parse_tai(event[name]) + by_s) for name in _TAI_FIELDS if name in event}
    times |= {name: event[name] + by_s for name in _UNIX_FIELDS if name in event}
    return event | times


def spaced(events: Sequence[TimedEvent], cadence_s: float) -> list[TimedEvent]:
    """The same visits at another cadence: each visit's events keep their distance to its next-visit event."""
    starts = {item.event["groupId"]: item.at_s for item in events if item.topic == topics.NEXT_VISIT}
    order = {group: index for index, group in enumerate(sorted(starts, key=lambda group: starts[group]))}
    first = min(starts.values())
    result = []
    for item in events:
        group = item.event["groupId" if item.topic == topics.NEXT_VISIT else "group"]
        shift = first + order[group] * cadence_s - starts[group]
        result.append(replace(item, at_s=item.at_s + shift, event=moved(item.event, shift)))
    return sorted(result, key=lambda item: item.at_s)


def renumbered(events: Sequence[TimedEvent], dataset: Path, round_number: int) -> list[TimedEvent]:
    """The same night once more under new visit numbers, with copies of its raws and ephemerides in the dataset.

    The copies stay: the next replay finds them, and a service that lags still has to read them.
    """
    if round_number == 0:
        return list(events)
    if not 0 < round_number <= MAX_ROUNDS:
        raise ValueError(f"a night is replayed at most {MAX_ROUNDS} times")
    result = []
    for item in events:
        event = dict(item.event)
        if item.topic == topics.NEXT_VISIT:
            event["groupId"] = _regrouped(event["groupId"], round_number)
            if "visit" in event:
                event["visit"] = _later_visit(event["visit"], round_number)
        else:
            visit = _later_visit(event["visit"], round_number)
            raw = dataset / event["uri"]
            copy = raw.with_name(f"{visit}_{event['detector']:03d}.fits")
            if raw.is_file() and not copy.is_file():  # where pixels are only slept through there is none
                copy.write_bytes(with_sequence(raw.read_bytes(), unpack_visit(visit)[1]))
            _copy_ephemerides(dataset, event["visit"], visit)
            event |= {
                "visit": visit,
                "group": _regrouped(event["group"], round_number),
                "uri": str(copy.relative_to(dataset)),
            }
            if "digest" in event:
                event["digest"] = sha256(copy.read_bytes()).hexdigest()
        result.append(replace(item, event=event))
    return result


def _later_visit(visit: int, round_number: int) -> int:
    day, sequence = unpack_visit(visit)
    return pack_visit(day, sequence + SEQUENCE_STEP * round_number)


def _regrouped(group: str, round_number: int) -> str:
    return f"{group}#{round_number}"


def _copy_ephemerides(dataset: Path, visit: int, later: int) -> None:
    source, copy = (dataset / "ephemerides" / f"{number}.fits" for number in (visit, later))
    if source.is_file() and not copy.is_file():
        shutil.copyfile(source, copy)


def with_sequence(raw: bytes, sequence: int) -> bytes:
    """The raw file with another sequence number in its primary header."""
    header = raw[:_HEADER_BYTES]
    for start in range(0, len(header), _CARD):
        if header[start : start + 9] == b"SEQNUM  =":
            card = f"SEQNUM  = {sequence:>20d}".encode().ljust(_CARD)
            return raw[:start] + card + raw[start + _CARD :]
    raise ValueError("the raw has no SEQNUM")


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What a replay has sent: distinct readouts, and how late the latest event left [s]."""

    readouts: tuple[tuple[int, int], ...]
    n_events: int
    max_lag_s: float


def publish(
    producer: Producer,
    events: Sequence[TimedEvent],
    *,
    jitter_s: float = 0.0,
    seed: int = 1,
    on_event: Callable[[TimedEvent], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Published:
    """Send each event at its time, the first ``START_AFTER_S`` from now, never waiting for an answer.

    With ``jitter_s`` a readout's message is delayed at random by up to that much; its times are not.
    """
    clock = SystemClock()
    start_s = clock.tai_s() + START_AFTER_S
    start_monotonic = clock.monotonic_s() + START_AFTER_S
    shift = start_s - events[0].at_s - time_origin(events)
    rng = random.Random(seed)
    planned = []
    for item in events:
        delay = rng.uniform(0, jitter_s) if item.topic == topics.READOUT and jitter_s else 0.0
        planned.append((item.at_s - events[0].at_s + delay, item))
    lag = 0.0
    # what is due at one time leaves in one write: a focal plane's readouts end together
    for at_s, due in groupby(sorted(planned, key=lambda pair: pair[0]), key=lambda pair: pair[0]):
        items = [replace(item, event=moved(item.event, shift)) for _, item in due]
        records = [_record(item) for item in items]
        if (wait := start_monotonic + at_s - clock.monotonic_s()) > 0:
            sleep(wait)
        producer.append(records)
        lag = max(lag, clock.monotonic_s() - start_monotonic - at_s)
        for item in items:
            on_event(item)
    sent = tuple((event["visit"], event["detector"]) for event in readouts(events))
    return Published(readouts=sent, n_events=len(events), max_lag_s=lag)


def _record(item: TimedEvent) -> Record:
    key = str(item.event.get("group") or item.event.get("groupId")).encode()
    return Record(item.topic, key, json.dumps(item.event).encode())


def rounds(events: Sequence[TimedEvent], dataset: Path, first: int, repeat: int | None) -> Iterator[list[TimedEvent]]:
    """Rounds of the night one after another; ``repeat`` None: without end, up to the numbers there are."""
    for number in count(first) if repeat is None else range(first, first + repeat):
        yield renumbered(events, dataset, number)


def used_visits(log: Log) -> set[int]:
    """Visits of which the log holds manifests."""
    from service.records import Manifest, unpack

    reader = log.reader(topics.MANIFESTS)
    visits: set[int] = set()
    while messages := reader.poll(1.0):
        visits |= {unpack(Manifest, message.value).visit for message in messages}
    reader.close()
    return visits


def first_free_round(events: Sequence[TimedEvent], used: set[int]) -> int:
    """The first round none of whose visits the log knows."""
    mine = {event["visit"] for event in readouts(events)}
    for number in range(MAX_ROUNDS + 1):
        if not {_later_visit(visit, number) for visit in mine} & used:
            return number
    raise ValueError("every round of this dataset has been replayed on this log")


def partitions_for(detectors: Sequence[int], workers: int) -> int:
    """Least number of partitions over which these detectors spread evenly among the workers.

    A log may share its partitions out in turn or in ranges, the longer ranges first or last, as its workers happened to
    join; the number found serves all three.
    """
    numbers = sorted(set(detectors))
    wanted = min(workers, len(numbers))
    for n in range(workers, 200):
        places = [number % n for number in numbers]
        ways = (
            {place % workers for place in places},
            {place * workers // n for place in places},
            {(n - 1 - place) * workers // n for place in places},
        )
        if len(set(places)) == len(numbers) and all(len(way) == wanted for way in ways):
            return n
    return max(4, workers)


def describe(item: TimedEvent) -> str:
    """One line about an event that has been sent; a next-visit event may name its visit, and has no one detector."""
    event = item.event
    what = f"visit {event['visit']} detector {event['detector']}" if "detector" in event else event.get("groupId", "")
    return f"{item.topic:10s} {what}"
