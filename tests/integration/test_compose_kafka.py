"""The compose file's settings of Kafka, on a real broker: it starts with them, and the service finds it fit."""

import os
from pathlib import Path

import pytest

from service.checks import Level, run_checks
from service.connections import connect_log
from service.settings import read_settings
from service.topics import partition_counts, retention
from tests.image.compose import filled_example, read_compose
from tests.support.kafka.broker import KafkaBroker

pytestmark = pytest.mark.kafka
JARS = Path(__file__).parents[2] / "var" / "kafka" / "jars"
OF_THE_IMAGE = ("KAFKA_HEAP_OPTS",)


def read_properties():
    """The properties that the image's start script makes of the variables."""
    environment = read_compose(filled_example())["services"]["kafka"]["environment"]
    kept = {name: value for name, value in environment.items() if name not in OF_THE_IMAGE}
    return {name.removeprefix("KAFKA_").replace("_", ".").lower(): value for name, value in kept.items()}


class ComposeBroker(KafkaBroker):
    """As the compose file says, at other addresses and in another folder."""

    def _configure(self, port, controller_port):
        moved = {"log.dirs": str(self.folder / "data")}
        for name, value in read_properties().items():
            here = value.replace("kafka:9092", f"127.0.0.1:{port}").replace("INSIDE://:9092", f"INSIDE://:{port}")
            here = here.replace("localhost:9093", f"127.0.0.1:{controller_port}")
            here = here.replace("localhost:19092", "localhost:0").replace("HOST://:19092", "HOST://127.0.0.1:0")
            moved.setdefault(name, here)
        config = self.folder / "server.properties"
        config.write_text("".join(f"{name}={value}\n" for name, value in moved.items()))
        return config


@pytest.fixture
def address(tmp_path):
    if not os.environ.get("SUB60_TEST_KAFKA"):
        pytest.skip("SUB60_TEST_KAFKA is not set: no Kafka is wanted")
    broker = ComposeBroker(tmp_path, JARS)
    yield broker.start()
    broker.stop()


def test_the_service_finds_nothing_amiss(address):
    services = read_compose(filled_example())["services"]
    partitions = services["topics"]["environment"]["SUB60_PARTITIONS"]
    settings = read_settings({"SUB60_LOG_URL": f"kafka://{address}", "SUB60_PARTITIONS": str(partitions)})
    with connect_log(settings) as log:
        log.ensure_topics(partition_counts(settings.log_url, settings.partitions), retention(settings))
        assert log.partitions("work") == settings.partitions
    findings = list(run_checks(settings, ("log", "topics", "clock")))
    assert findings
    assert [finding for finding in findings if finding.level is Level.FAILED] == []
