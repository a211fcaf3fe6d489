"""What is left, and what comes back, when a store is gone with all its copies; the audit says what is not there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from core.errors import Outcome
from service import topics
from service.audit import Kind
from service.embedded import EmbeddedValkey, log_settings
from service.roles.archive import APDB, FILES
from service.storage.apdb import ApdbStore
from tests.integration.test_backup import N_ALERTS, Night
from tests.support.apdb import make_apdb
from tests.support.service.builders import VISIT, readout_event
from tests.support.service.harness import FAKE, Service, write_empty_dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_empty_dataset(tmp_path / "dataset")


@pytest.fixture
def night(tmp_path: Path, dataset: Path) -> Iterator[Night]:
    (tmp_path / "apdb").mkdir()
    with Service(tmp_path, dataset=dataset, compute=FAKE) as service:
        yield Night(service, make_apdb(tmp_path / "apdb"))


def ids(service: Service) -> list[bytes]:
    """Of the alerts on the topic: their keys."""
    return sorted(message.key for message in service.read(topics.ALERTS))


def send(service: Service, visit: int) -> None:
    """The telescope's system sends an event, perhaps again."""
    service.publish("readout", readout_event(t0=service.process.clock.tai_s() - 1, visit=visit))


def test_a_log_lost_without_a_copy(tmp_path: Path, dataset: Path, night: Night) -> None:
    night.take(3)
    before = ids(night.service)
    cache_url = night.service.servers.cache.url
    night.service.servers.log.kill()
    folder = tmp_path / "again"
    with (
        EmbeddedValkey(folder / "new-log", log_settings(64)) as server,
        Service(
            folder,
            dataset=dataset,
            compute=FAKE,
            log_url=server.url,
            cache_url=cache_url,
            state_dir=folder / "state",
        ) as service,
    ):
        again = Night(service, ApdbStore(str(tmp_path / "apdb" / "config.yaml")))
        send(service, VISIT)  # the cache remembers that it was done: its alerts do not come twice
        service.pump_manifests(1)
        send(service, VISIT + 3)  # what was on its way is done
        service.pump_manifests(2)
        assert [m.outcome for m in service.manifests()] == [Outcome.DUPLICATE, Outcome.ALERTS]
        client: Any = redis.Redis(unix_socket_path=cache_url.removeprefix("unix://"))
        client.flushall()
        send(service, VISIT + 1)  # with an empty cache it is done again, under the same ids
        service.pump_manifests(3)
        service.pump(lambda: service.sample("sub60_sink_records_total", sink=APDB) == 2)
        service.pump(lambda: service.sample("sub60_sink_records_total", sink=FILES) == 2 * N_ALERTS)
        assert service.manifests()[-1].outcome is Outcome.ALERTS
        assert len(set(ids(service)) & set(before)) == N_ALERTS
        found = {(d.kind, d.visit) for d in again.audit().discrepancies}
        assert found == {
            (Kind.EVENT_WITHOUT_MANIFEST, VISIT),  # only a duplicate's manifest: what came out is not on this log
            (Kind.APDB_WITHOUT_RESULT, VISIT),
            (Kind.APDB_WITHOUT_RESULT, VISIT + 2),
        }
