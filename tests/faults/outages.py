"""Servers that stop, crash, stall, fill up or forget."""

import contextlib
import os
import signal
import threading
import time
from functools import partial

import psutil
import redis

from core.errors import Outcome
from service.failpoints import STOP, Failpoint
from service.log import open_log
from service.topics import ALERTS
from tests.faults.crashes import HIT_S, MID_JOB_S, owner
from tests.faults.servers import freeze, thaw
from tests.faults.site import Site
from tests.faults.trial import FAULTS, Fault, Trial, fault, now_s

DOWN_RECOVERY_S = 15.0
"""From a broker that is back to the last alert."""


def log_down(trial: Trial, seconds: float, *, is_killed: bool) -> None:
    """The log's server goes while a visit is computed."""
    server = trial.site.log_server
    trial.send()
    time.sleep(MID_JOB_S)
    server.kill() if is_killed else server.stop()
    time.sleep(seconds)
    server.start()
    trial.cleared()
    trial.send()


@fault(
    "log server stopped 5 s",
    "all out <= 15 s after it is back",
    recovery_limit_s=DOWN_RECOVERY_S,
)
def log_down_5(trial: Trial) -> None:
    """In good order."""
    log_down(trial, 5, is_killed=False)


@fault(
    "log server killed, 2 s",
    "all out <= 15 s after it is back",
    is_around_commit=True,
    recovery_limit_s=DOWN_RECOVERY_S,
)
def log_killed(trial: Trial) -> None:
    """kill -9, and back on its data."""
    log_down(trial, 2, is_killed=True)


@fault("log server killed, 60 s", "all out <= 15 s after it is back", is_long=True, recovery_limit_s=DOWN_RECOVERY_S)
def log_down_60(trial: Trial) -> None:
    """Beyond every session and lease."""
    log_down(trial, 60, is_killed=True)


def log_killed_at(trial: Trial, step: Failpoint) -> None:
    """A process stands at a step while the log dies, and finds nobody when it goes on."""
    site = trial.site
    armed = site.failpoints / step
    armed.write_text(STOP)
    trial.send()
    site.wait_for(lambda: not armed.exists() and stopped(site) is not None, HIT_S, f"a process stands at {step}")
    pid = stopped(site)
    assert pid is not None
    site.log_server.kill()
    thaw(pid)
    time.sleep(1.0)
    site.log_server.start()
    trial.cleared()
    trial.send()


def stopped(site: Site) -> int | None:
    """The process of the site that stands."""
    for pid in site.pids.values():
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() == psutil.STATUS_STOPPED:
                return pid
    return None


for _step, _is_short in (
    (Failpoint.FANOUT_POLLED, True),
    (Failpoint.FANOUT_APPENDED, False),
    (Failpoint.COMMIT_STARTED, True),
    (Failpoint.WORKER_COMMITTED, False),
    (Failpoint.HISTORY_WRITTEN, False),
    (Failpoint.APDB_WRITTEN, True),
    (Failpoint.FILES_WRITTEN, False),
):
    FAULTS.append(
        Fault(
            name=f"log server killed while a process stands at {_step}",
            promise="its work is kept, all out <= 15 s after it is back",
            run=partial(log_killed_at, step=_step),
            is_around_commit=_step is Failpoint.COMMIT_STARTED,
            is_long=not _is_short,
            recovery_limit_s=DOWN_RECOVERY_S,
        )
    )


@fault("log slow (200 ms a chunk)", "late, whole")
def log_slow(trial: Trial) -> None:
    """Through the proxy."""
    proxy = trial.site.log_server.proxy
    proxy.delay_s = 0.2
    trial.send()
    time.sleep(5)
    proxy.delay_s = 0.0
    trial.cleared()


@fault(
    "connections to the log cut again and again", "unknown commits are resolved, nothing twice", is_around_commit=True
)
def log_cut(trial: Trial) -> None:
    """Every connection, every 0.4 s, for six seconds of work."""
    proxy = trial.site.log_server.proxy
    is_over = threading.Event()

    def cut() -> None:
        while not is_over.wait(0.4):
            proxy.cut()

    cutter = threading.Thread(target=cut)
    cutter.start()
    trial.send(3, lead_s=1.0)
    time.sleep(3)
    is_over.set()
    cutter.join()
    trial.cleared()


@fault("log unreachable 8 s (refuses connections)", "all out <= 15 s after", recovery_limit_s=DOWN_RECOVERY_S)
def log_refused(trial: Trial) -> None:
    """A network cut, server alive."""
    proxy = trial.site.log_server.proxy
    trial.send()
    time.sleep(MID_JOB_S)
    proxy.is_down = True
    proxy.cut()
    time.sleep(8)
    proxy.is_down = False
    trial.cleared()


@fault("cache flushed", "bundles come cold, the history's tail is written again")
def cache_flushed(trial: Trial) -> None:
    """In mid-visit."""
    trial.expect_logged("history_flushed")
    trial.send()
    cache(trial).flushall()
    trial.cleared()
    trial.send()


@fault("cache killed and restarted", "bounded calls are skipped, readouts go on")
def cache_restarted(trial: Trial) -> None:
    """Empty when it comes back."""
    trial.expect_metric("sub60_redis_skipped_total")
    trial.send()
    trial.site.cache.kill()
    trial.send()
    time.sleep(3)
    trial.site.cache.start()
    trial.cleared()
    trial.send()


@fault("cache full", "what does not fit is loaded cold")
def cache_full(trial: Trial) -> None:
    """Less memory than one bundle needs."""
    client = cache(trial)
    before = client.config_get("maxmemory")["maxmemory"]
    client.config_set("maxmemory", "3mb")
    trial.send(2)
    time.sleep(3)
    client.config_set("maxmemory", before)
    trial.cleared()
    trial.send()


@fault("cache frozen 5 s", "calls after t0 are given up after 100 ms")
def cache_frozen(trial: Trial) -> None:
    """Accepts connections, answers nothing."""
    pid = trial.site.cache.pid
    assert pid is not None
    freeze(pid)
    trial.send(lead_s=0.0)
    time.sleep(5)
    thaw(pid)
    trial.cleared()


@fault("PostgreSQL killed, 8 s", "alerts go on; the APDB has all of it after")
def postgres_killed(trial: Trial) -> None:
    """With a warm history."""
    trial.expect_metric("sub60_sink_errors_total", sink="sink-apdb")
    trial.site.postgres.kill()
    trial.send(2)
    time.sleep(8)
    trial.site.postgres.start()
    trial.cleared()


@fault("PostgreSQL down and nothing cached", "retried inside the deadline, whole alerts when it is back")
def postgres_killed_cold(trial: Trial) -> None:
    """The history can be had from nowhere for a while."""
    trial.expect_logged("attempt_postponed")
    cache(trial).flushall()
    trial.site.postgres.kill()
    trial.send(lead_s=0.0)
    time.sleep(6)
    trial.site.postgres.start()
    trial.cleared()


@fault("PostgreSQL down while archive and child start", "other sinks go on, readouts are retried")
def postgres_killed_at_start(trial: Trial) -> None:
    """Nobody has it open yet."""
    trial.expect_logged("attempt_postponed")
    site = trial.site
    site.postgres.kill()
    archive = site.kill("archive")
    os.kill(site.child_pid(owner(site)), signal.SIGKILL)
    site.wait_for(lambda: site.pids.get("archive", archive) != archive, 30, "the archive is started again")
    site.wait_for(site.is_ready, 60, "all roles are ready without PostgreSQL")
    cache(trial).flushall()
    trial.send(lead_s=0.0)
    time.sleep(5)
    site.postgres.start()
    trial.cleared()


@fault("PostgreSQL down past the deadline", "single-frame products, a dead letter; redriven, the alerts")
def postgres_down_late(trial: Trial) -> None:
    """The readouts are late already."""
    n_letters = len(trial.site.ledger.letters)
    cache(trial).flushall()
    trial.site.postgres.kill()
    visit = trial.visit(Outcome.NO_TEMPLATE)
    trial.read_out(visit, now_s() - 70)
    trial.site.wait_for(lambda: all(trial.site.ledger.outcome(key) for key in visit.keys), 40, "single-frame products")
    trial.site.postgres.start()
    trial.expect("a dead letter each", lambda: len(trial.site.ledger.letters) == n_letters + len(visit.keys))
    trial.expected |= dict.fromkeys(visit.keys, Outcome.ALERTS)
    trial.site.command("redrive", "--dead-letters", "--visit", str(visit.keys[0][0]), "--go")
    trial.site.wait_for(lambda: all(trial.site.ledger.ids(key) for key in visit.keys), 40, "the alerts are out")


@fault("a consumer that reads slowly", "alerts are not delayed, it gets each once")
def slow_consumer(trial: Trial) -> None:
    """A broker three visits behind."""
    with open_log(trial.site.log_server.direct_url) as log:
        reader = log.reader(ALERTS, start="latest")
        seen: list[int] = []
        visits = trial.send(3)
        until = time.monotonic() + 6
        while time.monotonic() < until:
            seen += [int(message.key) for message in reader.poll(0.1, 1)]
            time.sleep(0.3)
        keys = [key for visit in visits for key in visit.keys]

        def wanted() -> list[int]:
            return sorted(i for key in keys for i in trial.site.ledger.ids(key))

        def has_all() -> bool:
            seen.extend(int(message.key) for message in reader.poll(0.1))
            return len(seen) >= len(wanted()) and all(trial.site.ledger.is_whole(key) for key in keys)

        trial.site.wait_for(has_all, 30, "the slow reader has every alert")
        reader.close()
        assert sorted(seen) == wanted()


@fault("disk of the alert files full", "the files wait, alerts do not; written when there is room")
def files_disk_full(trial: Trial) -> None:
    """A real full disk, of a few megabytes."""
    trial.expect_metric("sub60_sink_errors_total", sink="sink-files")
    with trial.site.files_disk.full():
        trial.send()
        time.sleep(5)
    trial.cleared()


@fault("disk of the log full", "work waits; nothing is lost when there is room")
def log_disk_full(trial: Trial) -> None:
    """Redis refuses writes; a Kafka broker ends, and is started again."""
    trial.send()
    time.sleep(MID_JOB_S)
    with trial.site.log_disk.full():
        time.sleep(5)
    trial.site.log_server.revive()
    trial.cleared()
    trial.send()


def cache(trial: Trial) -> "redis.Redis[bytes]":
    """A client of the cache."""
    return redis.Redis.from_url(trial.site.cache.url, socket_timeout=5.0)
