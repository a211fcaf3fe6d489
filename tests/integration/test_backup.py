"""Each store is copied while the service runs, lost, and brought back; the audit says whether all is there."""

import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from core.errors import Outcome
from service import topics
from service.audit import AuditReport, Kind, audit
from service.embedded import EmbeddedValkey, log_settings
from service.roles.archive import APDB, FILES, ApdbSink, FileSink
from service.storage.apdb import ApdbStore, create_apdb
from tests.support.apdb import make_apdb
from tests.support.postgres import PostgresServer
from tests.support.service.builders import VISIT, readout_event
from tests.support.service.harness import FAKE, Service, write_empty_dataset

N_ALERTS = 3


class Night:
    """A service with an archive."""

    def __init__(self, service: Service, apdb: ApdbStore) -> None:
        self.service, self.apdb, self.n = service, apdb, 0
        clock, metrics = service.process.clock, service.process.metrics
        self.alert_files = service.settings.state_dir / "alerts"
        service.add(ApdbSink(service.log, apdb, metrics).turn)
        service.add(FileSink(service.log, self.alert_files, 0.05, clock, metrics).turn)

    def take(self, n: int, first: int = 0) -> None:
        """So many visits more, archived."""
        service = self.service
        for visit in range(VISIT + first, VISIT + first + n):
            service.publish("readout", readout_event(t0=service.process.clock.tai_s() - 1, visit=visit))
        self.n += n
        service.pump(lambda: service.sample("sub60_sink_records_total", sink=APDB) == self.n)
        service.pump(lambda: service.sample("sub60_sink_records_total", sink=FILES) == self.n * N_ALERTS)

    def audit(self, apdb: ApdbStore | None = None) -> AuditReport:
        service = self.service
        return audit(service.log, service.settings, service.process.clock, apdb=apdb or self.apdb, settle_s=0.0)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_empty_dataset(tmp_path / "dataset")


@pytest.fixture
def night(tmp_path: Path, dataset: Path) -> Iterator[Night]:
    (tmp_path / "apdb").mkdir()
    with Service(tmp_path, dataset=dataset, compute=FAKE) as service:
        yield Night(service, make_apdb(tmp_path / "apdb"))


def copy_log(client: "redis.Redis[bytes]", source: Path, target: Path) -> None:
    """The runbook's way: rewrite, keep further rewrites off, copy the folder of the append-only file."""
    client.bgrewriteaof()
    while client.info("persistence")["aof_rewrite_in_progress"]:  # type: ignore[no-untyped-call, unused-ignore]
        time.sleep(0.05)
    percentage = client.config_get("auto-aof-rewrite-percentage")["auto-aof-rewrite-percentage"]  # type: ignore[no-untyped-call, unused-ignore]
    client.config_set("auto-aof-rewrite-percentage", 0)  # type: ignore[no-untyped-call, unused-ignore]
    try:
        shutil.copytree(source / "appendonlydir", target / "appendonlydir")
    finally:
        client.config_set("auto-aof-rewrite-percentage", percentage)  # type: ignore[no-untyped-call, unused-ignore]


def test_log_on_valkey(tmp_path: Path, dataset: Path, night: Night) -> None:
    night.take(3)
    source = night.service.servers.log.url
    client: Any = redis.Redis(unix_socket_path=source.removeprefix("unix://"))
    copy_log(client, tmp_path / "servers" / "log", tmp_path / "copy" / "log")
    shutil.copytree(night.alert_files, tmp_path / "copy" / "state" / "alerts")
    night.take(1, first=3)  # after the copy: this visit is lost with the log
    kept = {name: client.hgetall(f"sub60:log:{name}") for name in ("ends", "checkpoints:workers:work")}
    copy = sqlite_copy(night, tmp_path / "copy")
    night.service.servers.log.kill()

    with (
        EmbeddedValkey(tmp_path / "copy" / "log", log_settings(64)) as server,
        Service(
            tmp_path / "copy",
            dataset=dataset,
            compute=FAKE,
            log_url=server.url,
            state_dir=tmp_path / "copy" / "state",
        ) as service,
    ):
        other: Any = redis.Redis(unix_socket_path=server.url.removeprefix("unix://"))
        ends = other.hgetall("sub60:log:ends")
        behind = {name: int(kept["ends"][name]) - int(end) for name, end in ends.items()}
        assert (behind[b"manifests:0"], behind[b"alerts:0"], behind[b"readout:0"]) == (1, N_ALERTS, 1)
        assert set(other.hgetall("sub60:log:checkpoints:workers:work")) == set(kept["checkpoints:workers:work"])
        restored = Night(service, copy)
        t0 = service.process.clock.tai_s() - 1
        service.publish("readout", readout_event(t0=t0, visit=VISIT))  # known from the checkpoint: the cache is new
        service.publish("readout", readout_event(t0=t0, visit=VISIT + 3))  # what was lost is sent again
        service.pump_manifests(5)
        assert [m.outcome for m in service.manifests()] == [*[Outcome.ALERTS] * 3, Outcome.DUPLICATE, Outcome.ALERTS]
        service.pump(lambda: service.sample("sub60_sink_records_total", sink=FILES) == N_ALERTS)
        service.pump(lambda: service.sample("sub60_sink_records_total", sink=APDB) == 1)
        found = restored.audit()
        assert found.is_clean, found.discrepancies
        assert found.n_visit_detectors == 4


def sqlite_copy(night: Night, folder: Path) -> ApdbStore:
    """The runbook's way: SQLite's own backup, safe while the sink writes."""
    folder.mkdir(exist_ok=True)
    source = folder.parent / "apdb"
    with sqlite3.connect(source / "apdb.sqlite") as original, sqlite3.connect(folder / "apdb.sqlite") as copy:
        original.backup(copy)
    original.close()
    copy.close()
    config = (source / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace(str(source), str(folder)))
    return ApdbStore(str(folder / "config.yaml"))


def test_apdb_on_sqlite_and_what_came_after_its_backup(tmp_path: Path, night: Night) -> None:
    night.take(2)
    copy = sqlite_copy(night, tmp_path / "copy")
    assert night.audit(copy).is_clean
    night.take(1, first=2)
    assert [d.kind for d in night.audit(copy).discrepancies] == [Kind.APDB_MISSING]
    refill(night, copy)
    found = night.audit(copy)
    assert found.is_clean, found.discrepancies
    assert found.source("APDB").n_records == 3 * N_ALERTS


def refill(night: Night, apdb: ApdbStore) -> None:
    """The runbook's way: forget how far the sink came; it writes again what the log holds, and skips what is there."""
    client: Any = redis.Redis(unix_socket_path=night.service.servers.log.url.removeprefix("unix://"))
    assert client.delete(f"sub60:log:offsets:{APDB}:{topics.RESULTS}") == 1
    metrics = night.service.process.metrics
    before = night.service.sample("sub60_sink_records_total", sink=APDB)
    sink = ApdbSink(night.service.log, apdb, metrics)
    while night.service.sample("sub60_sink_records_total", sink=APDB) < before + night.n:
        sink.turn()


def test_apdb_on_postgresql(tmp_path: Path, dataset: Path) -> None:
    with PostgresServer(tmp_path / "pg") as server:
        create_apdb(server.url, tmp_path / "config.yaml")
        with Service(tmp_path, dataset=dataset, compute=FAKE) as service:
            night = Night(service, ApdbStore(str(tmp_path / "config.yaml")))
            night.take(2)
            dump = tmp_path / "apdb.dump"
            server.run("pg_dump", "--format=custom", f"--file={dump}", server.plain_url)
            night.take(1, first=2)
            server.run("psql", server.plain_url, "-c", "CREATE DATABASE restored")
            other = server.plain_url.rsplit("/", 1)[0] + "/restored"
            server.run("pg_restore", f"--dbname={other}", "--exit-on-error", str(dump))
            config = (tmp_path / "config.yaml").read_text()
            there = server.url.rsplit("/", 1)[0] + "/restored"
            (tmp_path / "restored.yaml").write_text(config.replace(server.url, there))
            restored = ApdbStore(str(tmp_path / "restored.yaml"))
            assert [d.kind for d in night.audit(restored).discrepancies] == [Kind.APDB_MISSING]
            refill(night, restored)
            assert night.audit(restored).is_clean
            assert night.audit().is_clean


def test_alert_files(tmp_path: Path, night: Night) -> None:
    night.take(2)
    shutil.copytree(night.alert_files, tmp_path / "copy")
    night.take(1, first=2)
    lost = sorted(night.alert_files.glob("*.avro"))[0]
    lost.write_bytes(lost.read_bytes()[:-100])
    kinds = {d.kind for d in night.audit().discrepancies}
    assert kinds & {Kind.ALERT_NOT_IN_FILE, Kind.FILE_UNREADABLE}
    shutil.copytree(tmp_path / "copy", night.alert_files, dirs_exist_ok=True)
    assert night.audit().is_clean
