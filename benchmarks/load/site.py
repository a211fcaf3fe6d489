"""A service under load: one that is there, or one started for the load and stopped after it."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import Progress as Bars

from benchmarks.display import bar
from benchmarks.load.limit import LoadStep, find_limit, only, step_of
from benchmarks.load.run import Load, run_load
from benchmarks.load.usage import Usage, cpu_between, usage
from benchmarks.replay import (
    TimedEvent,
    first_free_round,
    moved,
    partitions_for,
    read_events,
    readouts,
    rounds,
    spaced,
    used_visits,
)
from benchmarks.scale.profile import RoleUsage
from benchmarks.service_process import ServiceProcess
from benchmarks.watch import Progress
from service import topics
from service.connections import connect_log
from service.log import Log
from service.settings import read_settings

MEASURED: Final = "benchmarks.scale.measured:build"
SETTLE_S: Final = 5.0
"""After the last outcome, for the archive's part of the CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPlan:
    """What is replayed, and how."""

    dataset: Path
    repeat: int = 1
    cadence_s: float | None = None
    jitter_s: float = 0.0
    detectors: int | None = None
    """The first so many of the dataset; None: all."""


def planned(plan: ReplayPlan) -> list[TimedEvent]:
    """The dataset's events at the plan's cadence, of its detectors."""
    events = read_events(plan.dataset)
    if plan.cadence_s is not None:
        events = spaced(events, plan.cadence_s)
    if plan.detectors is not None:
        events = only(events, detectors_of(events)[: plan.detectors])
    return events


def detectors_of(events: Sequence[TimedEvent]) -> list[int]:
    """Detectors of the readouts, ascending."""
    return sorted({event["detector"] for event in readouts(events)})


def cadence_of(events: Sequence[TimedEvent]) -> float:
    """Mean time between visits [s]; the time of the only one where there is one."""
    times = sorted(item.at_s for item in events if item.topic == topics.NEXT_VISIT)
    return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else events[-1].at_s - times[0]


def joined(events: Sequence[TimedEvent], plan: ReplayPlan, log: Log) -> list[TimedEvent]:
    """``repeat`` rounds of the night end to end at its cadence, under visit numbers that the log does not know."""
    step = cadence_of(events)
    n_visits = len({event["visit"] for event in readouts(events)})
    result: list[TimedEvent] = []
    first = first_free_round(events, used_visits(log))
    for index, night in enumerate(rounds(events, plan.dataset, first, plan.repeat)):
        later = index * n_visits * step
        result += [_later(item, later) for item in night]
    return sorted(result, key=lambda item: item.at_s)


def _later(item: TimedEvent, by_s: float) -> TimedEvent:
    return TimedEvent(topic=item.topic, at_s=item.at_s + by_s, event=moved(item.event, by_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A service under load."""

    log_url: str
    folder: Path
    process: ServiceProcess | None
    console: Console

    @property
    def cores(self) -> int:
        """CPU cores of this machine."""
        return len(os.sched_getaffinity(0))

    def run(self, plan: ReplayPlan, events: Sequence[TimedEvent], name: str = "readouts") -> Load:
        """One load with a bar of its outcomes."""
        with connect_log(read_settings(), self.log_url) as log:
            night = joined(events, plan, log)
            with bar(name, self.console) as bars:
                task = bars.add_task("", total=len(readouts(night)))
                before = self._usage()
                load = run_load(
                    log,
                    self.log_url,
                    night,
                    self.folder / "alerts.spool",
                    jitter_s=plan.jitter_s,
                    on_turn=lambda progress: self._tell(bars, task, progress),
                )
                time.sleep(SETTLE_S if before else 0.0)
                return replace(load, roles=_roles(before, self._usage(), len(load.keys)))

    def find_limit(self, plan: ReplayPlan, events: Sequence[TimedEvent], limit_s: float) -> tuple[int, list[LoadStep]]:
        """As :func:`benchmarks.load.limit.find_limit`, each step a load of its own."""
        numbers = detectors_of(events)

        def run(n: int) -> LoadStep:
            load = self.run(plan, only(events, numbers[:n]), f"{n} detectors")
            return step_of(load, n, cadence_of(events), self.cores)

        return find_limit(run, len(numbers), limit_s)

    def collect(self, load: Load) -> tuple[dict[str, Any], list[str]]:
        """The report's sections of a load, and what is wrong with it."""
        with bar("decoding and checking alerts", self.console) as bars:
            task = bars.add_task("", total=load.n_alerts)
            tally = load.tally(lambda: bars.advance(task))
        alerts = load.alerts(tally)
        wrong = [f"{alerts[name]} {name}" for name in ("lost", "duplicates", "invalid") if alerts[name]]
        if load.unfinished:
            wrong.append(f"{len(load.unfinished)} readouts without an outcome: {load.unfinished[:5]}")
        return load.section() | {"alerts": alerts}, wrong

    def _usage(self) -> dict[str, Usage]:
        pid = self.process.pid if self.process is not None else None
        return usage(pid) if pid is not None else {}

    def _tell(self, bars: Bars, task: Any, progress: Progress) -> None:
        if self.process is not None:
            self.process.check()
        out = len(progress.read_out)
        done = len(set(progress.manifests) & set(progress.read_out))
        bars.update(task, completed=done, description=f"{out - done} at work, {progress.n_alerts():,} alerts")


def _roles(before: dict[str, Usage], after: dict[str, Usage], n: int) -> dict[str, RoleUsage]:
    cpu = cpu_between(before, after)
    return {
        kind: RoleUsage(n=now.n, cpu_s=cpu[kind] / n, rss_mb=now.rss_bytes / now.n / 1e6) for kind, now in after.items()
    }


@contextmanager
def open_site(
    plan: ReplayPlan,
    events: Sequence[TimedEvent],
    folder: Path,
    console: Console,
    *,
    log_url: str = "",
    workers: int = 2,
    stages: str = "real",
    **settings: Any,
) -> Iterator[Site]:
    """The service whose log is at ``log_url``, or one started for this load and stopped after it."""
    if log_url:
        yield Site(log_url=log_url, folder=folder, process=None, console=console)
        return
    process = ServiceProcess(folder, plan.dataset)
    process.prepare()
    changes: dict[str, Any] = {"compute": MEASURED, "compute_threads": 1} if stages == "measured" else {}
    changes |= {"workers": workers, "partitions": partitions_for(detectors_of(events), workers)} | settings
    try:
        process.start(process.settings(**changes))
        with console.status("starting the service"):
            endpoints = process.wait_ready(lambda _: None)
        yield Site(log_url=endpoints["log_url"], folder=folder, process=process, console=console)
    finally:
        process.stop()
