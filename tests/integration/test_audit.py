"""The audit on a real log, with a real archive: clean, and what is spoiled by hand is named."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from service import topics
from service.audit import AuditReport, Kind, audit
from service.cli import main
from service.log import Record
from service.roles.archive import APDB, FILES, ApdbSink, FileSink, Trimmer
from service.storage.apdb import ApdbStore
from tests.support.apdb import make_apdb
from tests.support.service.builders import VISIT, readout_event
from tests.support.service.harness import FAKE, Service, write_empty_dataset


@pytest.fixture
def apdb(tmp_path: Path) -> ApdbStore:
    folder = tmp_path / "dataset" / "apdb"
    folder.mkdir(parents=True)
    return make_apdb(folder)


@pytest.fixture
def night(tmp_path: Path, apdb: ApdbStore) -> Iterator[Service]:
    """Three readouts with alerts, one without, a crash, an event that is no event; all archived."""
    dataset = write_empty_dataset(tmp_path / "dataset")
    with Service(tmp_path, dataset=dataset, compute=FAKE) as service:
        clock, metrics = service.process.clock, service.process.metrics
        service.add(ApdbSink(service.log, apdb, metrics).turn)
        files = FileSink(service.log, service.settings.state_dir / "alerts", 0.1, clock, metrics)
        service.add(files.turn)
        t0 = clock.tai_s() - 1
        for detector, uri in enumerate(("ok:3", "ok:5", "ok:4", "unusable", "reject")):
            service.publish("readout", readout_event(t0=t0, detector=detector, uri=uri))
        service.publish("readout", b"{garbage")
        service.pump_manifests(5)
        service.pump(lambda: service.sample("sub60_sink_records_total", sink=FILES) == 12)
        service.pump(lambda: service.sample("sub60_sink_records_total", sink=APDB) == 3)
        yield service


def run(night: Service, apdb: ApdbStore) -> AuditReport:
    return audit(night.log, night.settings, night.process.clock, apdb=apdb, settle_s=0.0)


def test_a_night_is_clean_then_what_is_spoiled_is_named(night: Service, apdb: ApdbStore) -> None:
    found = run(night, apdb)
    assert found.is_clean, found.discrepancies
    assert (found.n_visit_detectors, found.n_alerts) == (5, 12)
    assert {s.name: s.n_records for s in found.sources} == {
        "alert files": 12, "results": 3, "APDB": 12, "alerts": 12, "manifests": 5, "deadletters": 2, "readout": 6,
    }  # fmt: skip
    alert = night.read(topics.ALERTS)[0]
    night.producer.append([Record(topics.ALERTS, alert.key, alert.value)])
    night.publish("readout", readout_event(t0=night.process.clock.tai_s(), detector=7))
    named = {(d.kind, d.visit, d.detector) for d in run(night, apdb).discrepancies}
    assert named == {(Kind.ALERT_TWICE, VISIT, 0), (Kind.EVENT_WITHOUT_MANIFEST, VISIT, 7)}


def test_trimmed_alerts_are_read_from_the_files_and_the_command_says_all_of_it(
    night: Service, apdb: ApdbStore, tmp_path: Path
) -> None:
    Trimmer(night.log, {topics.ALERTS: (1, (FILES,))}, night.process.clock).turn()
    assert run(night, apdb).is_clean
    settings = night.settings
    environment = {
        "SUB60_LOG_URL": settings.log_url,
        "SUB60_STATE_DIR": str(settings.state_dir),
        "SUB60_DATASET": str(settings.dataset),
    }
    report = tmp_path / "audit.json"
    arguments = ["audit", "--settle", "0", "--report", str(report)]
    done = CliRunner().invoke(main, arguments, env=environment)
    assert done.exit_code == 0, done.output
    assert "older ones are gone" in done.output
    assert "manifests 5/5" in done.output
    assert json.loads(report.read_text())["clean"] is True
    night.settings.state_dir.joinpath("alerts").rename(tmp_path / "away")
    done = CliRunner().invoke(main, ["audit", "--settle", "0", "--from", "1h"], env=environment)
    assert done.exit_code == 0, done.output  # neither side is held any more
