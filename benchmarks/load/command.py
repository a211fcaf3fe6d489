"""``sub60 replay``: the load test."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from benchmarks.display import table_console
from benchmarks.environment import environment
from benchmarks.load.limit import scale_section, step_of
from benchmarks.load.picture import load_picture
from benchmarks.load.site import MEASURED, ReplayPlan, cadence_of, detectors_of, open_site, planned
from benchmarks.load.table import steps_table
from benchmarks.replay import MAX_ROUNDS, TimedEvent, describe, first_free_round, publish, rounds, used_visits
from benchmarks.report import Report
from benchmarks.show import show
from service.connections import connect_log
from service.settings import read_settings

LIMIT_S: Final = 45.0


@click.command(
    "replay",
    epilog="""\b
Examples:
  sub60 replay var/demo/dataset --log redis://127.0.0.1:6379 --repeat 10 --cadence 8   publish, no matter what
  sub60 replay var/demo/dataset --log kafka://broker:9092 --report load.json           collect what comes of it
  sub60 replay var/demo/dataset --workers 2 --report load.json                         a service for this load
  sub60 replay var/scale/dataset --find-limit --picture load.svg                       what it sustains in 45 s""",
)
@click.argument("dataset", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--log", "log_url", default="", help="A running service's log: redis://…, unix://… or kafka://host:port.")
@click.option("--repeat", type=click.IntRange(1, MAX_ROUNDS), default=1, show_default=True, help="Rounds of the night.")
@click.option("--loop", is_flag=True, help="Rounds until Ctrl-C; publishes only.")
@click.option("--cadence", "cadence_s", type=float, help="Seconds between visits; default: the dataset's.")
@click.option("--jitter", "jitter_s", type=float, default=0.0, help="Readout messages late at random, up to this [s].")
@click.option("--detectors", type=click.IntRange(1), help="The first so many of the dataset; default: all.")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Of a service of its own.")
@click.option("--stages", type=click.Choice(["real", "measured"]), default="real", show_default=True,
              help="Of a service of its own; measured: sleeps as long as the dataset's profile.json says.")  # fmt: skip
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), default=Path("var/replay"),
              show_default=True, help="State of a service of its own, and the alerts read.")  # fmt: skip
@click.option("--find-limit", "is_limit_sought", is_flag=True, help="The most detectors whose p99 is within --limit.")
@click.option(
    "--limit", "limit_s", type=float, default=LIMIT_S, show_default=True, help="Seconds from readout to commit."
)
@click.option("--report", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the report here.")
@click.option("--profile", type=click.Path(file_okay=False, path_type=Path), help="Folder for the stages' times.")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="Draw latency against load (SVG).")
def command(
    dataset: Path,
    log_url: str,
    repeat: int,
    loop: bool,
    cadence_s: float | None,
    jitter_s: float,
    detectors: int | None,
    workers: int,
    stages: str,
    folder: Path,
    is_limit_sought: bool,
    limit_s: float,
    path: Path | None,
    profile: Path | None,
    picture: Path | None,
) -> None:
    """Publish a dataset's next-visit and readout events, times moved to now, whatever the service does.

    With --report, --find-limit or a service of its own, what comes of them is collected: outcomes, latencies, alerts.
    """
    plan = ReplayPlan(dataset=dataset, repeat=repeat, cadence_s=cadence_s, jitter_s=jitter_s, detectors=detectors)
    events = planned(plan)
    if loop and (is_limit_sought or path is not None or not log_url):
        raise click.UsageError("--loop only publishes: give it a --log, and no --report or --find-limit")
    if log_url and stages == "measured":
        raise click.UsageError(f"stages are the service's: start its workers with SUB60_COMPUTE={MEASURED}")
    if log_url and not is_limit_sought and path is None and profile is None:
        _publish_only(plan, events, log_url, loop)
        return
    console = Console(stderr=True)
    with open_site(plan, events, folder, console, log_url=log_url, workers=workers, stages=stages) as site:
        if is_limit_sought:
            sustained, steps = site.find_limit(plan, events, limit_s)
            section: dict[str, Any] = {"scale": scale_section(steps, sustained)}
            wrong: list[str] = []
        else:
            load = site.run(plan, events)
            steps = [step_of(load, len(detectors_of(events)), cadence_of(events), site.cores)]
            section, wrong = site.collect(load)
            if profile is not None:
                profile.mkdir(parents=True, exist_ok=True)
                load.profile().write(profile)
    document = {"schema": 1, "environment": environment(), "command": "sub60 replay", "seeds": [], **section}
    report = Report.model_validate(document)
    if path is not None:
        report.write(path)
        console.print(f"report: {path}")
    if picture is not None:
        picture.write_text(load_picture(steps, [limit_s]), encoding="utf-8")
        console.print(f"picture: {picture}")
    if not is_limit_sought:
        show(report.model_dump(by_alias=True, exclude_unset=True), table_console(140))
    table_console(140).print(steps_table(steps))
    if is_limit_sought:
        click.echo(f"sustained within {limit_s:g} s: {sustained} of {len(detectors_of(events))} detectors")
    if wrong:
        raise click.ClickException("; ".join(wrong))


def _publish_only(plan: ReplayPlan, events: Sequence[TimedEvent], log_url: str, loop: bool) -> None:
    with connect_log(read_settings(), log_url) as log:
        first = first_free_round(events, used_visits(log))
        producer = log.producer()
        nights = rounds(events, plan.dataset, first, None if loop else plan.repeat)
        for number, night in enumerate(nights, first):
            sent = publish(
                producer, night, jitter_s=plan.jitter_s, seed=number, on_event=lambda item: click.echo(describe(item))
            )
            click.echo(f"round {number}: {sent.n_events} events, at most {sent.max_lag_s:.3f} s late")
        producer.close()
