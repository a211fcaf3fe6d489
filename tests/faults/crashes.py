"""kill -9 at every step, and the ways in which a process stalls or leaves."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from benchmarks.service_process import free_ports
from service.failpoints import IN_TRANSACTION, Failpoint
from service.settings import to_environment
from tests.faults.servers import freeze, thaw
from tests.faults.site import Site
from tests.faults.trial import FAULTS, Fault, Trial, fault

HIT_S = 30.0
FROZEN_S = 15.0
MID_JOB_S = 0.25
"""After the readouts: the child computes."""
COMMIT_STEPS = frozenset(
    {
        Failpoint.COMMIT_STARTED,
        *IN_TRANSACTION,
        Failpoint.COMMIT_DONE,
        Failpoint.WORKER_COMMITTED,
        Failpoint.WORKER_MARKED,
    }
)


def crash(trial: Trial, step: Failpoint) -> None:
    """The process that comes by a step is killed there."""
    armed = trial.site.failpoints / step
    armed.touch()
    event = "child_gone" if step.startswith("child-") else "role_died"
    trial.expect_logged(event)
    visit = trial.visit()
    trial.announce(visit)
    # hints are worked on before the readout comes, in their own time
    if step.startswith(("prefetch-", "child-prepar")):
        Site.wait_for(lambda: not armed.exists(), HIT_S, f"a process comes by {step}")
        trial.cleared()
    trial.read_out(visit)
    Site.wait_for(lambda: not armed.exists(), HIT_S, f"a process comes by {step}")
    if trial.cleared_s is None:
        trial.cleared()


def victim(step: Failpoint) -> str:
    """The process that comes by a step."""
    prefix = step.partition("-")[0]
    return {"commit": "worker", "history": "archive", "apdb": "archive", "files": "archive"}.get(prefix, prefix)


for _step in Failpoint:
    FAULTS.append(
        Fault(
            name=f"kill -9 at {_step}",
            promise="done by another process or the next one, <= 20 s",
            run=partial(crash, step=_step),
            victim=victim(_step),
            transports=("kafka",) if _step in IN_TRANSACTION else ("redis", "kafka"),
            is_around_commit=_step in COMMIT_STEPS,
        )
    )


@fault("kill -9 of the worker in mid-job", "another finishes it, <= 20 s", victim="worker", is_around_commit=True)
def kill_worker(trial: Trial) -> None:
    """From outside, whatever it does."""
    trial.expect_logged("role_died")
    trial.send()
    time.sleep(MID_JOB_S)
    trial.site.kill(owner(trial.site))
    trial.cleared()


@fault("kill -9 of the child in mid-job", "replaced, the readout done again, <= 20 s", victim="child")
def kill_child(trial: Trial) -> None:
    """Of the child that works on detector 0."""
    trial.expect_logged("child_gone")
    trial.send()
    time.sleep(MID_JOB_S)
    os.kill(trial.site.child_pid(owner(trial.site)), signal.SIGKILL)
    trial.cleared()


@fault("kill -9 of the api", "alerts never notice")
def kill_api(trial: Trial) -> None:
    """It only reads."""
    trial.expect_logged("role_died")
    trial.site.kill("api")
    trial.cleared()
    trial.send()


@fault(
    "worker frozen 15 s (SIGSTOP, SIGCONT)", "another does its work, the frozen one is fenced", is_around_commit=True
)
def freeze_worker(trial: Trial) -> None:
    """In mid-job; it wakes with results that are somebody else's by then."""
    trial.send()
    time.sleep(MID_JOB_S)
    pid = trial.site.pids[owner(trial.site)]
    trial.cleared()
    freeze(pid)
    time.sleep(FROZEN_S)
    thaw(pid)


@fault("child frozen 15 s", "its job waits or is done again; nothing else waits")
def freeze_child(trial: Trial) -> None:
    """Shorter than a job's limit."""
    trial.send()
    time.sleep(MID_JOB_S)
    pid = trial.site.child_pid(owner(trial.site))
    freeze(pid)
    time.sleep(FROZEN_S)
    thaw(pid)
    trial.cleared()


@fault("worker drained (SIGTERM)", "finishes what is computed, commits, leaves", victim="worker")
def drain_worker(trial: Trial) -> None:
    """As a rolling restart does."""
    trial.expect_logged("worker_stopped")
    trial.send()
    time.sleep(MID_JOB_S)
    trial.site.kill(owner(trial.site), signal.SIGTERM)
    trial.cleared()
    trial.send()


@fault("rebalance in mid-visit", "partitions move, no visit is lost or done twice")
def rebalance(trial: Trial) -> None:
    """Two more workers come while a visit is computed, and go while the next one is."""
    with extra_worker(trial.site, 2), extra_worker(trial.site, 3):
        until = time.monotonic() + 8
        while time.monotonic() < until:
            trial.send()
            time.sleep(1.5)
        trial.send()
        time.sleep(MID_JOB_S)
    trial.cleared()


@fault("two workers with one slot", "the older one ends, nothing is sent twice")
def same_slot(trial: Trial) -> None:
    """The supervised one comes back and wins in the end."""
    trial.expect_logged("identity_taken")
    with extra_worker(trial.site, int(owner(trial.site).rpartition("-")[2])) as intruder:
        until = time.monotonic() + 40
        while intruder.poll() is None and time.monotonic() < until:
            trial.send()
            time.sleep(2.0)
    trial.cleared()


def owner(site: Site, detector: int = 0) -> str:
    """The worker of the site that did a detector's last readout."""
    found = [
        (at, m)
        for (_, d), entries in list(site.ledger.manifests.items())
        for at, m in entries
        if d == detector and m.worker in site.pids
    ]
    return max(found, key=lambda pair: pair[0])[1].worker if found else "worker-0"


@contextmanager
def extra_worker(site: Site, slot: int) -> Iterator[subprocess.Popen[bytes]]:
    """One more worker, drained in the end."""
    settings = site.settings.model_copy(update={"slot": slot, "http_port": free_ports(9000 + 40 * slot)})
    with site.service.log_file.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "service.cli", "serve", "--role", "worker"],
            env=to_environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)
