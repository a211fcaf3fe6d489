"""``sub60 hold`` and ``sub60 release`` as processes beside a running worker, on a real log."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import Outcome
from service import topics
from service.roles.alert_switch import AlertSwitch
from service.roles.archive import Trimmer
from tests.support.service.builders import VISIT, readout_event
from tests.support.service.harness import FAKE, Service, write_empty_dataset


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with Service(tmp_path, dataset=write_empty_dataset(tmp_path / "dataset"), compute=FAKE) as running:
        yield running


def run(service: Service, *arguments: str, code: int = 0) -> str:
    """A command in a process of its own, while the service goes on."""
    environment = os.environ | {"SUB60_LOG_URL": service.settings.log_url}
    environment |= {"SUB60_STATE_DIR": str(service.settings.state_dir), "SUB60_DATASET": str(service.settings.dataset)}
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    service.pump(lambda: process.poll() is not None, 60.0)
    assert process.stdout is not None
    output = process.stdout.read()
    process.stdout.close()
    assert process.returncode == code, output
    return output


def test_hold_is_obeyed_outlives_a_flush_and_a_restart_and_release_ends_it(service: Service) -> None:
    t0 = service.process.clock.tai_s() - 1
    output = run(service, "hold", "--reason", "dome closed")
    assert "obeyed by worker-0" in output
    service.publish("readout", readout_event(t0=t0))
    (held,) = service.pump_manifests(1)
    assert (held.outcome, held.code, held.n_alerts, held.counts["n_withheld"]) == (
        Outcome.HELD, "operator_hold", 0, 3,
    )  # fmt: skip
    assert len(service.read(topics.RESULTS)) == 1
    os.kill(service.servers.cache.pid or 0, 9)
    again = AlertSwitch(service.log.reader(topics.CONTROL), service.process.metrics)
    assert not again.is_current
    again.turn()
    assert (again.is_current, again.is_held) == (True, True)
    assert "obeyed by worker-0" in run(service, "release")
    service.publish("readout", readout_event(t0=t0, visit=VISIT + 1))
    assert service.pump_manifests(2)[1].n_alerts == 3
    assert len(service.read(topics.ALERTS)) == 3


def test_brokers_hear_that_alerts_are_held(service: Service) -> None:
    run(service, "hold", "--reason", "dome closed")
    service.pump(lambda: len(service.read(topics.HEARTBEAT)) >= 2, 30.0)
    first, *_, last = (json.loads(message.value) for message in service.read(topics.HEARTBEAT))
    assert (first["alerts_held"], last["alerts_held"]) == (False, True)
    assert last["ready"] is True
    assert last["worker"] == "worker-0"


def test_signs_of_life_do_not_fill_the_log(service: Service) -> None:
    service.pump(lambda: len(service.read(topics.STATUS)) >= 2)
    Trimmer(service.log, {topics.STATUS: (1, ()), topics.HEARTBEAT: (1 << 20, ())}, service.process.clock).turn()
    first, end = service.log.reader(topics.STATUS).bounds()[0]
    assert (end - first, end >= 2) == (0, True)
    assert service.log.reader(topics.HEARTBEAT).bounds()[0] == (0, 1)


def test_a_worker_that_does_not_turn_is_named(service: Service) -> None:
    service.pump(lambda: len(service.read(topics.STATUS)) > 0)
    environment = os.environ | {"SUB60_LOG_URL": service.settings.log_url}
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", "hold", "--reason", "x", "--timeout", "2"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, "not obeyed in 2 s: worker-0" in done.stdout) == (1, True), done.stdout + done.stderr
