"""Events at the border: what is let in and what is not."""

import json
from typing import Any

import pytest

from core.camera import load_camera
from core.errors import RejectedInputError
from service.events import NextVisit, ReadoutEvent, check_camera, object_keys, parse_event, parse_json
from tests.support.service.builders import T0, next_visit_event, readout_event


def test_readout_times_are_tai_seconds() -> None:
    event = parse_event(ReadoutEvent, readout_event())
    assert event.readout_end_tai_s == pytest.approx(T0, abs=1e-3)
    assert event.readout_end_tai_s - event.exposure_end_tai_s == pytest.approx(2.0, abs=1e-5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("exposure_start_tai", "1970-01-01T00:00:00"),
        ("readout_end_tai", "2200-01-01T00:00:00"),
        ("readout_end_tai", "2026-05-28T00:00:00Z"),
        ("readout_end_tai", 1.78e9),
        ("ra", 400.0),
        ("ra", -1.0),
        ("ra", float("nan")),
        ("ra", "150"),
        ("dec", 91.0),
        ("rot_sky", float("inf")),
        ("detector", -1),
        ("detector", "3"),
        ("detector", 1.5),
        ("visit", -5),
        ("visit", 2026133200001),
        ("visit", 2200010100001),
        ("visit", 10**30),
        ("band", "q"),
        ("nsnaps", 0),
        ("uri", ""),
        ("group", ""),
        ("group", None),
        ("digest", "short"),
    ],
)
def test_absurd_readouts_are_rejected_with_the_field_named(field: str, value: Any) -> None:
    with pytest.raises(RejectedInputError, match=field.removesuffix("_tai")) as caught:
        parse_event(ReadoutEvent, readout_event(**{field: value}))
    assert caught.value.code == "bad_event"


@pytest.mark.parametrize("field", ["instrument", "visit", "detector", "readout_end_tai", "uri", "ra"])
def test_missing_fields_are_named(field: str) -> None:
    event = readout_event()
    del event[field]
    with pytest.raises(RejectedInputError, match=field):
        parse_event(ReadoutEvent, event)


def test_times_out_of_order_are_rejected() -> None:
    event = readout_event()
    event["exposure_end_tai"], event["exposure_start_tai"] = event["exposure_start_tai"], event["exposure_end_tai"]
    with pytest.raises(RejectedInputError, match="order"):
        parse_event(ReadoutEvent, event)


def test_unknown_fields_are_ignored() -> None:
    assert parse_event(ReadoutEvent, readout_event(weather="fine")).group == "g1"


def test_next_visit_has_rubins_fields() -> None:
    event = parse_event(NextVisit, next_visit_event(detectors=[1, 4]))
    assert (event.group, event.band, event.position, event.detectors) == ("g1", "r", (150.0, 2.0), (1, 4))


@pytest.mark.parametrize(("filters", "band"), [("r_57", "r"), ("y", "y"), ("g_6~holo", "g"), ("", ""), ("clear", "")])
def test_band_of_a_physical_filter(filters: str, band: str) -> None:
    assert parse_event(NextVisit, next_visit_event(filters=filters)).band == band


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("position", [400.0, 0.0]),
        ("position", [1.0]),
        ("position", [1.0, 95.0]),
        ("startTime", 0.0),
        ("startTime", 7.3e9),
        ("cameraAngle", 1e9),
        ("duration", -1.0),
        ("detectors", "all"),
    ],
)
def test_absurd_next_visits_are_rejected(field: str, value: Any) -> None:
    with pytest.raises(RejectedInputError, match=field):
        parse_event(NextVisit, next_visit_event(**{field: value}))


def test_instrument_and_detector_must_be_the_cameras() -> None:
    camera = load_camera("lsstcam")
    check_camera(parse_event(ReadoutEvent, readout_event(detector=188)), camera)
    with pytest.raises(RejectedInputError) as unknown:
        check_camera(parse_event(ReadoutEvent, readout_event(detector=999)), camera)
    assert unknown.value.code == "unknown_detector"
    with pytest.raises(RejectedInputError) as foreign:
        check_camera(parse_event(NextVisit, next_visit_event(instrument="HSC")), camera)
    assert foreign.value.code == "unknown_instrument"


@pytest.mark.parametrize("payload", [b"", b"{", b"\xff\xfe", b"[1]", b'"text"', b"[" * 100_000])
def test_what_is_not_a_json_object_is_rejected(payload: bytes) -> None:
    with pytest.raises(RejectedInputError) as caught:
        parse_json(payload)
    assert caught.value.code == "not_json"


def test_object_notification_keys() -> None:
    record = {"eventName": "s3:ObjectCreated:Put", "s3": {"object": {"key": "raw/20260528/1_000.fits"}}}
    removed = record | {"eventName": "ObjectRemoved:Delete"}
    assert object_keys({"Records": [record, removed]}) == ["raw/20260528/1_000.fits"]
    encoded = {"eventName": "ObjectCreated:Put", "s3": {"object": {"key": "raw%2FM%C3%A4rz+1/1%2B1_000.fits"}}}
    assert object_keys({"Records": [encoded]}) == ["raw/März 1/1+1_000.fits"]
    assert object_keys(json.loads(json.dumps(readout_event()))) is None
    with pytest.raises(RejectedInputError):
        object_keys({"Records": [{"s3": {}}]})
