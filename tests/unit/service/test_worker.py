"""The worker's loop over a log, a child and a clock in memory."""

import json
from typing import Any

import msgpack
import pytest
from prometheus_client import CollectorRegistry

from core.contracts.catalogs import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, SS_SOURCE, empty_catalog
from core.errors import Outcome
from core.timescales import format_tai
from service.control import send_order
from service.health import Health
from service.log.contract import CommitUnknown, Fenced, LogUnavailable, Record
from service.metrics import Metrics
from service.records import FORMAT, Committed, DeadLetter, Heartbeat, Manifest, Result, Verb, unpack
from service.roles.alert_switch import AlertSwitch
from service.roles.reports import Reporter
from service.roles.worker import Parts, Worker
from service.settings import read_settings
from tests.support.service.builders import T0, VISIT, prepare, readout
from tests.support.service.fakes import FakeAttempts, FakeChild, FakeClock, FakeLog
from tests.support.service.memory_log import MemoryLog


def empty_result() -> Result:
    """A result without rows."""
    return Result(
        visit=VISIT,
        detector=0,
        band="r",
        outcome=Outcome.ALERTS,
        midpoint_mjd_tai=60000.0,
        processed_mjd_tai=60000.0,
        dia_sources=empty_catalog(DIA_SOURCE, 0),
        dia_objects=empty_catalog(DIA_OBJECT, 0),
        dia_forced_sources=empty_catalog(DIA_FORCED_SOURCE, 0),
        ss_sources=empty_catalog(SS_SOURCE, 0),
    )


class Bench:
    """A worker and everything around it."""

    def __init__(self, control: MemoryLog | None = None, **settings: Any) -> None:
        self.clock, self.log, self.child, self.attempts = FakeClock(), FakeLog(), FakeChild(), FakeAttempts()
        self.registry = CollectorRegistry()
        metrics = Metrics(self.registry)
        self.health = Health(self.clock)
        waits = bool(settings.get("measure_reference", False))
        self.control = control or MemoryLog()
        self.switch = AlertSwitch(self.control.reader("control"), metrics)
        self.worker = Worker(
            Parts(
                settings=read_settings({}, **settings),
                clock=self.clock,
                log=self.log,
                child=self.child,  # type: ignore[arg-type]
                inbox=self.child,  # type: ignore[arg-type]
                attempts=self.attempts,
                reporter=Reporter("w0", self.log, self.clock, metrics, waits_for_reference=waits),
                switch=self.switch,
                metrics=metrics,
                health=self.health,
            )
        )
        self.turn(2)

    def turn(self, n: int = 1) -> None:
        """Go round."""
        for _ in range(n):
            self.worker.turn()

    def run_job(self, **changes: Any) -> None:
        """One readout from arrival to commit."""
        self.log.put(readout(**changes))
        self.turn(2)
        self.child.answer()
        self.turn(2)

    def manifests(self) -> list[Manifest]:
        """Of all commits."""
        return [
            unpack(Manifest, r.value) for _, _, records in self.log.commits for r in records if r.topic == "manifests"
        ]

    def beats(self) -> list[Heartbeat]:
        """Of the status topic."""
        return [unpack(Heartbeat, r.value) for r in self.log.appended if r.topic == "status"]

    def sample(self, name: str, **labels: str) -> float:
        """A metric's value, 0 if it never moved."""
        return self.registry.get_sample_value(name, labels) or 0.0


def test_one_readout_is_one_commit_of_alerts_manifest_and_checkpoint() -> None:
    bench = Bench()
    bench.run_job()
    ((partition, checkpoint, records),) = bench.log.commits
    assert partition == 0
    assert checkpoint.offset == 1
    assert checkpoint.recent == ((VISIT, 0),)
    assert [(r.topic, r.key) for r in records] == [
        ("manifests", b"%d:0" % VISIT),
        ("alerts", b"1"),
        ("alerts", b"2"),
    ]
    (manifest,) = bench.manifests()
    assert (manifest.outcome, manifest.n_alerts, manifest.attempt) == (Outcome.ALERTS, 2, 1)
    committed = [unpack(Committed, r.value) for r in bench.log.appended if r.topic == "committed"]
    assert committed[0].latency_s == pytest.approx(0.2)
    assert committed[0].shutter_latency_s == pytest.approx(2.2)
    assert bench.sample("sub60_visits_total", outcome="alerts") == 1
    assert bench.sample("sub60_alert_latency_seconds_count") == 1


def test_deadline_counts_from_the_earlier_of_t0_and_receipt() -> None:
    bench = Bench()
    bench.log.put(readout(received_tai_s=T0 - 5))
    bench.turn(2)
    assert bench.child.jobs[0].deadline_monotonic_s - bench.clock.monotonic_s() == pytest.approx(60 - 5.2)


def test_earliest_readout_first_across_partitions_in_order_within() -> None:
    bench = Bench()
    bench.log.put(readout(visit=VISIT + 2, readout_end_tai_s=T0 + 9), 0)
    bench.log.put(readout(visit=VISIT, readout_end_tai_s=T0 - 9), 0)  # earlier, but behind in its partition
    bench.log.put(readout(visit=VISIT + 1), 1)
    for _ in range(3):
        bench.turn(2)
        bench.child.answer()
    bench.turn(2)
    assert [m.visit - VISIT for m in bench.manifests()] == [1, 2, 0]


def test_a_readout_sent_twice_is_a_duplicate_even_right_behind_the_first() -> None:
    bench = Bench()
    bench.log.put(readout())
    bench.log.put(readout())
    bench.turn(2)
    bench.child.answer()
    bench.turn(3)
    assert [m.outcome for m in bench.manifests()] == [Outcome.ALERTS, Outcome.DUPLICATE]
    assert len(bench.child.jobs) == 1
    assert bench.log.checkpoints[0].recent == ((VISIT, 0),)


def test_a_duplicate_too_old_for_the_checkpoint_is_known_by_its_mark() -> None:
    bench = Bench()
    bench.attempts.is_done.add((VISIT, 0))
    bench.log.put(readout())
    bench.turn(3)
    assert [m.outcome for m in bench.manifests()] == [Outcome.DUPLICATE]


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"n_snaps": 2}, Outcome.UNSUPPORTED),
        ({"readout_end_tai_s": T0 - 50_000.0}, Outcome.EXPIRED),
        ({"detector": 94}, Outcome.UNSUPPORTED),
    ],
)
def test_outcomes_that_need_no_pixels(changes: dict[str, Any], outcome: Outcome) -> None:
    bench = Bench(detectors_off="5,94")
    bench.log.put(readout(**changes))
    bench.turn(3)
    assert [m.outcome for m in bench.manifests()] == [outcome]
    assert bench.child.jobs == []


def test_third_death_of_the_child_is_a_dead_letter_and_the_next_readout_comes_out() -> None:
    bench = Bench()
    bench.log.put(readout())
    bench.log.put(readout(visit=VISIT + 1))
    for _ in range(3):
        bench.turn(2)
        bench.child.say(None)
        bench.turn()
        bench.clock.now += 20
    bench.turn(2)
    bench.child.answer()
    bench.turn(2)
    assert [m.outcome for m in bench.manifests()] == [Outcome.CRASHED, Outcome.ALERTS]
    crashed = bench.log.commits[0][2]
    (letter,) = (unpack(DeadLetter, r.value) for r in crashed if r.topic == "deadletters")
    assert (letter.code, letter.visit) == ("crashed", VISIT)
    assert bench.sample("sub60_dead_letters_total", code="crashed") == 1


def test_attempts_of_other_workers_count() -> None:
    bench = Bench()
    bench.attempts.counts[VISIT, 0] = 3
    bench.log.put(readout())
    bench.turn(3)
    assert [m.outcome for m in bench.manifests()] == [Outcome.CRASHED]


def test_a_child_that_overruns_is_replaced_and_its_late_answer_ignored() -> None:
    bench = Bench()
    bench.log.put(readout())
    bench.turn(2)
    bench.clock.now += 46
    bench.child.answer()
    late = bench.child.said.pop()
    bench.turn()
    assert bench.child.n_kills == 1
    bench.clock.now += 1
    bench.turn(3)
    assert len(bench.child.jobs) == 2
    bench.child.said.append(late)
    bench.turn(2)
    assert bench.log.commits == []
    bench.child.answer()
    bench.turn(2)
    assert [m.attempt for m in bench.manifests()] == [2]


def test_next_job_starts_before_the_commit_and_a_failed_commit_is_tried_again() -> None:
    bench = Bench()
    bench.log.errors.extend([LogUnavailable("away"), LogUnavailable("away")])
    bench.log.put(readout())
    bench.log.put(readout(visit=VISIT + 1))
    bench.turn(2)
    bench.child.answer()
    bench.turn()
    assert bench.log.commits == []
    assert len(bench.child.jobs) == 2
    for _ in range(3):
        bench.clock.now += 1
        bench.turn()
    assert len(bench.log.commits) == 1


@pytest.mark.parametrize("error", [Fenced("lost"), CommitUnknown("lost")])
def test_a_refused_commit_drops_the_result_and_the_readout_comes_again(error: Exception) -> None:
    bench = Bench()
    bench.log.errors.append(error)
    bench.log.put(readout())
    bench.turn(2)
    bench.child.answer()
    bench.turn(2)
    assert bench.log.commits == []
    bench.log.epochs[0] = 2
    bench.run_job()
    assert len(bench.manifests()) == 1


def test_work_of_a_lost_partition_is_dropped_with_its_job() -> None:
    bench = Bench()
    bench.log.put(readout())
    bench.turn(2)
    del bench.log.epochs[0]
    bench.turn()
    bench.child.answer()
    bench.turn(2)
    assert bench.log.commits == []
    assert bench.attempts.counts[VISIT, 0] == 0
    bench.log.put(readout(detector=1), 1)
    bench.turn(2)
    assert len(bench.child.jobs) == 2


def test_hints_reach_the_child_and_are_told_again_to_its_successor() -> None:
    bench = Bench()
    bench.log.put(prepare())
    bench.log.put(prepare(group="old", issued_tai_s=T0 - 900, start_tai_s=T0 - 890))
    bench.turn(2)
    assert [hint.group for hint in bench.child.hints] == ["g1"]
    bench.child.say(None)
    bench.turn(3)
    assert [hint.group for hint in bench.child.hints] == ["g1", "g1"]
    assert bench.sample("sub60_prepares_total", state="expired") == 1
    bench.clock.now += 200
    bench.turn()
    assert bench.sample("sub60_prepares_total", state="unused") == 1


def test_reference_goes_into_the_committed_record() -> None:
    bench = Bench(measure_reference=True)
    bench.run_job()
    assert not [r for r in bench.log.appended if r.topic == "committed"]
    bench.child.say({"op": "reference", "generation": 1, "cpu_wall_s": [0.1, 0.2]})
    bench.turn()
    (committed,) = (unpack(Committed, r.value) for r in bench.log.appended if r.topic == "committed")
    assert (committed.reference_cpu_s, committed.reference_wall_s) == (0.1, 0.2)


def test_far_receipt_makes_the_clock_suspect() -> None:
    bench = Bench()
    bench.run_job(received_tai_s=T0 + 37)
    assert bench.manifests()[0].is_clock_suspect
    assert bench.sample("sub60_clock_suspect_total") == 1
    assert bench.sample("sub60_alert_latency_seconds_count") == 0


def test_ready_when_the_child_is_warm_and_the_group_joined() -> None:
    bench = Bench()
    assert bench.health.is_ready
    bench.child.say(None)
    bench.turn()
    assert not bench.health.is_ready


def fail(bench: Bench, code: str = "store_unreadable") -> None:
    """The child says that the present job failed by what may pass."""
    generation = bench.child.jobs[-1].generation
    bench.child.say({"op": "failed", "generation": generation, "code": code, "message": "away"})
    bench.turn(2)


def test_what_may_pass_is_tried_again_until_the_deadline_and_counts_no_death() -> None:
    bench = Bench()
    bench.log.put(readout())
    bench.turn(2)
    waits = []
    while not bench.child.jobs[-1].is_last_attempt:
        fail(bench)
        failed_s, n_jobs = bench.clock.now, len(bench.child.jobs)
        while len(bench.child.jobs) == n_jobs:
            bench.clock.now += 0.1
            bench.turn()
        waits.append(round(bench.clock.now - failed_s, 1))
    assert waits[:5] == pytest.approx([0.2, 0.5, 1.0, 2.0, 4.0], abs=0.15)
    assert 49 < bench.clock.now - T0 < 55
    assert bench.attempts.counts[VISIT, 0] == 1
    bench.child.answer(0, outcome=Outcome.NO_TEMPLATE, code="store_unreadable", is_dead_letter=True)
    bench.turn(2)
    (manifest,) = bench.manifests()
    assert (manifest.outcome, manifest.code) == (Outcome.NO_TEMPLATE, "store_unreadable")
    assert manifest.attempt == len(bench.child.jobs)
    assert [r.topic for _, _, records in bench.log.commits for r in records] == ["manifests", "deadletters"]


def test_a_last_attempt_that_fails_too_is_a_dead_letter_with_its_cause() -> None:
    bench = Bench()
    bench.log.put(readout())
    bench.turn(2)
    for _ in range(2):
        fail(bench)
        bench.clock.now += 55
        bench.turn(2)
    assert bench.child.jobs[-1].is_last_attempt
    (manifest,) = bench.manifests()
    assert manifest.outcome is Outcome.CRASHED
    assert "store_unreadable" in manifest.message


def test_a_readout_that_is_late_already_is_given_a_while() -> None:
    bench = Bench()
    bench.log.put(readout(readout_end_tai_s=T0 - 3000.0, received_tai_s=T0 - 3000.0))
    bench.turn(2)
    fail(bench)
    bench.clock.now += 0.3
    bench.turn(2)
    assert [job.is_last_attempt for job in bench.child.jobs] == [False, False]
    fail(bench)
    bench.clock.now += 6.0
    bench.turn(2)
    assert bench.child.jobs[-1].is_last_attempt


def test_a_hold_keeps_alerts_back_until_the_release_and_results_go_on() -> None:
    bench = Bench()
    send_order(bench.control, Verb.HOLD, T0, "clouds", "me")
    bench.log.put(readout())
    bench.turn(2)
    bench.child.answer(2, counts={"n_detected": 5, "n_flagged": 3, "n_sent": 2}, result=empty_result())
    bench.turn(2)
    (manifest,) = bench.manifests()
    assert (manifest.outcome, manifest.code, manifest.n_alerts) == (Outcome.HELD, "operator_hold", 0)
    assert manifest.counts == {"n_detected": 5, "n_flagged": 3, "n_sent": 0, "n_withheld": 2}
    assert [r.topic for r in bench.log.commits[0][2]] == ["manifests", "results"]
    assert bench.sample("sub60_alerts_held") == 1
    assert bench.beats()[-1].alerts_held
    send_order(bench.control, Verb.RELEASE, T0, "", "me")
    bench.run_job(visit=VISIT + 1)
    assert bench.manifests()[1].n_alerts == 2
    assert bench.sample("sub60_alerts_held") == 0
    assert (bench.beats()[-1].alerts_held, bench.beats()[-1].control_offset) == (False, 2)


def test_an_order_that_comes_while_a_readout_is_computed_is_obeyed_by_its_commit() -> None:
    bench = Bench()
    bench.log.put(readout())
    bench.turn(2)
    send_order(bench.control, Verb.HOLD, T0, "clouds", "me")
    bench.child.answer()
    bench.turn(2)
    assert [m.code for m in bench.manifests()] == ["operator_hold"]


def test_nothing_is_committed_before_older_orders_are_read() -> None:
    control = MemoryLog()
    send_order(control, Verb.HOLD, T0, "since last night", "me")
    control.is_away = True
    bench = Bench(control=control)
    bench.run_job()
    assert bench.log.commits == []
    control.is_away = False
    bench.turn()
    assert [m.outcome for m in bench.manifests()] == [Outcome.HELD]


def test_a_log_that_loses_its_control_topic_for_a_while_keeps_the_last_order() -> None:
    bench = Bench()
    send_order(bench.control, Verb.HOLD, T0, "clouds", "me")
    bench.turn()
    bench.control.is_away = True
    bench.run_job()
    assert [m.code for m in bench.manifests()] == ["operator_hold"]
    assert bench.sample("sub60_log_errors_total") > 0


def test_a_redriven_readout_is_no_duplicate_nor_too_old_and_its_latency_is_not_counted() -> None:
    bench = Bench()
    bench.run_job(readout_end_tai_s=T0 - 50_000.0, redrive=1)
    bench.run_job(readout_end_tai_s=T0 - 50_000.0, redrive=1)
    bench.run_job(readout_end_tai_s=T0 - 50_000.0, redrive=2)
    outcomes = [(m.outcome, m.redrive, m.is_clock_suspect) for m in bench.manifests()]
    assert outcomes == [(Outcome.ALERTS, 1, False), (Outcome.DUPLICATE, 1, False), (Outcome.ALERTS, 2, False)]
    assert bench.log.checkpoints[0].recent == ((VISIT, 1024), (VISIT, 2048))
    assert bench.sample("sub60_alert_latency_seconds_count") == 0
    assert bench.sample("sub60_deadline_missed_total") == 0
    assert bench.child.jobs[0].deadline_monotonic_s == pytest.approx(bench.clock.monotonic_s() + 60)


def test_what_the_telescope_sends_goes_before_what_was_redriven() -> None:
    bench = Bench()
    bench.log.put(readout(visit=VISIT, readout_end_tai_s=T0 - 900, redrive=1), 0)
    bench.log.put(readout(visit=VISIT + 1), 1)
    bench.turn(2)
    assert [job.readout.visit for job in bench.child.jobs] == [VISIT + 1]


def test_brokers_get_a_sign_of_life_every_ten_seconds() -> None:
    bench = Bench()
    bench.run_job()
    for _ in range(39):
        bench.clock.now += 1
        bench.turn()
    signs = [json.loads(r.value) for r in bench.log.appended if r.topic == "heartbeat"]
    assert [sign["time_tai"] for sign in signs] == [format_tai(T0 + 0.2 + 10 * i) for i in range(4)]
    assert signs[0] == {
        "format": 1,
        "worker": "w0",
        "time_tai": format_tai(T0 + 0.2),
        "ready": True,
        "alerts_held": False,
        "n_committed": 0,
        "n_alerts": 0,
        "last_commit_tai": None,
    }
    last = {"ready": True, "n_committed": 1, "n_alerts": 2, "last_commit_tai": format_tai(T0 + 0.2)}
    assert last.items() <= signs[-1].items()


def test_a_child_whose_answer_waits_to_be_heard_is_not_late() -> None:
    """The log held the worker up, not the child."""
    bench = Bench()
    bench.log.put(readout())
    bench.turn(2)
    poll = bench.log.poll

    def stall(timeout_s: float) -> list[Any]:
        bench.clock.now += 50.0
        bench.child.answer()
        bench.log.poll = poll  # type: ignore[method-assign]
        return poll(timeout_s)

    bench.log.poll = stall  # type: ignore[method-assign]
    bench.turn(3)
    assert bench.child.n_kills == 0
    assert [m.outcome for m in bench.manifests()] == [Outcome.ALERTS]


def test_a_refused_commit_is_no_failed_attempt() -> None:
    """However often the log refuses what is computed, the readout is not given up for it."""
    bench = Bench()
    for _ in range(4):
        bench.log.errors.append(Fenced("moved on"))
        bench.log.put(readout())
        bench.turn(2)
        bench.child.answer()
        bench.turn(2)
    assert bench.attempts.counts[VISIT, 0] == 0
    assert bench.log.commits == []
    bench.run_job()
    assert [m.outcome for m in bench.manifests()] == [Outcome.ALERTS]
    assert bench.manifests()[0].attempt == 1


def foreign(kind: str) -> bytes:
    """A record of the next release."""
    return bytes(msgpack.packb({"format": FORMAT + 1, "record": kind, "fields": {}}))


def test_work_of_another_release_stops_its_partition_and_no_checkpoint_passes_it() -> None:
    bench = Bench()
    bench.run_job(visit=VISIT)
    bench.log.put(foreign("Readout"))
    bench.run_job(visit=VISIT + 1)
    assert [manifest.visit for manifest in bench.manifests()] == [VISIT]
    assert bench.log.checkpoints[0].offset == 1
    assert bench.sample("sub60_partitions_stopped") == 1
    assert bench.sample("sub60_failures_total", code="unknown_format") == 1
    bench.log.epochs[0] = 2  # its owner anew, from the checkpoint
    bench.turn()
    assert bench.sample("sub60_partitions_stopped") == 0
    bench.run_job(visit=VISIT + 2)
    assert [manifest.visit for manifest in bench.manifests()] == [VISIT, VISIT + 2]


def test_work_of_another_release_leaves_the_other_partitions_alone() -> None:
    bench = Bench()
    bench.log.put(foreign("KindOfTheFuture"), 1)
    bench.run_job()
    assert [manifest.visit for manifest in bench.manifests()] == [VISIT]


def test_a_hint_of_another_release_is_passed_over() -> None:
    bench = Bench()
    bench.log.put(foreign("Prepare"))
    bench.run_job()
    assert [manifest.visit for manifest in bench.manifests()] == [VISIT]
    assert bench.sample("sub60_partitions_stopped") == 0


def test_an_order_of_another_release_is_never_reported_as_obeyed() -> None:
    bench = Bench()
    bench.control.append([Record("control", b"", foreign("Control"))])
    send_order(bench.control, Verb.REDRIVE_BEGIN, T0, "", "me")
    bench.turn()
    assert (bench.switch.is_current, bench.switch.offset, bench.switch.obeyed) == (True, 2, 0)
    send_order(bench.control, Verb.HOLD, T0, "clouds", "me")
    bench.turn()
    assert (bench.switch.is_held, bench.switch.obeyed) == (True, 3)
