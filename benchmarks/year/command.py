"""``sub60 replay-year``: a campaign of one field in fast forward, through the whole service, against its truth."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.display import bar, table_console
from benchmarks.environment import environment
from benchmarks.report import Report
from benchmarks.year.campaign import Campaign, CampaignConfig
from benchmarks.year.picture import runtime_picture
from benchmarks.year.run import WORKERS, YearRun, replay_year
from benchmarks.year.verify import YearFigures, verify

STEPS: Final = ("associate", "claim", "forced", "features", "cutouts", "package")
"""Stages after the pixels; the commit follows."""
N_GROUPS: Final = 8


@click.command(
    "replay-year",
    epilog="""\b
Examples:
  sub60 replay-year --report build/year.json --picture build/year.svg     272 visits, four detectors
  sub60 replay-year --visits 40 --folder /tmp/year                       a shorter one""",
)
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), default=Path("var/year"), show_default=True)
@click.option("--visits", type=click.IntRange(2), default=272, show_default=True)
@click.option("--seed", type=click.IntRange(1), default=1, show_default=True)
@click.option("--workers", type=click.IntRange(1), default=WORKERS, show_default=True)
@click.option("--report", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the report here.")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="Draw run time against visit order.")
def command(folder: Path, visits: int, seed: int, workers: int, path: Path | None, picture: Path | None) -> None:
    """Replay a year of visits to one field: detections drawn from truth, everything after the pixels as in production.

    Four workers, both visits of each pair at one instant, history in Redis and APDB; held against truth and audited.
    """
    console = Console(stderr=True)
    config = CampaignConfig(visits=visits, seed=seed)
    with bar("visits", console) as progress:
        task = progress.add_task("", total=visits)
        run = replay_year(
            folder,
            config,
            lambda done, what: progress.update(task, completed=done, description=what),
            workers=workers,
        )
        progress.update(task, description="comparing with truth")
        figures = verify(Campaign(config), run.settings, run.features)
    series = runtimes(run)
    _show(run, series, figures)
    if picture is not None:
        picture.write_text(runtime_picture(series), encoding="utf-8")
        console.print(f"picture: {picture}")
    if path is not None:
        year = {"truth": asdict(figures), "wall_s": run.wall_s, "audit": run.audit.to_json(), "runtime": series}
        document = {"schema": 1, "environment": environment(), "command": "sub60 replay-year", "seeds": [seed]}
        Report.model_validate(document | {"visits": visits, "history": {"year": year}}).write(path)
        console.print(f"report: {path}")
    if not run.audit.is_clean:
        raise click.ClickException(f"the audit is not clean: {run.audit.counts}")


def runtimes(run: YearRun) -> list[dict[str, Any]]:
    """Seconds of each step after the pixels, one line a detector-visit, in the order of the visits."""
    lines = []
    for key in sorted(run.manifests):
        manifest = run.manifests[key]
        walls = {name: wall for name, wall, _ in manifest.timings}
        history = next((part for part in manifest.bundle if part[0] == "history"), None)
        line: dict[str, Any] = {"visit": key[0], "detector": key[1], "alerts": manifest.n_alerts}
        line |= {name: round(walls.get(name, 0.0), 5) for name in (*STEPS, "tail")}
        if key in run.committed:
            line["commit"] = round(run.committed[key].commit_s, 5)
        if history is not None:
            line |= {"history_rows": history[3], "load": round(float(history[2]), 5)}
        lines.append(line)
    return lines


def _show(run: YearRun, series: list[dict[str, Any]], figures: YearFigures) -> None:
    names = [*STEPS, "commit", "tail", "load"]
    table = Table(
        "visits", "detectors", "alerts", "history rows", *names, "sum", title="after the pixels, medians [ms]"
    )
    for group in np.array_split(np.arange(len(series)), N_GROUPS):
        lines = [series[i] for i in group]
        if not lines:
            continue
        walls = {name: 1000 * _median(line.get(name, 0.0) for line in lines) for name in names}
        total = 1000 * _median(sum(line.get(name, 0.0) for name in (*STEPS, "commit")) for line in lines)
        table.add_row(
            f"{group[0]}-{group[-1]}",
            f"{len({line['detector'] for line in lines})}",
            f"{_median(line['alerts'] for line in lines):.0f}",
            f"{_median(line.get('history_rows', 0) for line in lines):.0f}",
            *(f"{walls[name]:.1f}" for name in names),
            f"{total:.1f}",
        )
    table_console(150).print(table)
    for name, value in asdict(figures).items():
        click.echo(f"{name:24} {value}")
    n_alerts = sum(manifest.n_alerts for manifest in run.manifests.values())
    click.echo(f"{len(run.manifests)} detector-visits, {n_alerts} alerts in {run.wall_s:.0f} s; audit: ", nl=False)
    click.echo("clean" if run.audit.is_clean else f"{run.audit.counts}")


def _median(values: Iterable[float]) -> float:
    return float(np.median(list(values)))
