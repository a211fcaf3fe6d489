"""``sub60 bench-history``: what follows the pixels, and what precedes them, for histories of different depths."""

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Final

import click
import redis
from rich.console import Console
from rich.table import Table

from benchmarks.display import bar, table_console
from benchmarks.environment import environment
from benchmarks.history.bench import AfterThePixels, Timed, as_report
from benchmarks.history.load import LOADS, time_load
from benchmarks.history.scene import Depth, measured_visit
from benchmarks.report import Report
from core.camera import load_camera
from core.config import PipelineConfig
from core.pipeline import Pipeline
from core.stopwatch import Clock
from service import topics
from service.embedded import embedded_servers
from service.log import open_log

DETECTOR: Final = 94
DEPTHS: Final = {
    "100 alerts, 0 visits": Depth(alerts=100, previous_visits=0),
    "100 alerts, 100 visits": Depth(alerts=100, previous_visits=100),
    "100 alerts, 1000 visits": Depth(alerts=100, previous_visits=1000),
    "100 alerts, 1000 visits, seen in a tenth": Depth(alerts=100, previous_visits=1000, detected_fraction=0.1),
    "100 alerts, 10,000 known objects": Depth(alerts=100, previous_visits=10, known_objects=10_000),
    "2,000 alerts, 100 visits": Depth(alerts=2000, previous_visits=100, known_objects=2000),
}


@click.command(
    "bench-history",
    epilog="""\b
Examples:
  sub60 bench-history --report build/history.json
  sub60 bench-history --rounds 3 --no-load
  sub60 bench-history --kafka 127.0.0.1:19092 --no-load                  commits to a broker""",
)
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True)
@click.option(
    "--load/--no-load", default=True, help="Also time loading from an APDB of twelve months and ten times it."
)
@click.option("--kafka", default="", help="host:port of a running Kafka to commit to; default: the embedded log.")
@click.option("--report", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the report here.")
def command(rounds: int, load: bool, kafka: str, path: Path | None) -> None:
    """Time association, claim, forced photometry, features, packets and commit against the depth of the history."""
    console = Console(stderr=True)
    found: dict[str, Timed] = {}
    with tempfile.TemporaryDirectory(prefix="sub60-") as name, embedded_servers(Path(name)) as servers:
        camera = load_camera("lsstcam")
        clock = Clock(wall=time.perf_counter, cpu=time.thread_time)
        pipeline = Pipeline(camera, PipelineConfig(), clock)
        with console.status("one visit through its pixels"):
            first, bundle = measured_visit(camera, pipeline, DETECTOR)
        url = f"kafka://{kafka}" if kafka else servers.log.url
        with open_log(url) as log:
            log.ensure_topics(topics.partition_counts(url, 1))
            bench = AfterThePixels(pipeline, first, bundle, log, redis.Redis.from_url(servers.cache.url))
            with bar("after the pixels", console) as progress:
                task = progress.add_task("", total=len(DEPTHS) * (rounds + 1))
                for label, depth in DEPTHS.items():
                    progress.update(task, description=label)
                    found[label] = bench.time(depth, rounds, lambda: progress.advance(task))
    loads = {}
    if load:
        for label, size in LOADS.items():
            with console.status(f"loading {label}"):
                loads[label] = time_load(size)
    _show(found, loads)
    if path is not None:
        history: dict[str, Any] = {label: as_report(timed) for label, timed in found.items()} | loads
        document = {"schema": 1, "environment": environment(), "command": "make bench-history", "history": history}
        Report.model_validate(document).write(path)
        console.print(f"report: {path}")


def _show(found: dict[str, Timed], loads: dict[str, dict[str, float]]) -> None:
    table = Table("", "wall [ms]", "wall / R", "alerts", "MB", title="after the pixels")
    steps = list(next(iter(found.values())).steps)
    for step in steps:
        table.add_column(step)
    table.add_column("features, after")
    for label, timed in found.items():
        cells = [f"{1000 * timed.wall_s:.0f}", f"{timed.wall_ratio:.2f}", f"{timed.n_alerts}"]
        cells += [f"{timed.alert_bytes / 1e6:.1f}", *(f"{1000 * wall:.1f}" for wall in timed.medians().values())]
        cells.append(f"{1000 * median(timed.after_commit_wall_s):.0f}")
        table.add_row(label, *cells)
    table_console(160).print(table)
    for label, seconds in loads.items():
        click.echo(f"{label}: " + ", ".join(f"{name} {value:.2f}" for name, value in seconds.items()))
