"""The load test's search, its choice of detectors, its picture, and what it counts of processes."""

import os
import subprocess
import sys
import time
from xml.etree import ElementTree

import pytest

from benchmarks.load.limit import LoadStep, find_limit, only, scale_section
from benchmarks.load.picture import load_picture
from benchmarks.load.usage import cpu_between, usage
from benchmarks.replay import TimedEvent


def step(n: int, p99_s: float, lost: int = 0) -> LoadStep:
    return LoadStep(
        detectors=n, cadence_s=39.0, detector_visits=4 * n, p50_s=p99_s / 2, p95_s=0.9 * p99_s, p99_s=p99_s,
        cpu_p50_s=2.0, busy=n / 39, lost=lost, lag_s=0.0,
    )  # fmt: skip


@pytest.mark.parametrize("truth", [*range(9), 15, 16, 40])
def test_the_limit_is_found_and_few_loads_are_run(truth: int) -> None:
    sustained, steps = find_limit(lambda n: step(n, 10.0 if n <= truth else 99.0), 40, 45.0)
    assert sustained == truth
    assert len(steps) <= 9
    assert len({s.detectors for s in steps}) == len(steps)


def test_a_loss_is_no_success_however_fast() -> None:
    sustained, _ = find_limit(lambda n: step(n, 1.0, lost=n > 3), 10, 45.0)
    assert sustained == 3


def test_the_section_is_of_the_limit() -> None:
    section = scale_section([step(4, 10.0), step(8, 50.0), step(6, 30.0)], 6)
    assert (section["sustained_detectors"], section["p99_s"], section["cadence_s"]) == (6, 30.0, 39.0)
    assert section["busy"] == pytest.approx(6 / 39)


def test_next_visits_name_the_detectors_that_are_read_out() -> None:
    events = [TimedEvent(topic="next-visit", at_s=0.0, event={"groupId": "g"})]
    events += [TimedEvent(topic="readout", at_s=20.0, event={"group": "g", "detector": d}) for d in (3, 5, 8)]
    kept = only(events, [3, 8])
    assert kept[0].event["detectors"] == [3, 8]
    assert [item.event["detector"] for item in kept[1:]] == [3, 8]


def test_the_picture_has_each_step_and_marks_losses() -> None:
    text = load_picture([step(4, 10.0), step(8, 20.0), step(16, 90.0, lost=2)], [20.0, 45.0])
    root = ElementTree.fromstring(text)
    circles = [item for item in root.iter() if item.tag.endswith("circle")]
    assert len(circles) == 2 * 3
    assert "16 ✕" in text


def test_cpu_of_processes_below_this_one() -> None:
    spin = "import time\nend = time.process_time() + 0.4\nwhile time.process_time() < end: pass\ninput()"
    before = usage(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", spin, "--role", "worker"], stdin=subprocess.PIPE)
    try:
        give_up_s = time.monotonic() + 20
        while time.monotonic() < give_up_s:
            spent = cpu_between(before, usage(os.getpid()))
            if spent.get("worker", 0.0) >= 0.4:
                break
            time.sleep(0.05)
        assert 0.4 <= spent["worker"] < 1.0
        assert usage(os.getpid())["worker"].rss_bytes > 2 << 20
    finally:
        child.communicate(b"\n")
