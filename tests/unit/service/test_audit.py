"""Every discrepancy planted once in sources that agree: it is named, and nothing else is."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from alerts.files import write_alerts
from core.contracts.catalogs import DIA_FORCED_SOURCE, DIA_OBJECT, SS_SOURCE, empty_catalog
from core.errors import ConfigurationError, Outcome
from core.timescales import unix_tai_to_utc
from service import topics
from service.audit import AuditReport, Kind, audit
from service.cli import main
from service.commands.audit import moment
from service.log.contract import Message, Record
from service.records import DeadLetter, Manifest, Result, pack
from service.roles.archive import APDB, FILES
from service.roles.commit_records import id_digest
from service.settings import read_settings
from tests.support.service.builders import T0, VISIT, readout_event
from tests.support.service.fakes import FakeClock
from tests.support.service.memory_log import MemoryLog
from tests.support.service.small_alerts import MIDPOINT_MJD_TAI, small_alerts, small_sources

N = 3
T0_MS = int(unix_tai_to_utc(T0) * 1000)


class Night:
    """Six readouts: detectors 0-3 gave alerts, 4 crashed, 5 is a held storm; one event was refused."""

    def __init__(self, folder: Path) -> None:
        self.log, self.folder = MemoryLog(T0_MS), folder
        self.rows: dict[tuple[int, int], tuple[int, int]] = {}
        self.settings = read_settings({}, state_dir=folder, dataset=folder)
        self.event(b"{not json")
        self.letter(topic=topics.READOUT, payload=b"{not json", code="not_json")
        for detector in range(6):
            self.log.time_ms += 100_000
            self.event(json.dumps(readout_event(detector=detector)).encode())
            self.log.time_ms += 500
            self.commit(detector, [Outcome.ALERTS] * 4 + [Outcome.CRASHED, Outcome.HELD])
        self.log.time_ms += 100_000
        self.manifest(0, Outcome.DUPLICATE)
        for sink, topic in ((APDB, topics.RESULTS), (FILES, topics.ALERTS)):
            self.log.reader(topic, name=sink).commit({0: len(self.log.topics[topic])})
        self.write_files()

    def commit(self, detector: int, outcomes: list[Outcome]) -> None:
        outcome = outcomes[detector]
        sources = small_sources(VISIT, detector, 0 if outcome is Outcome.CRASHED else N)
        n_sent = N if outcome is Outcome.ALERTS else 0
        self.manifest(detector, outcome, n_sent)
        self.alerts(detector, n_sent)
        if sources.size:
            self.result(detector)
            self.rows[VISIT, detector] = (N, 0)
        if outcome is Outcome.CRASHED:
            self.letter(visit=VISIT, detector=detector)

    def event(self, payload: bytes) -> None:
        self.log.append([Record(topics.READOUT, b"k", payload)])

    def manifest(self, detector: int, outcome: Outcome, n_alerts: int = 0, **changes: Any) -> None:
        n_held = N if outcome is Outcome.HELD else 0
        manifest = Manifest(
            instrument="LSSTCam",
            group="g1",
            visit=VISIT,
            detector=detector,
            band="r",
            outcome=outcome,
            received_tai_s=T0 + self.log.time_ms / 1000 - T0_MS / 1000,
            counts={"n_detected": n_alerts + n_held, "n_flagged": 0, "n_sent": n_alerts, "n_withheld": n_held},
            n_alerts=n_alerts,
            id_digest=id_digest(small_sources(VISIT, detector, n_alerts)["diaSourceId"]) if n_alerts else "",
        )
        self.log.append([Record(topics.MANIFESTS, b"k", pack(replace(manifest, **changes)))])

    def alerts(self, detector: int, n: int) -> None:
        sources = small_sources(VISIT, detector, n)
        pairs = zip(sources["diaSourceId"].tolist(), small_alerts(sources), strict=True)
        self.log.append([Record(topics.ALERTS, b"%d" % number, alert) for number, alert in pairs])

    def result(self, detector: int, n: int = N) -> None:
        result = Result(
            visit=VISIT,
            detector=detector,
            band="r",
            outcome=Outcome.ALERTS,
            midpoint_mjd_tai=MIDPOINT_MJD_TAI,
            processed_mjd_tai=MIDPOINT_MJD_TAI,
            dia_sources=small_sources(VISIT, detector, n),
            dia_objects=empty_catalog(DIA_OBJECT, 0),
            dia_forced_sources=empty_catalog(DIA_FORCED_SOURCE, 0),
            ss_sources=empty_catalog(SS_SOURCE, 0),
        )
        self.log.append([Record(topics.RESULTS, b"k", pack(result))])

    def letter(self, **changes: Any) -> None:
        fields = {"topic": "work", "partition": 0, "code": "crashed", "message": "", "payload": b"", "at_tai_s": T0}
        self.log.append([Record(topics.DEAD_LETTERS, b"k", pack(DeadLetter(**(fields | changes))))])

    def write_files(self, extra: list[bytes] | None = None) -> None:
        """All alerts of the topic in two files."""
        messages = self.log.topics[topics.ALERTS]
        self.write_file(messages[:5])
        self.write_file(messages[5:], extra)

    def write_file(self, messages: list[Message], extra: list[bytes] | None = None) -> None:
        folder = self.folder / "alerts"
        folder.mkdir(exist_ok=True)
        path = folder / f"alerts-000-{messages[0].offset:015d}.avro"
        write_alerts(path, [message.value for message in messages] + (extra or []))

    def count_rows(self, start_mjd_tai: float, end_mjd_tai: float) -> dict[tuple[int, int], tuple[int, int]]:
        return self.rows if start_mjd_tai <= MIDPOINT_MJD_TAI <= end_mjd_tai else {}

    def audit(self, age_s: float = 5000.0, **options: Any) -> AuditReport:
        return audit(self.log, self.settings, FakeClock(T0 + age_s), apdb=self, **options)  # type: ignore[arg-type]


@pytest.fixture
def night(tmp_path: Path) -> Night:
    return Night(tmp_path)


def test_sources_that_agree_are_clean(night: Night) -> None:
    found = night.audit()
    assert found.discrepancies == ()
    assert (found.is_clean, found.n_visit_detectors, found.n_alerts) == (True, 6, 4 * N)
    counts = {source.name: source.n_records for source in found.sources}
    assert counts == {
        "alert files": 12, "results": 5, "APDB": 15, "alerts": 12, "manifests": 7, "deadletters": 2, "readout": 7,
    }  # fmt: skip


def lose_alert(night: Night) -> None:
    night.log.drop(topics.ALERTS, -1)
    night.write_files()


def other_id(night: Night) -> None:
    sources = small_sources(VISIT, 3, N + 1)[1:]
    night.log.topics[topics.ALERTS] = night.log.topics[topics.ALERTS][:-N]
    pairs = zip(sources["diaSourceId"].tolist(), small_alerts(sources), strict=True)
    night.log.append([Record(topics.ALERTS, b"%d" % number, alert) for number, alert in pairs])
    night.write_files()


def repeat_alert(night: Night) -> None:
    last = night.log.topics[topics.ALERTS][-1]
    night.log.append([Record(topics.ALERTS, last.key, last.value)])


def surplus_alert(night: Night) -> None:
    night.alerts(9, 1)


def alert_of_a_crash(night: Night) -> None:
    night.alerts(4, 1)


def two_files(night: Night) -> None:
    messages = night.log.topics[topics.ALERTS]
    night.write_file(messages[9:10])


def only_in_file(night: Night) -> None:
    night.write_files(extra=small_alerts(small_sources(VISIT, 3, N + 1)[N:]))


def no_file(night: Night) -> None:
    night.write_file(night.log.topics[topics.ALERTS][5:-1])


def spoiled_file(night: Night) -> None:
    (night.folder / "alerts" / "alerts-000-000000000000099.avro").write_bytes(b"Obj\x01")


def lose_result(night: Night) -> None:
    night.log.drop(topics.RESULTS, -1)
    del night.rows[VISIT, 5]


def drop_last(topic: str) -> Callable[[Night], None]:
    return lambda night: night.log.drop(topic, -1)


PLANTED: list[tuple[Kind, Callable[[Night], None], int | None]] = [
    (Kind.EVENT_WITHOUT_MANIFEST, lambda night: night.event(json.dumps(readout_event(detector=8)).encode()), 8),
    (Kind.UNREADABLE_EVENT_WITHOUT_DEAD_LETTER, lambda night: night.event(b"{neither"), None),
    (Kind.MANIFEST_WITHOUT_EVENT, lambda night: night.manifest(9, Outcome.BAD_RAW), 9),
    (Kind.MANIFEST_TWICE, lambda night: night.manifest(4, Outcome.BAD_RAW), 4),
    (Kind.ALERTS_DIFFER, lose_alert, 3),
    (Kind.ALERTS_DIFFER, other_id, 3),
    (Kind.ALERT_TWICE, repeat_alert, 3),
    (Kind.ALERT_UNANNOUNCED, surplus_alert, 9),
    (Kind.ALERT_UNANNOUNCED, alert_of_a_crash, 4),
    (Kind.RESULT_MISSING, lose_result, 5),
    (Kind.RESULT_TWICE, lambda night: night.result(3), 3),
    (Kind.RESULT_UNANNOUNCED, lambda night: night.result(9), 9),
    (Kind.APDB_MISSING, lambda night: night.rows.pop((VISIT, 2)), 2),
    (Kind.APDB_DIFFERS, lambda night: night.rows.update({(VISIT, 2): (N - 1, 0)}), 2),
    (Kind.APDB_WITHOUT_RESULT, lambda night: night.rows.update({(VISIT, 7): (N, 0)}), 7),
    (Kind.ALERT_NOT_IN_FILE, no_file, 3),
    (Kind.ALERT_IN_TWO_FILES, two_files, 3),
    (Kind.ALERT_ONLY_IN_FILE, only_in_file, 3),
    (Kind.FILE_UNREADABLE, spoiled_file, None),
    (Kind.DEAD_LETTER_WITHOUT_MANIFEST, lambda night: night.letter(visit=VISIT, detector=9), 9),
    (Kind.MANIFEST_WITHOUT_DEAD_LETTER, drop_last(topics.DEAD_LETTERS), 4),
    (Kind.UNREADABLE_RECORD, lambda night: night.log.append([Record(topics.MANIFESTS, b"k", b"garbage")]), None),
]


def test_every_kind_is_planted() -> None:
    assert {kind for kind, _, _ in PLANTED} == set(Kind)


@pytest.mark.parametrize(("kind", "plant", "detector"), PLANTED, ids=[kind.value for kind, _, _ in PLANTED])
def test_what_is_planted_is_named_and_nothing_else(
    night: Night, kind: Kind, plant: Callable[[Night], Any], detector: int | None
) -> None:
    plant(night)
    found = night.audit()
    named = [(d.kind, d.visit, d.detector) for d in found.discrepancies]
    assert named == [(kind, None if detector is None else VISIT, detector)], found.discrepancies
    assert all(d.detail for d in found.discrepancies)


def test_an_event_that_fan_out_refused_for_its_content_is_no_discrepancy(night: Night) -> None:
    payload = json.dumps(readout_event(detector=300)).encode()
    night.event(payload)
    night.letter(topic=topics.READOUT, payload=payload, code="unknown_detector")
    assert night.audit().is_clean


def test_what_is_younger_than_the_watermark_or_outside_the_range_waits(night: Night) -> None:
    night.event(json.dumps(readout_event(detector=8)).encode())
    night.alerts(9, 1)
    assert {d.kind for d in night.audit().discrepancies} == {Kind.EVENT_WITHOUT_MANIFEST, Kind.ALERT_UNANNOUNCED}
    young = night.audit(age_s=100.0)
    assert (young.is_clean, young.n_visit_detectors) == (True, 0)
    assert young.watermark == "now minus 120 s"
    part = night.audit(start_tai_s=T0 + 202.0, end_tai_s=T0 + 450.0)
    assert (part.is_clean, part.n_visit_detectors, part.watermark) == (True, 2, "--to")


def test_what_a_sink_has_not_written_is_not_missed_there(night: Night) -> None:
    night.rows.pop((VISIT, 5))
    night.write_file(night.log.topics[topics.ALERTS][5:9])
    assert len(night.audit().discrepancies) == 2
    for sink, topic, written in ((APDB, topics.RESULTS, 4), (FILES, topics.ALERTS, 9)):
        night.log.reader(topic, name=sink).commit({0: written})
    assert night.audit().is_clean


@pytest.mark.parametrize("topic", [topics.READOUT, topics.MANIFESTS, topics.RESULTS, topics.DEAD_LETTERS])
def test_a_trimmed_head_is_no_discrepancy(night: Night, topic: str) -> None:
    night.log.cut(topic, 1)
    found = night.audit()
    assert found.is_clean, found.discrepancies
    assert found.source(topic).is_trimmed


def test_where_the_alerts_are_trimmed_the_files_stand_for_them(night: Night) -> None:
    night.log.cut(topics.ALERTS, 7)  # within those of detector 2
    assert night.audit().is_clean
    night.write_file(night.log.topics[topics.ALERTS][:4])  # the second alert of detector 1 is in no file
    (found,) = night.audit().discrepancies
    assert (found.kind, found.detector) == (Kind.ALERTS_DIFFER, 1)
    assert "in the files" in found.detail
    (night.folder / "alerts" / "alerts-000-000000000000000.avro").unlink()  # where older files are gone, nothing is
    assert night.audit().is_clean


def test_alerts_that_neither_the_trimmed_topic_nor_the_files_have_are_missed(night: Night) -> None:
    night.log.cut(topics.ALERTS, 7)
    night.write_file(night.log.topics[topics.ALERTS][:3])  # as if the file sink had never seen detector 1
    (night.folder / "alerts" / "alerts-000-000000000000005.avro").unlink()
    night.write_file(night.log.topics[topics.ALERTS][6:])
    assert [(d.kind, d.detector) for d in night.audit().discrepancies] == [(Kind.ALERTS_DIFFER, 1)]


def test_a_storm_that_was_redriven_long_after_is_looked_for_on_the_topic(night: Night) -> None:
    night.log.cut(topics.ALERTS, 9)  # the storm's first manifest is older than what is held now
    night.log.time_ms += 1_000_000
    night.manifest(5, Outcome.ALERTS, N, redrive=1)
    night.result(5)
    night.alerts(5, N)
    assert night.audit(age_s=9000.0).is_clean


def test_a_redriven_storm_has_two_manifests_and_two_results(night: Night) -> None:
    night.manifest(5, Outcome.ALERTS, N, redrive=1)
    night.result(5)
    assert [d.kind for d in night.audit().discrepancies] == [Kind.ALERTS_DIFFER]
    night.alerts(5, N)
    assert night.audit().is_clean


def test_an_object_notification_announces_what_its_sidecar_says(night: Night) -> None:
    (night.folder / "x.json").write_text(json.dumps(readout_event(detector=8)))
    event = {"Records": [{"eventName": "ObjectCreated:Put", "s3": {"object": {"key": "x.fits"}}}]}
    night.event(json.dumps(event).encode())
    assert [(d.kind, d.detector) for d in night.audit().discrepancies] == [(Kind.EVENT_WITHOUT_MANIFEST, 8)]
    night.manifest(8, Outcome.BAD_RAW)
    assert night.audit().is_clean


def test_report_as_json_and_times_of_the_command(night: Night) -> None:
    surplus_alert(night)
    value = json.loads(json.dumps(night.audit().to_json()))
    assert (value["clean"], value["counts"]) == (False, {"alert_unannounced": 1})
    assert value["discrepancies"][0]["detector"] == 9
    assert value["sources"][3]["first"].endswith("Z")
    assert moment("2h", T0) == T0 - 7200
    assert moment("2026-05-28T20:26:03Z", 0.0) == moment("2026-05-28T20:26:03", 0.0) == T0
    with pytest.raises(ConfigurationError, match="no time"):
        moment("yesterday", T0)


def test_the_runbook_has_an_entry_for_each_kind() -> None:
    runbook = (Path(__file__).parents[3] / "docs" / "runbook.md").read_text()
    assert [kind for kind in Kind if f"| `{kind.value}` |" not in runbook] == []


def test_help_has_an_example() -> None:
    shown = CliRunner().invoke(main, ["audit", "--help"])
    assert shown.exit_code == 0
    assert "sub60 audit --from 2h" in shown.output


def test_ids_may_come_in_any_order(night: Night) -> None:
    order = np.random.default_rng(1).permutation(12)
    held = night.log.topics[topics.ALERTS]
    night.log.topics[topics.ALERTS] = [replace(held[i], offset=k) for k, i in enumerate(order)]
    night.write_files()
    assert night.audit().is_clean
