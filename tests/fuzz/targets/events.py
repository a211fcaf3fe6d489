"""Events from outside through fan-out, and records through their unpacker.

The first byte says what an input is: ``n`` a next-visit, ``r`` a readout or an object notification,
``p`` a packed record.
"""

import json
import sys
from pathlib import Path
from random import Random
from typing import Any, Final

import msgpack
import numpy as np
from prometheus_client import CollectorRegistry

from core.camera import load_camera
from core.contracts.catalogs import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, SS_SOURCE, empty_catalog
from core.errors import Outcome, RejectedInputError
from service import topics
from service.log.contract import MAX_VALUE_BYTES, Message
from service.metrics import Metrics
from service.records import (
    Committed,
    DeadLetter,
    Heartbeat,
    Manifest,
    Prepare,
    Readout,
    Result,
    pack,
    unpack,
    unpack_any,
)
from service.roles.fanout import FanOut
from tests.fuzz.mutate import TEXTS, json_bytes, spoil_bytes, spoil_object
from tests.fuzz.target import ACCEPTED, Target
from tests.support.service.builders import VISIT, next_visit_event, prepare, readout, readout_event
from tests.support.service.fakes import FakeClock

PARTITIONS: Final = 3
KEY: Final = "raw/20260528/good.fits"
CODES: Final = frozenset(
    {
        "not_json",
        "too_large",
        "bad_event",
        "bad_uri",
        "no_sidecar",
        "unknown_instrument",
        "unknown_detector",
        "bad_visit",
    }
)
"""Every way in which an event may be refused: labels come from a closed set."""
TOPICS: Final = {b"n": topics.NEXT_VISIT, b"r": topics.READOUT}


class Events(Target):
    """Records or one dead letter an event; nothing opened outside the dataset's folder."""

    def __init__(self, scratch: Path) -> None:
        self._root = scratch / "root"
        folder = self._root / "raw" / "20260528"
        folder.mkdir(parents=True)
        (folder / "good.json").write_text(json.dumps(readout_event(instrument="TestCam")))
        (folder / "broken.json").write_bytes(b"{")
        (folder / "link.json").symlink_to("/etc/hostname")
        (folder / "folder.json").mkdir()
        camera = load_camera("testcam")
        self._detectors = frozenset(camera.detectors)
        metrics = Metrics(CollectorRegistry())
        self._fan_out = FanOut(camera, PARTITIONS, (self._root,), FakeClock(), metrics, sleep=lambda _: None)
        self._seeds = [next_visit_event(instrument="TestCam"), next_visit_event(instrument="TestCam", detectors=[0, 2])]
        self._seeds.append({"groupId": "g1", "canceled": True})
        self._readouts = [
            readout_event(instrument="TestCam", digest="a" * 64),
            notification(KEY),
            notification(KEY, KEY),
        ]
        self._packed = packed_records()
        self._outside: list[str] = []
        self._is_watching = False
        # an interpreter never forgets a hook; it is quiet but for the moment of a check
        sys.addaudithook(self._audit)

    def make(self, random: Random) -> bytes:
        """An event or a packed record, broken once or a few times; now and then not at all."""
        if random.random() < 0.25:
            return b"p" + self._make_record(random)
        kind = random.choice(b"nr")
        event: dict[str, Any] = random.choice(self._seeds if kind == ord("n") else self._readouts)
        if kind == ord("r") and random.random() < 0.3:
            event = notification(*(hostile_key(random) for _ in range(random.choice((1, 1, 2, 20)))))
        for _ in range(random.choice((0, 1, 1, 1, 2, 4))):
            event = spoil_object(event, random)
        data = json_bytes(event, random)
        for _ in range(random.choice((0, 0, 0, 0, 1, 3))):
            data = spoil_bytes(data, random)
        return bytes([kind]) + data

    def check(self, data: bytes) -> str:
        """See the module."""
        if data[:1] not in TOPICS:
            return check_record(data[1:])
        message = Message(TOPICS[data[:1]], 0, 7, b"k", data[1:], {}, 0)
        self._outside.clear()
        self._is_watching = True
        try:
            records = self._fan_out.records(message)
        finally:
            self._is_watching = False
        assert not self._outside, f"opened outside the root: {self._outside}"
        letters = [record for record in records if record.topic == topics.DEAD_LETTERS]
        if letters:
            assert len(records) == 1, "a dead letter is not alone"
            letter = unpack(DeadLetter, letters[0].value)
            assert letter.code in CODES, f"code {letter.code} is not in the closed set"
            assert data[1:].startswith(letter.payload), "the dead letter has another payload"
            assert len(letters[0].value) < MAX_VALUE_BYTES
            return letter.code
        for record in records:
            work = unpack_any(record.value)
            assert isinstance(work, Prepare if message.topic == topics.NEXT_VISIT else Readout)
            assert work.detector in self._detectors
            assert (record.topic, record.partition) == (topics.WORK, work.detector % PARTITIONS), "wrong partition"
        return ACCEPTED

    def _make_record(self, random: Random) -> bytes:
        seed = random.choice(self._packed)
        if random.random() < 0.5 and len(seed) < 5000:
            message = msgpack.unpackb(seed, strict_map_key=False)
            for _ in range(random.choice((1, 1, 2))):
                message = spoil_object(message, random)
            try:
                return bytes(msgpack.packb(message, unicode_errors="surrogatepass"))
            except (OverflowError, ValueError):
                pass  # a number or a depth that msgpack has no place for
        for _ in range(random.choice((1, 1, 2, 6))):
            seed = spoil_bytes(seed, random)
        return seed

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._is_watching and event == "open" and isinstance(arguments[0], str | bytes):
            path = Path(arguments[0].decode(errors="replace") if isinstance(arguments[0], bytes) else arguments[0])
            is_code = path.suffix in (".py", ".pyc", ".so")  # a module imported at its first use
            if not is_code and not path.resolve().is_relative_to(self._root.resolve()):
                self._outside.append(str(path)[:200])


def check_record(data: bytes) -> str:
    """A packed record is one of ours that can be packed again, or rejected."""
    try:
        record = unpack_any(data)
    except RejectedInputError as error:
        return f"record_{error.code}"
    try:
        again = pack(record)
    except (TypeError, ValueError, OverflowError):
        return "record_odd"  # fields of other types than ours, which pack does not know
    unpack_any(again)
    return ACCEPTED


def notification(*keys: str) -> dict[str, Any]:
    """An S3 notification."""
    made = [{"eventName": "s3:ObjectCreated:Put", "s3": {"object": {"key": key, "size": 5}}} for key in keys]
    return {"EventName": "s3:ObjectCreated:Put", "Records": made}


def hostile_key(random: Random) -> str:
    """A key that is good, broken, points elsewhere, or is no name at all."""
    folder = random.choice(
        ("", "raw/20260528/", "/", "../", "//", "./", "raw/../../", "/etc/", "\x00/", "raw/20260528/../")
    )
    name = random.choice(
        ("good.fits", "broken.fits", "link.fits", "folder.fits", "none.fits", "good", "passwd", *TEXTS)
    )
    return folder + name + random.choice(("", "", ".gz", "/", "/.."))


def packed_records() -> list[bytes]:
    """One of each kind, with arrays."""
    rows = {
        "dia_sources": empty_catalog(DIA_SOURCE, 2), "dia_objects": empty_catalog(DIA_OBJECT, 1),
        "dia_forced_sources": empty_catalog(DIA_FORCED_SOURCE, 1), "ss_sources": empty_catalog(SS_SOURCE, 0),
    }  # fmt: skip
    visit: dict[str, Any] = {"visit": VISIT, "detector": 1, "band": "r", "outcome": Outcome.ALERTS}
    array = {"__dtype__": repr(np.dtype([("a", "<f8")]).descr), "data": bytes(16)}
    times = {"committed_tai_s": 1.0, "commit_s": 0.1, "latency_s": 2.0, "shutter_latency_s": 4.0}
    return [
        pack(prepare(instrument="TestCam")),
        pack(readout(digest="a" * 64)),
        pack(Manifest(instrument="TestCam", group="g", counts={"n": 1}, timings=(("isr", 1.0, 1.0),), **visit)),
        pack(Committed(n_alerts=1, is_clock_suspect=False, **visit, **times)),
        pack(DeadLetter(topic="readout", partition=0, code="not_json", message="m", payload=b"\xff", at_tai_s=1.0)),
        pack(Heartbeat(worker="w", at_tai_s=1.0, is_ready=True, partitions=(0,), n_waiting=0, current=(VISIT, 1))),
        pack(Result(midpoint_mjd_tai=6e4, processed_mjd_tai=6e4, **visit, **rows)),
        bytes(msgpack.packb({"format": 1, "record": "Prepare", "fields": {"group": array}})),
        bytes(msgpack.packb(array)),
    ]  # fmt: skip
