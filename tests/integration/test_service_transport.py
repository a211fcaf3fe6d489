"""Events in, commits out, with a real log, a real cache, a real child and a made-up computation."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from core.errors import Outcome
from core.ids import source_ids
from service.clock import SystemClock
from tests.support.service.builders import VISIT, next_visit_event, readout_event
from tests.support.service.harness import FAKE, Service, write_empty_dataset


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    dataset = write_empty_dataset(tmp_path / "dataset")
    with Service(tmp_path, dataset=dataset, compute=FAKE, job_limit_s=5.0) as running:
        yield running


def now() -> float:
    return SystemClock().tai_s() - 1.0


def test_readout_becomes_alerts_and_its_prepare_is_used(service: Service) -> None:
    t0 = now()
    service.publish("next-visit", next_visit_event(startTime=t0 + 1, detectors=[0, 1]))
    service.pump(lambda: service.sample("sub60_prepares_total", state="taken") == 2)
    service.publish("readout", readout_event(t0=t0))
    (manifest,) = service.pump_manifests(1)
    assert (manifest.outcome, manifest.n_alerts, manifest.attempt) == (Outcome.ALERTS, 3, 1)
    assert manifest.bundle[0][1] == "memory"
    alerts = service.read("alerts")
    expected = [b"%d" % number for number in source_ids(1, VISIT, 0, _rows(3)).tolist()]
    assert [message.key for message in alerts] == expected
    service.pump(lambda: len(service.committed()) == 1)
    (committed,) = service.committed()
    assert 0.9 < committed.latency_s < 60
    assert not committed.is_clock_suspect
    assert service.sample("sub60_prepares_total", state="used") == 1
    assert len(service.read("results")) == 1


def test_killed_child_is_replaced_and_the_readout_done_again(service: Service) -> None:
    service.publish("readout", readout_event(t0=now(), uri="hang:2", detector=0))
    service.publish("readout", readout_event(t0=now(), uri="ok:1", detector=1))
    service.pump(lambda: service.sample("sub60_child_busy") == 1)
    pid = service.worker._child.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    manifests = service.pump_manifests(2)
    assert sorted((m.detector, m.outcome) for m in manifests) == [(0, Outcome.ALERTS), (1, Outcome.ALERTS)]
    assert max(m.attempt for m in manifests) == 2
    assert service.sample("sub60_child_restarts_total", reason="died") == 1


@pytest.mark.parametrize("uri", ["die", "bug"])
def test_a_poison_raw_is_a_dead_letter_after_three_attempts_and_its_neighbor_comes_out(
    service: Service, uri: str
) -> None:
    service.publish("readout", readout_event(t0=now(), uri=uri))
    service.publish("readout", readout_event(t0=now(), visit=VISIT + 1))
    first, second = service.pump_manifests(2)
    assert (first.outcome, first.code, first.attempt) == (Outcome.CRASHED, "crashed", 3)
    assert second.outcome is Outcome.ALERTS
    assert [letter.code for letter in service.dead_letters()] == ["crashed"]


def test_a_child_that_hangs_is_replaced(service: Service) -> None:
    service.publish("readout", readout_event(t0=now(), uri="hang:60"))
    service.publish("readout", readout_event(t0=now(), visit=VISIT + 1))
    outcomes = [m.outcome for m in service.pump_manifests(2)]
    assert outcomes == [Outcome.CRASHED, Outcome.ALERTS]
    assert service.sample("sub60_child_restarts_total", reason="overrun") == 3


def test_readout_sent_again_is_a_duplicate_without_alerts(service: Service) -> None:
    event = readout_event(t0=now())
    service.publish("readout", event)
    service.pump_manifests(1)
    service.publish("readout", event)
    assert [m.outcome for m in service.pump_manifests(2)] == [Outcome.ALERTS, Outcome.DUPLICATE]
    assert len(service.read("alerts")) == 3


def test_outcomes_of_bad_data(service: Service) -> None:
    uris = {"reject": Outcome.REJECTED, "unusable": Outcome.ASTROMETRY_FAILED, "late:1": Outcome.ALERTS}
    for i, uri in enumerate(uris):
        service.publish("readout", readout_event(t0=now(), uri=uri, visit=VISIT + i))
    manifests = service.pump_manifests(3)
    assert [m.outcome for m in manifests] == list(uris.values())
    assert [letter.code for letter in service.dead_letters()] == ["bad_header"]
    assert manifests[2].attempt > 2
    assert service.sample("sub60_child_restarts_total", reason="died") == 0


def test_what_does_not_pass_before_the_deadline_is_gone_without_and_kept_for_later(tmp_path: Path) -> None:
    dataset = write_empty_dataset(tmp_path / "dataset")
    with Service(tmp_path, dataset=dataset, compute=FAKE, deadline_s=12.0) as service:
        service.publish("readout", readout_event(t0=now(), uri="lasting"))
        service.publish("readout", readout_event(t0=now(), uri="transient", detector=1))
        first, second = sorted(service.pump_manifests(2), key=lambda m: m.detector)
        assert (first.outcome, first.code) == (Outcome.NO_TEMPLATE, "store_unreadable")
        assert (second.outcome, second.code) == (Outcome.CRASHED, "crashed")
        assert "raw_unreadable" in second.message
        assert {letter.code for letter in service.dead_letters()} == {"store_unreadable", "crashed"}
        assert service.sample("sub60_child_restarts_total", reason="died") == 0


def test_without_the_cache_the_visit_goes_on(service: Service) -> None:
    service.servers.cache.kill()
    service.publish("readout", readout_event(t0=now()))
    (manifest,) = service.pump_manifests(1)
    assert manifest.outcome is Outcome.ALERTS
    assert service.sample("sub60_redis_skipped_total", call="attempts") >= 1


def test_object_notification_is_a_readout(service: Service, tmp_path: Path) -> None:

    folder = service.settings.dataset / "raw"
    folder.mkdir()
    (folder / "x.json").write_text(json.dumps(readout_event(t0=now(), uri="elsewhere")))
    key = "raw/x.fits"
    service.publish("readout", {"Records": [{"eventName": "ObjectCreated:Put", "s3": {"object": {"key": key}}}]})
    (manifest,) = service.pump_manifests(1)
    assert manifest.visit == VISIT


def _rows(n: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    return np.arange(n, dtype=np.int64)
