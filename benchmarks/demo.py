"""The main job from end to end: a simulated night through the whole service, counted, timed and held against truth."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.environment import environment
from benchmarks.load.run import Load, run_load
from benchmarks.quality.rerun import Rerun, evaluate_dataset, simulation
from benchmarks.quality.summary import summarize
from benchmarks.replay import (
    TimedEvent,
    first_free_round,
    partitions_for,
    read_events,
    readouts,
    renumbered,
    used_visits,
)
from benchmarks.report import Report
from benchmarks.service_process import ServiceProcess
from benchmarks.show import show
from benchmarks.simulator.config import PRESETS, SimulationConfig, preset
from benchmarks.simulator.dataset import is_complete, n_steps, simulate
from benchmarks.watch import Progress as Watched
from benchmarks.watch import live_table
from core.errors import ConfigurationError
from core.timescales import unix_tai_to_mjd_tai
from service import topics
from service.clock import SystemClock
from service.connections import connect_log
from service.log import Log
from service.settings import read_settings

MAX_AGE_DAYS: Final = 14.0
"""A night simulated longer ago is simulated again: calibrations and history are of its date."""
LEAD_S: Final = 20.0
"""From a visit's next-visit event to its readouts: the least that the survey promises."""
CADENCE_S: Final = 12.0
"""Between visits: three times the survey's pace."""
_WORKERS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPlan:
    """What one demo does."""

    folder: Path
    preset: str = "demo"
    kafka: str = ""
    keep: bool = False
    is_quality_measured: bool = True
    changes: dict[str, Any] = field(default_factory=dict)
    """Fields of the simulation changed from the preset's."""
    given: Path | None = None
    """A dataset to be used as it is."""

    @property
    def dataset(self) -> Path:
        """Simulated once, used by all later runs."""
        return self.given or self.folder / "dataset"


@dataclass(slots=True, kw_only=True)
class Run:
    """What a run through the service left."""

    section: dict[str, Any]
    alerts: dict[str, Any]
    columns: dict[str, Any]
    ids: dict[tuple[int, int], set[int]]
    unfinished: list[tuple[int, int]]


def run_demo(plan: DemoPlan, console: Console) -> tuple[Report, list[str]]:
    """Do the whole job; the report and what is wrong with it."""
    started = time.monotonic()
    make_dataset(plan, console)
    service = ServiceProcess(plan.folder / "run", plan.dataset)
    service.prepare()
    try:
        events, run = _through_service(plan, service, console)
        if not plan.keep:
            with console.status("stopping the service"):
                service.stop()
        sections = _quality(plan, events, run, console) if plan.is_quality_measured else {}
        made = simulation(plan.dataset)
        report = Report.model_validate(
            {
                "schema": 1,
                "environment": environment(),
                "command": "make demo" + (f" KAFKA={plan.kafka}" if plan.kafka else ""),
                "seeds": [made["seed"]] if "seed" in made else [],
                **run.section,
                "alerts": run.alerts,
                "dia_source_columns": run.columns,
                "not_simulated": made.get("not_simulated", []),
                "transport": "kafka" if plan.kafka else "redis",
                "unfinished": [list(key) for key in run.unfinished],
                **sections,
                "total_wall_s": time.monotonic() - started,
            }
        )
        return report, problems(report, run)
    finally:
        if plan.keep and service.pid is not None:
            _say_where(service, console)
        else:
            service.stop()


def make_dataset(plan: DemoPlan, console: Console) -> None:
    """Simulate the night unless it is there and of these days."""
    if plan.given is not None:
        return
    now = unix_tai_to_mjd_tai(SystemClock().tai_s())
    config = preset(plan.preset, **_changes(plan))
    if abs(now - config.start_mjd_tai) > MAX_AGE_DAYS:
        config = _of_today(config, plan, now)
    if is_complete(plan.dataset, config):
        console.print(f"dataset {plan.dataset} is there")
        return
    with _bar("simulating the night", console) as progress:
        task = progress.add_task("", total=n_steps(config))
        jobs = min(2, len(config.detectors))
        simulate(plan.dataset, config, jobs, lambda line: progress.update(task, advance=1, description=line))


def _changes(plan: DemoPlan) -> dict[str, Any]:
    return {"lead_s": LEAD_S, "cadence_s": CADENCE_S, **plan.changes}


def _of_today(config: SimulationConfig, plan: DemoPlan, now_mjd: float) -> SimulationConfig:
    """The configuration on disk if it is recent enough, else one of last night, at the same time of night."""
    from datetime import date, timedelta

    change = _changes(plan)
    try:
        there = simulation(plan.dataset)["config"]
        start = float(there["start_mjd_tai"])
        change |= {"start_mjd_tai": start, "day_obs": int(there["day_obs"])}
        if abs(now_mjd - start) <= MAX_AGE_DAYS:
            return preset(plan.preset, **change)
    except (FileNotFoundError, KeyError, ValueError):
        pass
    night = int(now_mjd) - 1
    day = date(1858, 11, 17) + timedelta(days=night - 1)
    start = night + config.start_mjd_tai % 1
    change |= {"start_mjd_tai": start, "day_obs": day.year * 10_000 + day.month * 100 + day.day}
    return preset(plan.preset, **change)


@contextmanager
def _bar(name: str, console: Console) -> Iterator[Progress]:
    columns = (
        TextColumn(name),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console) as progress:
        yield progress
    if not console.is_terminal:
        console.print(f"{name}: done")


def _through_service(plan: DemoPlan, service: ServiceProcess, console: Console) -> tuple[list[TimedEvent], Run]:
    """Start the service, replay the night, wait for every outcome, count the alerts."""
    events = read_events(plan.dataset)
    partitions = partitions_for([event["detector"] for event in readouts(events)], _WORKERS)
    settings = service.settings(
        workers=_WORKERS,
        partitions=_kafka_partitions(plan.kafka, partitions) if plan.kafka else partitions,
        log_url=f"kafka://{plan.kafka}" if plan.kafka else "",
        measure_reference=True,
    )
    service.start(settings)
    endpoints = _wait_ready(service, console)
    log_url = endpoints["log_url"]
    with connect_log(read_settings(), log_url) as log:
        if plan.kafka:  # a broker remembers earlier runs: these visits must be new to it
            events = renumbered(events, plan.dataset, first_free_round(events, used_visits(log)))
        load = _replay(log, log_url, events, service, console)
    with _bar("decoding and checking alerts", console) as bar:
        task = bar.add_task("", total=load.n_alerts)
        tally = load.tally(lambda: bar.advance(task))
    run = Run(
        section=load.section(),
        alerts=load.alerts(tally),
        columns=tally.columns(),
        ids=dict(tally.by_detector),
        unfinished=load.unfinished,
    )
    return events, run


def _kafka_partitions(bootstrap: str, wanted: int) -> int:
    """Partitions that a broker's work topic has from an earlier run, else as wanted."""
    with connect_log(read_settings(), f"kafka://{bootstrap}") as log:
        try:
            return log.partitions(topics.WORK)
        except ConfigurationError:
            return wanted


def _wait_ready(service: ServiceProcess, console: Console) -> dict[str, Any]:
    with console.status("starting the service: compiling and warming up kernels") as status:

        def tell(found: dict[str, Any]) -> None:
            status.update(f"starting the service, {len(found.get('pids', {}))} processes; kernels compile and warm up")

        begin = time.monotonic()
        endpoints = service.wait_ready(tell)
    console.print(f"all roles ready after {time.monotonic() - begin:.0f} s: {endpoints['http']['api']}")
    return endpoints


def _replay(log: Log, log_url: str, events: Sequence[TimedEvent], service: ServiceProcess, console: Console) -> Load:
    """Publish and watch, until each readout has an outcome or its time is long over."""
    rows = [(event["group"], event["visit"], event["detector"], event["band"]) for event in readouts(events)]
    with Live(console=console, refresh_per_second=4) as live:

        def show_progress(progress: Watched) -> None:
            live.update(live_table(progress, rows))
            service.check()

        return run_load(log, log_url, events, service.folder / "alerts.spool", on_turn=show_progress)


def _quality(plan: DemoPlan, events: Sequence[TimedEvent], run: Run, console: Console) -> dict[str, Any]:
    """Recompute the same raws now that nobody is timed, and compare with truth."""
    announced = readouts(events)
    done: list[Rerun] = []
    with _bar("comparing with truth", console) as bar:
        task = bar.add_task("", total=len(announced))
        for rerun in evaluate_dataset(plan.dataset, announced):
            done.append(rerun)
            bar.advance(task)
    same = [set(r.dia_source_ids.tolist()) == run.ids.get((r.visit, r.detector), set()) for r in done]
    parts = [rerun.quality for rerun in done if rerun.quality is not None]
    if not parts:
        return {"rerun_same_ids": sum(same)}
    return {"quality": summarize(parts), "rerun_same_ids": sum(same)}


def problems(report: Report, run: Run) -> list[str]:
    """What makes a demo fail: a readout without outcome, an alert lost, repeated or broken, nothing sent at all."""
    counts = report.alerts
    assert counts is not None
    found = [f"{number} {name}" for name in ("lost", "duplicates", "invalid") if (number := getattr(counts, name))]
    if run.unfinished:
        found.append(f"{len(run.unfinished)} readouts without an outcome: {run.unfinished}")
    if not counts.unique:
        found.append("no alert came")
    if cold := {kind: sources["cold"] for kind, sources in (report.bundle or {}).items() if sources.get("cold")}:
        found.append(f"parts of bundles were loaded after the readout: {cold}")
    return found


def _say_where(service: ServiceProcess, console: Console) -> None:
    found = service.endpoints()
    console.print(f"the service goes on (pid {service.pid}); it ends with the next demo or: kill {service.pid}")
    for name, url in found.get("http", {}).items():
        console.print(f"  {name:10s} {url}")


def _console(*, stderr: bool = False) -> Console:
    """A console; wide enough for the tables where there is no terminal."""
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=140)


@click.command(
    "demo",
    epilog="""\b
Examples:
  sub60 demo                                  simulate, run all roles, count, time, compare with truth
  sub60 demo --report demo.json --keep        the same, written down, with the web endpoints left up
  sub60 demo --preset test                    small frames, half a minute""",
)
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), default=Path("var/demo"), show_default=True)
@click.option("--preset", "name", type=click.Choice(PRESETS), default="demo", show_default=True)
@click.option("--dataset", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Use this one as it is.")
@click.option("--kafka", default="", help="host:port of a running Kafka; default: the embedded log.")
@click.option("--report", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the report here.")
@click.option("--keep", is_flag=True, help="Leave the service and its web endpoints up.")
@click.option("--quality/--no-quality", default=True, show_default=True, help="Compare with the simulation's truth.")
def command(
    folder: Path, name: str, dataset: Path | None, kafka: str, path: Path | None, keep: bool, quality: bool
) -> None:
    """Simulate a small survey, stream it through the whole service, and report what came out."""
    console = _console(stderr=True)
    target = folder if name == "demo" else folder / name
    plan = DemoPlan(folder=target, preset=name, kafka=kafka, keep=keep, is_quality_measured=quality, given=dataset)
    report, wrong = run_demo(plan, console)
    if path is not None:
        report.write(path)
        console.print(f"report: {path}")
    show(report.model_dump(by_alias=True, exclude_unset=True), _console())
    if wrong:
        raise click.ClickException("; ".join(wrong))
