"""Events moved to now, nights repeated under new numbers, published open-loop."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from benchmarks.replay import (
    START_AFTER_S,
    TimedEvent,
    describe,
    first_free_round,
    moved,
    publish,
    read_events,
    renumbered,
    rounds,
    spaced,
)
from core.timescales import parse_tai
from service.clock import SystemClock
from service.events import NextVisit, ReadoutEvent, parse_event
from service.log import Record

T0 = "2026-11-20T03:07:44.400000"


def readout(visit: int, detector: int, end: str = T0) -> dict[str, object]:
    return {
        "instrument": "TestCam", "group": f"g{visit}", "visit": visit, "snap": 0, "nsnaps": 1, "detector": detector,
        "band": "r", "exposure_start_tai": "2026-11-20T03:07:12.000000",
        "exposure_end_tai": "2026-11-20T03:07:42.000000",
        "readout_end_tai": end, "uri": f"raw/20261119/{visit}_{detector:03d}.fits", "ra": 36.9, "dec": -4.8,
        "rot_sky": 5.0, "digest": "0" * 64,
    }  # fmt: skip


def next_visit(visit: int) -> dict[str, object]:
    return {
        "groupId": f"g{visit}", "coordinateSystem": 2, "position": [36.9, -4.8], "startTime": 1795144064.4,
        "rotationSystem": 2, "cameraAngle": 5.0, "filters": "r_57", "duration": 32.4, "nimages": 1,
        "instrument": "TestCam", "visit": visit, "private_sndStamp": 1795144055.4, "detectors": [0, 1],
    }  # fmt: skip


@dataclass
class Sent:
    """A producer that keeps what it is given."""

    records: list[Record] = field(default_factory=list)

    def append(self, records: list[Record]) -> None:
        self.records += records

    def close(self) -> None:
        pass


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    visit = 2026111900120
    lines = [
        {"topic": "readout", "at_s": 9.0, "event": readout(visit, 1)},
        {"topic": "next-visit", "at_s": 0.0, "event": next_visit(visit)},
        {"topic": "readout", "at_s": 20.0, "event": readout(visit + 1, 0, "2026-11-20T03:07:55.400000")},
        {"topic": "next-visit", "at_s": 11.0, "event": next_visit(visit + 1)},
    ]
    (tmp_path / "events.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    (tmp_path / "raw" / "20261119").mkdir(parents=True)
    (tmp_path / "ephemerides").mkdir()
    (tmp_path / "ephemerides" / f"{visit}.fits").write_bytes(b"table")
    cards = [f"{name:8s}= {value:>20d}".ljust(80) for name, value in (("BITPIX", 8), ("SEQNUM", 120), ("DETECTOR", 1))]
    for name in (f"{visit}_001", f"{visit + 1}_000"):
        (tmp_path / "raw" / "20261119" / f"{name}.fits").write_bytes("".join(cards).encode().ljust(2880) + b"pixels")
    return tmp_path


def test_events_come_in_order_of_time(dataset: Path) -> None:
    assert [item.at_s for item in read_events(dataset)] == [0.0, 9.0, 11.0, 20.0]


def test_all_times_of_an_event_move_together() -> None:
    event = moved(readout(2026111900120, 0), 3600.5)
    assert event["readout_end_tai"] == "2026-11-20T04:07:44.900000"
    assert event["exposure_start_tai"] == "2026-11-20T04:07:12.500000"
    assert moved(next_visit(1), 10.0)["startTime"] == pytest.approx(1795144074.4)


def test_a_readout_is_published_when_it_ends(dataset: Path) -> None:
    waits: list[float] = []
    sent = Sent()
    before = SystemClock().tai_s()
    result = publish(sent, read_events(dataset), sleep=waits.append)
    ends = [
        parse_event(ReadoutEvent, json.loads(record.value)).readout_end_tai_s
        for record in sent.records
        if record.topic == "readout"
    ]
    assert ends[0] - before == pytest.approx(START_AFTER_S + 9.0, abs=0.2)
    assert ends[1] - ends[0] == pytest.approx(11.0)
    parse_event(NextVisit, json.loads(sent.records[0].value))
    assert waits == pytest.approx([START_AFTER_S + at_s for at_s in (0.0, 9.0, 11.0, 20.0)], abs=0.2)
    assert result.readouts == ((2026111900120, 1), (2026111900121, 0))


def test_jitter_delays_messages_and_not_their_times(dataset: Path) -> None:
    plain, late = Sent(), Sent()
    waits: list[float] = []
    publish(plain, read_events(dataset), sleep=lambda _: None)
    publish(late, read_events(dataset), jitter_s=5.0, sleep=waits.append)
    assert max(waits) > START_AFTER_S + 20.0
    difference = [
        parse_tai(json.loads(b.value)["readout_end_tai"]) - parse_tai(json.loads(a.value)["readout_end_tai"])
        for a, b in zip(plain.records, late.records, strict=True)
        if a.topic == "readout"
    ]
    assert max(difference) < 0.5


def test_another_round_is_another_night(dataset: Path) -> None:
    events = read_events(dataset)
    nights = list(rounds(events, dataset, 0, 2))
    assert nights[0] == events
    later = nights[1]
    visits = [item.event["visit"] for item in later if item.topic == "readout"]
    assert visits == [2026111901120, 2026111901121]
    raw = dataset / later[1].event["uri"]
    assert b"SEQNUM  =                 1120" in raw.read_bytes()
    assert len(raw.read_bytes()) == 2886
    assert later[0].event["visit"] == 2026111901120
    assert later[0].event["groupId"] == later[1].event["group"]
    assert (dataset / "ephemerides" / "2026111901120.fits").is_file()
    assert first_free_round(events, {2026111900121, 2026111901120}) == 2
    with pytest.raises(ValueError, match="at most"):
        renumbered(events, dataset, 91)


def test_another_cadence_keeps_the_lead(dataset: Path) -> None:
    events = spaced(read_events(dataset), 30.0)
    assert [item.at_s for item in events] == [0.0, 9.0, 30.0, 39.0]
    ends = [parse_tai(item.event["readout_end_tai"]) for item in events if item.topic == "readout"]
    assert ends[1] - ends[0] == pytest.approx(30.0)
    assert isinstance(events[0], TimedEvent)


def test_an_event_is_described_with_or_without_a_detector() -> None:
    assert describe(TimedEvent(topic="readout", at_s=0, event=readout(7, 3))) == "readout    visit 7 detector 3"
    named = next_visit(7) | {"visit": 7}  # as the simulator's: a visit number, and a list of detectors
    assert describe(TimedEvent(topic="next-visit", at_s=0, event=named)) == "next-visit g7"
