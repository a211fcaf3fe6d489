"""Fan-out: one record a detector in the detector's partition, dead letters for the rest."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from core.camera import load_camera
from service.log.contract import Message
from service.metrics import Metrics
from service.records import DeadLetter, Prepare, Readout, unpack, unpack_any
from service.roles.fanout import MAX_OBJECTS, SIDECAR_TRIES, FanOut
from tests.support.service.builders import T0, VISIT, next_visit_event, readout_event
from tests.support.service.fakes import FakeClock

KEY = "raw/20260528/x.fits"


@pytest.fixture
def fan_out(tmp_path: Path) -> FanOut:
    return FanOut(
        load_camera("lsstcam"), 4, (tmp_path,), FakeClock(), Metrics(CollectorRegistry()), sleep=lambda _: None
    )


def message(topic: str, event: dict[str, Any] | bytes) -> Message:
    value = event if isinstance(event, bytes) else json.dumps(event).encode()
    return Message(topic, 0, 7, b"k", value, {}, 0)


def notification(key: str) -> dict[str, Any]:
    return {"Records": [{"eventName": "s3:ObjectCreated:Put", "s3": {"object": {"key": key}}}]}


def test_next_visit_is_one_prepare_a_detector_in_its_partition(fan_out: FanOut) -> None:
    records = fan_out.records(message("next-visit", next_visit_event()))
    prepares = [unpack(Prepare, record.value) for record in records]
    assert [p.detector for p in prepares] == list(range(189))
    assert all(r.topic == "work" and r.partition == p.detector % 4 for r, p in zip(records, prepares, strict=True))
    assert {(p.group, p.band, p.ra_deg, p.dec_deg) for p in prepares} == {("g1", "r", 150.0, 2.0)}


def test_only_the_detectors_asked_for(fan_out: FanOut) -> None:
    records = fan_out.records(message("next-visit", next_visit_event(detectors=[94, 4, 4])))
    assert [unpack(Prepare, record.value).detector for record in records] == [4, 94]


def test_nothing_is_prepared_for_detectors_that_are_off_and_their_readouts_are_work(tmp_path: Path) -> None:
    metrics, off = Metrics(CollectorRegistry()), frozenset({4, 94})
    fan_out = FanOut(load_camera("lsstcam"), 4, (tmp_path,), FakeClock(), metrics, switched_off=off)
    records = fan_out.records(message("next-visit", next_visit_event()))
    assert {unpack(Prepare, record.value).detector for record in records} == set(range(189)) - off
    assert len(fan_out.records(message("readout", readout_event(detector=94)))) == 1


@pytest.mark.parametrize(
    "changes", [{"coordinateSystem": 3}, {"rotationSystem": 4}, {"filters": ""}, {"canceled": True}]
)
def test_pointings_that_nothing_can_be_loaded_for_are_no_work(fan_out: FanOut, changes: dict[str, Any]) -> None:
    assert fan_out.records(message("next-visit", next_visit_event(**changes))) == []


def test_readout_is_a_job_with_its_time_of_receipt(fan_out: FanOut) -> None:
    (record,) = fan_out.records(message("readout", readout_event(detector=94)))
    readout = unpack(Readout, record.value)
    assert (record.partition, readout.visit, readout.detector) == (94 % 4, VISIT, 94)
    assert readout.readout_end_tai_s == pytest.approx(T0, abs=1e-3)
    assert readout.received_tai_s == pytest.approx(T0 + 0.2)


def test_rejected_event_is_a_dead_letter_with_cause_and_payload(fan_out: FanOut) -> None:
    event = readout_event(detector=999)
    (record,) = fan_out.records(message("readout", event))
    letter = unpack(DeadLetter, record.value)
    assert record.topic == "deadletters"
    assert (letter.topic, letter.code) == ("readout", "unknown_detector")
    assert json.loads(letter.payload) == event


def test_object_notification_takes_the_sidecar(fan_out: FanOut, tmp_path: Path) -> None:
    path = (tmp_path / KEY).with_suffix(".json")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(readout_event(uri="elsewhere")))
    (record,) = fan_out.records(message("readout", notification(KEY)))
    assert unpack(Readout, record.value).uri == KEY


def test_sidecar_is_waited_for_and_its_absence_is_a_dead_letter(tmp_path: Path) -> None:
    waits: list[float] = []
    camera, metrics = load_camera("lsstcam"), Metrics(CollectorRegistry())
    fan_out = FanOut(camera, 4, (tmp_path,), FakeClock(), metrics, sleep=waits.append)
    (record,) = fan_out.records(message("readout", notification(KEY)))
    letter = unpack_any(record.value)
    assert isinstance(letter, DeadLetter)
    assert letter.code == "no_sidecar"
    assert len(waits) == SIDECAR_TRIES - 1


@pytest.mark.parametrize(
    "key", ["", "/", ".", "..", "a/..", "x\0.fits", "\ud800.fits", "x" * 5000, "//h/x", "circle/x"]
)
def test_no_key_ends_the_role(fan_out: FanOut, tmp_path: Path, key: str) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (record,) = fan_out.records(message("readout", notification(key)))
    letter = unpack(DeadLetter, record.value)
    assert letter.code in ("bad_uri", "no_sidecar", "bad_event")


def test_a_sidecar_that_is_no_file_or_too_large_is_not_read(fan_out: FanOut, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "dir.json").mkdir()
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(1 << 40)  # sparse: read into memory it would end the role
    for name in ("pipe", "dir", "large"):
        (record,) = fan_out.records(message("readout", notification(f"{name}.fits")))
        assert unpack(DeadLetter, record.value).code == "no_sidecar"


def test_a_notification_of_many_absent_objects_waits_once(tmp_path: Path) -> None:
    waits: list[float] = []
    metrics = Metrics(CollectorRegistry())
    fan_out = FanOut(load_camera("lsstcam"), 4, (tmp_path,), FakeClock(), metrics, sleep=waits.append)
    (tmp_path / "x.json").write_text(json.dumps(readout_event(uri="x")))
    many = {"Records": notification("x.fits")["Records"] * 200 + notification("absent.fits")["Records"] * 50}
    (record,) = fan_out.records(message("readout", many))
    assert unpack(DeadLetter, record.value).code == "no_sidecar"
    assert len(waits) < SIDECAR_TRIES
    endless = {"Records": notification("x.fits")["Records"] * (MAX_OBJECTS + 1)}
    (record,) = fan_out.records(message("readout", endless))
    assert unpack(DeadLetter, record.value).code == "bad_event"


@pytest.mark.parametrize(
    "payload",
    [
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"9" * 100_000,
        b'{"visit": ' + b"9" * 5000 + b"}",
        b'{"visit": NaN, "detector": Infinity}',
        b'{"group": "\\ud800", "instrument": "LSSTCam"}',
        b"\xff\xfe",
        b" " * (2 << 20),
        b'{"Records": [{"eventName": 1, "s3": 2}]}',
        b'{"Records": []}',
    ],
)
def test_no_json_ends_the_role(fan_out: FanOut, payload: bytes) -> None:
    for topic in ("readout", "next-visit"):
        for record in fan_out.records(message(topic, payload)):
            assert record.topic == "deadletters"


def test_object_outside_the_folder_is_refused(fan_out: FanOut) -> None:
    (record,) = fan_out.records(message("readout", notification("../../etc/x.fits")))
    assert unpack(DeadLetter, record.value).code == "bad_uri"


@pytest.mark.parametrize(
    ("key", "code"),
    [
        ("", "bad_uri"),
        ("/", "bad_uri"),
        ("a\x00b.fits", "bad_uri"),
        ("\ud800.fits", "bad_event"),
        ("raw/a\udcff.fits", "bad_event"),
        ({"a": 1}, "bad_event"),
        ("x" * 300, "no_sidecar"),
    ],
)
def test_a_key_that_names_no_file_is_a_dead_letter(fan_out: FanOut, key: Any, code: str) -> None:
    (record,) = fan_out.records(message("readout", notification(key)))
    assert unpack(DeadLetter, record.value).code == code
