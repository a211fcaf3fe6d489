"""Bad input through the running worker, each with a good neighbor behind it that must come out."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest

from core.errors import Outcome
from core.ids import pack_visit, unpack_visit
from service.records import Manifest
from tests.support.service import bad_raws
from tests.support.service.datasets import borrow, events, make_testcam, moved_to_now
from tests.support.service.harness import Service

FIRST_SEQUENCE = 3000


class Field:
    """A running service on a dataset of its own that tests may spoil, and new readouts of it."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.root = service.settings.dataset
        self._base = {(e["detector"], e["band"]): e for e in events(self.root, "readout")}
        self._sequence = FIRST_SEQUENCE
        self.next_visit = events(self.root, "next-visit")[0]

    def readout(
        self, detector: int = 0, band: str = "r", spoil: Callable[[Path], None] | None = None
    ) -> dict[str, Any]:
        """A readout event with a raw of its own, spoiled or good."""
        base = self._base[detector, band]
        self._sequence += 1
        visit = pack_visit(unpack_visit(base["visit"])[0], self._sequence)
        raw = self.root / base["uri"]
        path = raw.with_name(f"{visit}_{detector:03d}.fits")
        path.write_bytes(bad_raws.with_sequence(raw.read_bytes(), self._sequence))
        if spoil is not None:
            spoil(path)
        changes = {"visit": visit, "uri": str(path.relative_to(self.root)), "digest": None, "group": f"g{visit}"}
        return moved_to_now(base | changes)

    def take(self, bad: dict[str, Any], good: dict[str, Any] | None = None) -> Manifest:
        """Publish a readout and a good neighbor of its detector; the manifest of the first, the second checked."""
        good = good or self.readout(bad["detector"])
        self.service.publish("readout", bad)
        self.check_neighbor(good)
        return self.manifest(bad)

    def check_neighbor(self, good: dict[str, Any] | None = None) -> None:
        """A good readout becomes alerts."""
        good = good or self.readout()
        self.service.publish("readout", good)
        self.service.pump(lambda: self.manifest(good) is not None)
        neighbor = self.manifest(good)
        assert (neighbor.outcome, neighbor.attempt) == (Outcome.ALERTS, 1), neighbor.message
        assert neighbor.n_alerts > 0

    def manifest(self, event: dict[str, Any]) -> Any:
        """Manifest of a readout, None before it has one."""
        key = (event["visit"], event["detector"])
        return next((m for m in self.service.manifests() if (m.visit, m.detector) == key), None)


@pytest.fixture(scope="module")
def field(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    dataset = make_testcam(request.config.cache.mkdir("testcam") / "dataset")
    folder = tmp_path_factory.mktemp("bad_input")
    mine = borrow(dataset, folder / "dataset")
    for name in ("template", "refcat"):
        (mine / name).unlink()
        shutil.copytree(dataset / name, mine / name)
    with Service(folder, dataset=mine, partitions=1) as service:
        yield Field(service)


def dead_letter(field: Field, event: dict[str, Any] | bytes, topic: str = "readout") -> str:
    """Publish what must become a dead letter, a good neighbor behind it; the letter's message."""
    before = len(field.service.dead_letters())
    rejected = field.service.sample("sub60_events_total", topic=topic, verdict="rejected")
    field.service.publish(topic, event)
    field.check_neighbor()
    letters = field.service.dead_letters()
    assert len(letters) == before + 1
    letter = letters[-1]
    assert field.service.sample("sub60_events_total", topic=topic, verdict="rejected") == rejected + 1
    assert field.service.sample("sub60_dead_letters_total", code=letter.code) >= 1
    assert letter.payload == (event if isinstance(event, bytes) else json.dumps(event).encode())
    return f"{letter.code}: {letter.message}"


@pytest.mark.parametrize("topic", ["readout", "next-visit"])
def test_an_event_that_is_not_json(field: Field, topic: str) -> None:
    assert dead_letter(field, b"\x00not json{", topic).startswith("not_json")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"readout_end_tai": "1970-01-01T00:00:00"}, "readout_end_tai"),
        ({"exposure_start_tai": "2200-01-01T00:00:00"}, "exposure_start_tai"),
        ({"detector": 999}, "unknown_detector: .* no detector 999"),
        ({"ra": 400.0}, "bad_event: ra"),
        ({"visit": None}, "bad_event: visit"),
        ({"uri": 7}, "bad_event: uri"),
        ({"instrument": "HSC"}, "unknown_instrument: .*'HSC'"),
    ],
)
def test_a_readout_event_with_absurd_fields(field: Field, changes: dict[str, Any], text: str) -> None:
    event = field.readout() | changes
    assert re.search(text, dead_letter(field, event))


def test_a_readout_event_with_missing_fields(field: Field) -> None:
    event = field.readout()
    del event["uri"], event["group"]
    message = dead_letter(field, event)
    assert "uri" in message
    assert "group" in message


def test_a_next_visit_event_with_absurd_fields(field: Field) -> None:
    assert "position" in dead_letter(field, field.next_visit | {"position": [400.0, 0.0]}, "next-visit")


@pytest.mark.parametrize(
    ("spoil", "outcome", "text"),
    [
        (bad_raws.truncated, Outcome.BAD_RAW, "truncated"),
        (bad_raws.empty, Outcome.REJECTED, "FITS"),
        (bad_raws.not_fits, Outcome.REJECTED, "FITS"),
        (bad_raws.gzipped, Outcome.REJECTED, "FITS"),
        (bad_raws.missing_segment, Outcome.BAD_RAW, "missing segment"),
        (bad_raws.wrong_dimensions, Outcome.BAD_RAW, "pixels, the camera's are"),
        (bad_raws.all_nan, Outcome.BAD_RAW, "not 16- or 32-bit integers"),
        (bad_raws.hcompress, Outcome.REJECTED, "HCOMPRESS_1"),
        (bad_raws.gzip_bomb, Outcome.BAD_RAW, "GZIP tile"),
        (bad_raws.all_saturated, None, ""),
        (bad_raws.saturated_sky, None, ""),
        (bad_raws.all_zero, None, ""),
    ],
)
def test_a_bad_raw(field: Field, spoil: Callable[[Path], None], outcome: Outcome | None, text: str) -> None:
    before = len(field.service.dead_letters())
    manifest = field.take(field.readout(spoil=spoil))
    assert manifest.message
    assert text in manifest.message
    assert manifest.attempt == 1, manifest.message  # an answer, not a crash
    assert manifest.n_alerts == 0
    if outcome is None:
        assert manifest.outcome in (Outcome.BAD_RAW, Outcome.ASTROMETRY_FAILED)
    else:
        assert manifest.outcome is outcome
    assert len(field.service.dead_letters()) == before + (outcome is Outcome.REJECTED)
    assert field.service.sample("sub60_visits_total", outcome=manifest.outcome.value) >= 1
    assert field.service.sample("sub60_failures_total", code=manifest.code) >= 1


def test_a_raw_that_is_not_there(field: Field) -> None:
    bad = field.readout(spoil=lambda path: path.unlink())
    manifest = field.take(bad)
    assert (manifest.outcome, manifest.code) == (Outcome.BAD_RAW, "raw_unreadable")


def test_a_raw_outside_the_dataset(field: Field) -> None:
    manifest = field.take(field.readout() | {"uri": "../../../etc/passwd"})
    assert (manifest.outcome, manifest.code) == (Outcome.REJECTED, "bad_uri")


def test_a_raw_of_another_detector(field: Field) -> None:
    other = field.readout(detector=1)
    manifest = field.take(field.readout(detector=0) | {"uri": other["uri"]})
    assert (manifest.outcome, manifest.code) == (Outcome.REJECTED, "header_mismatch")


def test_more_than_one_snap(field: Field) -> None:
    manifest = field.take(field.readout() | {"nsnaps": 2})
    assert manifest.outcome is Outcome.UNSUPPORTED


def test_a_readout_without_next_visit_is_cold_and_comes_out(field: Field) -> None:
    event = field.readout(detector=1)
    manifest = field.take(event)
    assert manifest.outcome is Outcome.ALERTS
    assert "redis" not in {source for kind, source, _, _ in manifest.bundle if kind != "history"}


def test_a_next_visit_without_readout_is_counted(field: Field) -> None:
    announced = field.next_visit | {"groupId": "never", "detectors": [0]}
    taken = field.service.sample("sub60_prepares_total", state="taken")
    field.service.publish("next-visit", moved_to_now(announced))
    field.service.pump(lambda: field.service.sample("sub60_prepares_total", state="taken") == taken + 1)
    hints = field.service.worker._hints
    hints.expire(field.service.process.clock.tai_s() + 1000.0)
    assert field.service.sample("sub60_prepares_total", state="unused") >= 1
    field.check_neighbor()


def test_no_template(field: Field) -> None:
    folder = field.root / "template" / "0" / "i"
    folder.rename(folder.with_name("away"))
    try:
        manifest = field.take(field.readout(band="i"))
    finally:
        folder.with_name("away").rename(folder)
    assert manifest.outcome is Outcome.NO_TEMPLATE
    assert manifest.n_alerts == 0
    assert manifest.summary["n_psf_stars"] > 0  # the single frame was processed all the same


def test_a_template_of_thirty_percent(field: Field) -> None:
    """Alerts come from where there is a template."""
    whole = field.take(field.readout(1, "i"))
    folder = field.root / "template" / "0" / "i"
    patches = sorted(folder.glob("*.fits"))
    hidden = patches[: round(0.7 * len(patches))]
    for patch in hidden:
        patch.rename(patch.with_suffix(".away"))
    try:
        manifest = field.take(field.readout(1, "i"))
    finally:
        for patch in hidden:
            patch.with_suffix(".away").rename(patch)
    assert (manifest.outcome, manifest.attempt) == (Outcome.ALERTS, 1), manifest.message
    assert 0.2 < manifest.summary["template_coverage"] < 0.4
    assert 0 < manifest.n_alerts < whole.n_alerts


def test_an_empty_reference_catalog(field: Field) -> None:
    kept = {path: path.read_bytes() for path in (field.root / "refcat").glob("*.fits")}
    for path in kept:
        table, header = fitsio.read(path, header=True)
        path.unlink()
        fitsio.write(path, table[:0], header=header)
    bad = field.readout()
    try:
        field.service.publish("readout", bad)
        field.service.pump(lambda: field.manifest(bad) is not None)
    finally:
        for path, content in kept.items():
            path.write_bytes(content)
    manifest = field.manifest(bad)
    assert manifest.outcome is Outcome.ASTROMETRY_FAILED
    assert manifest.message
    field.check_neighbor()


def test_the_worker_never_lost_its_child(field: Field) -> None:
    restarts = [
        sample.value
        for metric in field.service.process.registry.collect()
        for sample in metric.samples
        if sample.name == "sub60_child_restarts_total"
    ]
    assert np.sum(restarts) == 0
