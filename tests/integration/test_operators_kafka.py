"""The operators' commands on a Kafka of the test's own, and its folder as a backup."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer

from core.errors import Outcome
from service import topics
from service.audit import Kind, audit
from service.checks import Level, run_checks
from service.control import read_control, send_order
from service.log import Record
from service.records import Verb
from service.redrive import Wanted, only_one, plan_redrive, send_back
from service.roles.archive import FILES, FileSink
from tests.support.kafka import broker as broker_module
from tests.support.kafka.broker import KafkaBroker
from tests.support.service.builders import VISIT, readout_event
from tests.support.service.harness import FAKE, Service, write_empty_dataset

pytestmark = pytest.mark.kafka
JARS = Path(__file__).parents[2] / "var" / "kafka" / "jars"
SCRIPT = str(Path(broker_module.__file__))


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[KafkaBroker]:
    """A broker whose data are this test's alone."""
    if not os.environ.get("SUB60_TEST_KAFKA"):
        pytest.skip("SUB60_TEST_KAFKA is not set: no Kafka is wanted")
    made = make_broker(tmp_path / "kafka")
    yield made
    made.stop()


def make_broker(folder: Path) -> KafkaBroker:
    """A broker with the jars of the checkout."""
    folder.mkdir()
    (folder / "jars").symlink_to(JARS)
    return KafkaBroker(folder)


def start(folder: Path, broker: KafkaBroker, dataset: Path) -> Service:
    # Started by a process that ends: it belongs to nobody here but is stopped by its process id.
    command = [sys.executable, SCRIPT, "start", "--folder", str(broker.folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    url = f"kafka://{broker.address()}"
    return Service(folder, dataset=dataset, compute=FAKE, log_url=url, state_dir=folder.parent / "state")


def archive(service: Service) -> None:
    process = service.process
    service.add(FileSink(service.log, service.settings.state_dir / "alerts", 0.2, process.clock, process.metrics).turn)


def test_a_night_of_an_operator(tmp_path: Path, broker: KafkaBroker) -> None:
    dataset = write_empty_dataset(tmp_path / "dataset")
    with start(tmp_path / "one", broker, dataset) as service:
        archive(service)
        clock = service.process.clock
        t0 = clock.tai_s() - 1
        service.publish("readout", readout_event(t0=t0, uri="ok:3"))
        service.publish("readout", readout_event(t0=t0, uri="storm:4", detector=1))
        service.publish("readout", b"{garbage")
        service.pump_manifests(2)
        send_order(service.producer, Verb.HOLD, clock.tai_s(), "clouds", "me")
        service.pump(lambda: service.sample("sub60_alerts_held") == 1)
        service.publish("readout", readout_event(t0=t0, uri="ok:2", detector=2))
        assert service.pump_manifests(3)[2].code == "operator_hold"
        send_order(service.producer, Verb.RELEASE, clock.tai_s(), "", "me")
        service.pump(lambda: service.sample("sub60_alerts_held") == 0)
        wanted = Wanted(dead_letters=False, held=True)
        for _ in range(2):
            with only_one(service.log, clock, "me"):
                send_back(service.log, plan_redrive(service.log, wanted, lambda *_: None), lambda *_: None)
        service.pump_manifests(5)
        service.pump(lambda: service.sample("sub60_sink_records_total", sink=FILES) == 9)
        assert sorted((m.detector, m.redrive, m.n_alerts) for m in service.manifests()) == [
            (0, 0, 3), (1, 0, 0), (1, 1, 4), (2, 0, 0), (2, 1, 2),
        ]  # fmt: skip
        found = audit(service.log, service.settings, clock, settle_s=0.0)
        assert found.is_clean, found.discrepancies
        assert (found.n_visit_detectors, found.n_alerts, found.source("deadletters").n_records) == (3, 9, 1)
        checked = list(run_checks(service.settings, ("log", "topics", "clock")))
        assert [f for f in checked if f.level is Level.FAILED] == []
        assert any("log server's: " in f.text for f in checked)
        address = broker.address() or ""
    assert sign_of_life(address)["worker"] == "worker-0"
    go_on_from_a_copy(tmp_path, broker, dataset)


def sign_of_life(address: str) -> dict[str, object]:
    """What a broker's own consumer sees of the heartbeat topic."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": "a-broker", "auto.offset.reset": "earliest"})
    consumer.subscribe([topics.HEARTBEAT])
    message = consumer.poll(20.0)
    consumer.close()
    assert message is not None
    value: dict[str, object] = json.loads(message.value() or b"")
    return value


def go_on_from_a_copy(tmp_path: Path, broker: KafkaBroker, dataset: Path) -> None:
    """The broker's folder, copied while it is stopped, is the log: offsets, checkpoints, orders."""
    broker.stop()
    copied = make_broker(tmp_path / "copy")
    shutil.copytree(broker.folder / "data", copied.folder / "data")
    try:
        with start(tmp_path / "two", copied, dataset) as service:
            archive(service)
            t0 = service.process.clock.tai_s() - 1
            service.publish("readout", readout_event(t0=t0, uri="ok:3"))
            service.publish("readout", readout_event(t0=t0, uri="ok:1", detector=3))
            outcomes = [m.outcome for m in service.pump_manifests(7)[5:]]
            assert sorted(outcomes) == [Outcome.ALERTS, Outcome.DUPLICATE]
            assert not read_control(service.log)[0].is_held
            service.pump(lambda: service.sample("sub60_sink_records_total", sink=FILES) == 1)
            assert audit(service.log, service.settings, service.process.clock, settle_s=0.0).is_clean
            alert = service.read(topics.ALERTS)[0]
            service.producer.append([Record(topics.ALERTS, alert.key, alert.value)])
            found = audit(service.log, service.settings, service.process.clock, settle_s=0.0)
            assert {(d.kind, d.visit) for d in found.discrepancies} == {(Kind.ALERT_TWICE, VISIT)}
    finally:
        copied.stop()
