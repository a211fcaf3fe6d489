"""What was held or given up goes back and comes out, once, on a real log with a real child."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from core.errors import Outcome, RejectedInputError
from core.ids import source_ids
from service import topics
from service.audit import audit
from service.audit.collect import Progress
from service.cli import main
from service.control import read_control, send_order
from service.log import Record
from service.records import DeadLetter, Manifest, Readout, Verb, pack, unpack
from service.redrive import Item, Wanted, only_one, plan_redrive, send_back
from tests.support.service.builders import VISIT, readout_event
from tests.support.service.harness import FAKE, Service, write_empty_dataset

HELD = Wanted(dead_letters=False, held=True)
LETTERS = Wanted(dead_letters=True, held=False)


def quiet(_name: str, _n_read: int, _n_held: int) -> None:
    """No progress."""


silent: Progress = quiet


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with Service(tmp_path, dataset=write_empty_dataset(tmp_path / "dataset"), compute=FAKE, expire_s=600.0) as running:
        yield running


def redrive(service: Service, wanted: Wanted) -> list[Item]:
    with only_one(service.log, service.process.clock, "me"):
        items = plan_redrive(service.log, wanted, silent)
        send_back(service.log, items, silent)
    return items


def verdicts(service: Service) -> list[tuple[int, Outcome, int, int]]:
    return [(m.detector, m.outcome, m.redrive, m.n_alerts) for m in service.manifests()]


def ids(detector: int, n: int) -> list[bytes]:
    return [b"%d" % number for number in source_ids(1, VISIT, detector, np.arange(n, dtype=np.int64)).tolist()]


def test_a_held_storm_is_released_once_however_often_it_is_redriven(service: Service) -> None:
    t0 = service.process.clock.tai_s() - 1
    service.publish("readout", readout_event(t0=t0, uri="storm:4"))
    service.publish("readout", readout_event(t0=t0, uri="ok:2", detector=1))
    service.pump_manifests(2)
    assert [(i.key, i.code, i.refusal) for i in redrive(service, HELD)] == [((VISIT, 0), "storm", "")]
    assert [i.refusal for i in redrive(service, HELD)] == ["it is on its way already"]
    service.pump_manifests(3)
    assert verdicts(service)[-1] == (0, Outcome.ALERTS, 1, 4)
    assert redrive(service, HELD) == []
    assert sorted(m.key for m in service.read(topics.ALERTS)) == sorted(ids(0, 4) + ids(1, 2))
    assert service.sample("sub60_alert_latency_seconds_count") == 2  # the storm's first outcome and its neighbor's
    found = audit(service.log, service.settings, service.process.clock, settle_s=0.0)
    assert found.is_clean, found.discrepancies


def test_two_records_of_one_redrive_are_one(service: Service) -> None:
    """Two operators at once, and even the lock broken: the worker knows the second."""
    service.publish("readout", readout_event(t0=service.process.clock.tai_s() - 1, uri="storm:4"))
    service.pump_manifests(1)
    items = plan_redrive(service.log, HELD, silent)
    send_back(service.log, items, silent)
    send_back(service.log, items, silent)
    service.pump_manifests(3)
    assert [v[1:3] for v in verdicts(service)] == [(Outcome.HELD, 0), (Outcome.ALERTS, 1), (Outcome.DUPLICATE, 1)]
    assert len(service.read(topics.ALERTS)) == 4


def test_a_crashed_readout_comes_out_when_its_cause_is_gone(service: Service, tmp_path: Path) -> None:
    cure = tmp_path / "cure"
    service.publish("readout", readout_event(t0=service.process.clock.tai_s() - 1, uri=f"until:{cure}"))
    service.pump_manifests(1)
    redrive(service, LETTERS)
    service.pump_manifests(2)
    assert [v[1:3] for v in verdicts(service)] == [(Outcome.CRASHED, 0), (Outcome.CRASHED, 1)]
    cure.touch()
    redrive(service, LETTERS)
    service.pump_manifests(3)
    assert verdicts(service)[-1] == (0, Outcome.ALERTS, 2, 1)
    assert [i.refusal for i in redrive(service, LETTERS)] == ["its alerts are out"]
    assert audit(service.log, service.settings, service.process.clock, settle_s=0.0).is_clean


def test_an_old_event_that_was_refused_goes_back_to_its_topic_and_does_not_expire(service: Service) -> None:
    event = readout_event(t0=service.process.clock.tai_s() - 5000, detector=7, uri="ok:2")
    camera, service.fan_out._camera = service.fan_out._camera, without_detector(service.fan_out._camera, 7)
    service.publish("readout", event)
    service.pump(lambda: len(service.dead_letters()) == 1)
    service.fan_out._camera = camera
    assert [(i.topic, i.what, i.refusal) for i in redrive(service, LETTERS)] == [("readout", "event", "")]
    assert [i.refusal for i in redrive(service, LETTERS)] == ["it has gone back already"]
    service.pump_manifests(1)
    assert verdicts(service) == [(7, Outcome.ALERTS, 0, 2)]


def without_detector(camera: Any, detector: int) -> Any:
    class Camera:
        instrument = camera.instrument
        detectors = tuple(number for number in camera.detectors if number != detector)

    return Camera()


def test_what_cannot_go_back_says_why(service: Service) -> None:
    clock = service.process.clock
    t0 = clock.tai_s() - 1
    service.publish("readout", readout_event(t0=t0, uri="reject"))
    service.publish("readout", b"[" + b" " * 70_000 + b"]")
    service.pump_manifests(1)
    service.pump(lambda: len(service.dead_letters()) == 2)
    refusals = {i.topic: i.refusal for i in plan_redrive(service.log, LETTERS, silent)}
    assert refusals["work"] == ""
    assert "64 KB" in refusals["readout"]
    letter = {"topic": "work", "partition": 0, "code": "crashed", "message": "", "payload": b"", "at_tai_s": t0}
    for detector, outcome in ((20, None), (21, Outcome.CRASHED), (22, Outcome.BAD_RAW)):
        service.producer.append(
            [Record(topics.DEAD_LETTERS, b"k", pack(DeadLetter(**letter, visit=VISIT, detector=detector)))]
        )
        manifest = Manifest(
            instrument="", group="", visit=VISIT, detector=detector, band="r", outcome=outcome or Outcome.CRASHED
        )
        if outcome is not None:
            service.producer.append([Record(topics.MANIFESTS, b"k", pack(manifest))])
    items = {i.key: i.refusal for i in plan_redrive(service.log, LETTERS, silent) if i.key}
    assert "manifest is no longer in the log" in items[VISIT, 20]
    assert "readout is no longer in the log" in items[VISIT, 21]
    assert "come out since, as bad_raw" in items[VISIT, 22]


@pytest.mark.parametrize(
    ("changes", "n"),
    [
        ({"codes": frozenset({"storm"})}, 2),
        ({"codes": frozenset({"operator_hold"})}, 1),
        ({"visits": frozenset({VISIT + 1})}, 1),
        ({"detectors": frozenset({0}), "codes": frozenset({"storm"})}, 1),
        ({"end_tai_s": 0.0}, 0),
        ({"start_tai_s": 0.0}, 3),
    ],
)
def test_filters(service: Service, changes: dict[str, Any], n: int) -> None:
    t0 = service.process.clock.tai_s() - 1
    for visit, detector, code in ((VISIT, 0, "storm"), (VISIT, 1, "storm"), (VISIT + 1, 0, "operator_hold")):
        manifest = Manifest(
            instrument="", group="", visit=visit, detector=detector, band="r", outcome=Outcome.HELD, code=code
        )
        service.producer.append([Record(topics.MANIFESTS, b"k", pack(manifest))])
    wanted = Wanted(**({"dead_letters": False, "held": True} | changes))
    assert len(plan_redrive(service.log, wanted, silent)) == n
    assert t0 > 0


def test_refused_while_alerts_are_held_and_while_another_runs(service: Service) -> None:
    clock = service.process.clock
    with (
        only_one(service.log, clock, "first"),
        pytest.raises(RejectedInputError, match="another redrive is running, by first"),
        only_one(service.log, clock, "second"),
    ):
        raise AssertionError("both ran")
    assert read_control(service.log)[0].redrive_since_tai_s is None
    send_order(service.producer, Verb.HOLD, clock.tai_s(), "clouds", "me")
    with pytest.raises(RejectedInputError, match="alerts are held"), only_one(service.log, clock, "third"):
        raise AssertionError("ran while held")


def test_a_redrive_that_died_is_forgotten_after_ten_minutes(service: Service) -> None:
    clock = service.process.clock
    send_order(service.producer, Verb.REDRIVE_BEGIN, clock.tai_s() - 599, "", "dead")
    with pytest.raises(RejectedInputError, match="by dead"), only_one(service.log, clock, "me"):
        raise AssertionError("ran")
    send_order(service.producer, Verb.REDRIVE_END, clock.tai_s(), "", "dead")
    send_order(service.producer, Verb.REDRIVE_BEGIN, clock.tai_s() - 601, "", "older")
    with only_one(service.log, clock, "me"):
        pass


def test_the_command_lists_and_does(service: Service) -> None:
    service.publish("readout", readout_event(t0=service.process.clock.tai_s() - 1, uri="storm:4"))
    service.pump_manifests(1)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["redrive", *arguments, "--log-url", service.settings.log_url])

    listed = run("--held", "--detector", "0")
    assert (listed.exit_code, f"visit {VISIT} detector 0" in listed.output) == (0, True)
    assert "nothing was done" in listed.output
    readouts = [unpack(Readout, message.value) for message in service.read(topics.WORK)]
    assert [r.redrive for r in readouts] == [0]
    assert "1 sent back" in run("--held", "--go").output
    assert "0 sent back" in run("--held", "--go").output
    assert service.pump_manifests(2)[1].n_alerts == 4
    assert run().exit_code == 2
