"""Next-visit to alerts on a simulated sky: real pipeline, log, cache, prefetch and archive."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alerts.check import check_alert
from alerts.codec import decode_alert
from alerts.features import decode_features
from alerts.files import read_alerts
from core.errors import Outcome
from service.audit import audit
from service.records import Manifest, Result, unpack
from service.roles.archive import ApdbSink, FileSink, HistorySink
from service.roles.commit_records import id_digest
from service.storage.apdb import ApdbStore
from service.storage.cache import connect
from service.storage.history import HistoryStore
from tests.support.service.datasets import borrow, events, make_testcam, moved_to_now
from tests.support.service.harness import Service


@pytest.fixture(scope="module")
def dataset(request: pytest.FixtureRequest) -> Path:
    """The simulated dataset of the test camera."""
    return make_testcam(request.config.cache.mkdir("testcam") / "dataset")


@pytest.fixture(scope="module")
def night(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that has taken all three visits: prefetched, prefetched, and after a flush of the cache."""
    folder = tmp_path_factory.mktemp("night")
    mine = borrow(dataset, folder / "dataset")
    with Service(folder, dataset=mine, prefetch_wait_s=20.0) as service:
        service.add_prefetch()
        _add_archive(service)
        nexts, readouts = events(mine, "next-visit"), events(mine, "readout")
        for i, event in enumerate(nexts):
            mine_now = [moved_to_now(r) for r in readouts if r["group"] == event["groupId"]]
            announced = moved_to_now(event) | {"visit": mine_now[0]["visit"]}
            if i < 2:
                service.publish("next-visit", announced)
                service.pump(lambda n=2 * (i + 1): _prefetched(service) == n)
            else:
                connect(service.servers.cache.url, 2.0).flushall()
                service.worker._child.kill()  # with it goes what it holds in memory
                service.worker._child_failed("died", "test")
            for readout in mine_now:
                service.publish("readout", moved_to_now(readout))
            service.pump_manifests(2 * (i + 1))
            service.pump(lambda n=2 * (i + 1): service.apdb_count() == n)
        wanted = {(a["diaObject"]["diaObjectId"], a["diaSource"]["visit"]) for a in _alerts(service) if a["diaObject"]}
        service.pump(lambda: len(service.read("features")) >= len(wanted))
        filed = "sub60_sink_records_total"
        service.pump(lambda: service.sample(filed, sink="sink-files") == len(service.read("alerts")))
        yield service


def _add_archive(service: Service) -> None:
    process = service.process
    client = connect(service.settings.cache_url, 2.0)
    camera = service.fan_out._camera
    history = HistoryStore(client, None, camera, process.clock.tai_s)
    apdb = ApdbStore(str(service.settings.dataset / "apdb" / "config.yaml"))
    service.apdb = apdb
    service.apdb_count = lambda: service.sample("sub60_sink_records_total", sink="sink-apdb")
    service.add(HistorySink(service.log, history, process.clock, process.metrics, has_apdb=True).turn)
    service.add(ApdbSink(service.log, apdb, process.metrics).turn)
    service.add(FileSink(service.log, service.settings.state_dir / "alerts", 0.1, process.clock, process.metrics).turn)


def _alerts(service: Service) -> list[dict[str, Any]]:
    return [decode_alert(message.value) for message in service.read("alerts")]


def _prefetched(service: Service) -> float:
    return service.prefetch_registry.get_sample_value("sub60_prepares_total", {"state": "prefetched"}) or 0.0


def test_every_readout_becomes_alerts(night: Service) -> None:
    manifests = night.manifests()
    assert [m.outcome for m in manifests] == [Outcome.ALERTS] * 6, night.describe()
    for m in manifests:
        counts = m.counts
        parts = ("n_flagged", "n_low_reliability", "n_sent", "n_withheld", "n_dropped")
        assert counts["n_detected"] == sum(counts[name] for name in parts)
        assert (counts["n_sent"], m.n_dropped) == (m.n_alerts, 0)
        assert m.n_alerts > 5
        assert m.redis_skipped == ()
        assert {"isr", "psf", "subtract", "measure", "package"} <= {name for name, _, _ in m.timings}


def test_every_alert_is_valid_and_in_its_manifest(night: Service) -> None:
    by_key: dict[tuple[int, int], list[int]] = {}
    for message in night.read("alerts"):
        alert = decode_alert(message.value)
        check_alert(alert)
        assert message.key == b"%d" % alert["diaSourceId"]
        source = alert["diaSource"]
        by_key.setdefault((source["visit"], source["detector"]), []).append(alert["diaSourceId"])
    for m in night.manifests():
        assert id_digest(np.array(by_key[m.visit, m.detector], np.int64)) == m.id_digest


def test_features_follow_for_each_object_of_an_alert(night: Service) -> None:
    wanted = {(a["diaObject"]["diaObjectId"], a["diaSource"]["visit"]) for a in _alerts(night) if a["diaObject"]}
    records = [(message.key, decode_features(message.value)) for message in night.read("features")]
    assert {(r["diaObjectId"], r["visit"]) for _, r in records} == wanted
    assert all(key == b"%d" % r["diaObjectId"] for key, r in records)
    assert max(r["nData"] for _, r in records) >= 20
    assert any(r["period1"] is not None for _, r in records)


def test_alerts_carry_their_objects_history(night: Service) -> None:
    alerts = [decode_alert(message.value) for message in night.read("alerts")]
    with_past = [a for a in alerts if a["prvDiaSources"] and len(a["prvDiaSources"]) >= 20]
    assert len(with_past) >= 6
    assert any(a["prvDiaForcedSources"] for a in with_past)


def test_prefetched_bundles_come_from_redis_and_flushed_ones_are_cold(night: Service) -> None:
    manifests = night.manifests()
    assert "cold" not in _sources(manifests[0]).values()
    assert "redis" in _sources(manifests[0]).values()
    assert "cold" not in _sources(manifests[2]).values()
    assert _sources(manifests[4])["template"] == "cold"
    assert _sources(manifests[4])["history"] == "cold"


def test_a_later_visit_sees_what_an_earlier_one_found(night: Service) -> None:
    """The base was read before the first visit was archived: its sources come by the tail."""
    first, second = (m for m in night.manifests() if m.detector == 0 and m.visit % 10 in (0, 1))
    found = {r["diaSourceId"] for r in _result(night, first).dia_sources}
    alerts = [decode_alert(message.value) for message in night.read("alerts")]
    mine = [a for a in alerts if a["diaSource"]["visit"] == second.visit and a["diaSource"]["detector"] == 0]
    previous = {p["diaSourceId"] for a in mine for p in a["prvDiaSources"] or ()}
    assert previous & found


def test_archive_holds_every_result(night: Service) -> None:
    files = sorted((night.settings.state_dir / "alerts").glob("*.avro"))
    archived = [alert["diaSourceId"] for file in files for alert in read_alerts(file)]
    assert sorted(archived) == sorted(int(message.key) for message in night.read("alerts"))
    manifest = night.manifests()[0]
    assert night.apdb._apdb.containsVisitDetector(manifest.visit, manifest.detector)


def test_the_audit_finds_nothing(night: Service) -> None:
    """Also beside the year of history that the APDB held before."""
    found = audit(night.log, night.settings, night.process.clock, apdb=night.apdb, settle_s=0.0)
    assert found.is_clean, found.discrepancies
    n_sources = sum(_result(night, m).dia_sources.size for m in night.manifests())
    assert (found.n_visit_detectors, found.source("APDB").n_records) == (6, n_sources)


def _sources(manifest: Manifest) -> dict[str, str]:
    return {kind: source for kind, source, _, _ in manifest.bundle}


def _result(night: Service, manifest: Manifest) -> Result:
    results = [unpack(Result, message.value) for message in night.read("results")]
    return next(r for r in results if (r.visit, r.detector) == (manifest.visit, manifest.detector))
