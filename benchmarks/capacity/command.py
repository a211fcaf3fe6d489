"""``sub60 plan``: what a survey needs, from a measured run."""

from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks.capacity.sizing import Answer, Survey, answer
from benchmarks.display import table_console
from benchmarks.environment import environment
from benchmarks.report import Report
from benchmarks.scale.profile import Profile


@click.command(
    "plan",
    epilog="""\b
Examples:
  sub60 replay var/scale/dataset --profile build/profile         measure the stages and processes of this machine
  sub60 plan build/profile                                       what LSST needs of such cores: 10k and 40k alerts
  sub60 plan build/profile --detectors 16 --cores 2              how 16 detectors fare on two of them""",
)
@click.argument("profile", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--detectors", type=click.IntRange(1), default=189, show_default=True)
@click.option("--cadence", "cadence_s", type=float, default=39.0, show_default=True, help="Seconds between visits.")
@click.option("--visits", type=click.IntRange(1), default=1000, show_default=True, help="Of a night.")
@click.option("--alerts", type=click.IntRange(1), multiple=True, default=(10_000, 40_000), show_default=True,
              help="A visit; may be given more than once.")  # fmt: skip
@click.option("--limit", "limit_s", type=float, default=60.0, show_default=True, help="From readout to commit [s].")
@click.option(
    "--fraction", type=click.FloatRange(0, 1), default=0.98, show_default=True, help="Of the alerts, inside it."
)
@click.option("--cores", type=click.IntRange(1), help="How it fares on so many; default: the fewest that do.")
@click.option("--report", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the report here.")
def command(
    profile: Path,
    detectors: int,
    cadence_s: float,
    visits: int,
    alerts: tuple[int, ...],
    limit_s: float,
    fraction: float,
    cores: int | None,
    path: Path | None,
) -> None:
    """Cores, workers, memory, Redis and Kafka that a survey needs, by simulating its night.

    PROFILE is the folder that `sub60 replay --profile` wrote: times of stages and processes as this machine took them.
    """
    measured = Profile.read(profile)
    console = Console(stderr=True)
    answers: list[Answer] = []
    for number in alerts:
        survey = Survey(
            detectors=detectors, cadence_s=cadence_s, visits=visits, alerts=number, limit_s=limit_s, fraction=fraction
        )
        with console.status(f"a night of {visits} visits with {number:,} alerts each"):
            answers.append(answer(survey, measured, cores))
    _show(answers, alerts)
    if path is not None:
        lines = [{"alerts_a_visit": n, **asdict(a)} for n, a in zip(alerts, answers, strict=True)]
        asked = {"detectors": detectors, "cadence_s": cadence_s, "visits": visits, "limit_s": limit_s}
        document = {"schema": 1, "environment": environment(), "command": "sub60 plan"}
        Report.model_validate(document | {"capacity": asked | {"fraction": fraction, "answers": lines}}).write(path)
        console.print(f"report: {path}")


def _show(answers: list[Answer], alerts: tuple[int, ...]) -> None:
    table = Table(title="what it takes", title_justify="left")
    names = (
        "alerts a visit", "cores", "workers", "memory GB", "of it Redis", "Kafka GB/night", "MB/s", "inside", "p50 s",
        "p95 s", "p99 s", "busy",
    )  # fmt: skip
    for name in names:
        table.add_column(name, justify="right")
    for number, found in zip(alerts, answers, strict=True):
        table.add_row(
            f"{number:,}", str(found.cores), str(found.workers), f"{found.memory_gb:.0f}", f"{found.redis_gb:.0f}",
            f"{found.log_gb_a_night:.0f}", f"{found.log_mb_s:.0f}", f"{found.inside:.4f}", f"{found.p50_s:.1f}",
            f"{found.p95_s:.1f}", f"{found.p99_s:.1f}", f"{found.busy:.2f}",
        )  # fmt: skip
    table_console(140).print(table)
