"""The quality run: detector-visits simulated for this commit, processed, and held against truth and bars."""

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import click
import sep
from rich.console import Console

from benchmarks.display import bar, table_console
from benchmarks.environment import commit, environment
from benchmarks.harness import make_dataset, to_dia_sources
from benchmarks.quality import bars
from benchmarks.quality.real_frames import real_figures
from benchmarks.quality.rerun import Opened, Rerun, compare, open_dataset, simulation
from benchmarks.quality.summary import summarize
from benchmarks.replay import read_events, readouts
from benchmarks.report import Report, field, quantiles
from benchmarks.simulator.config import preset
from benchmarks.simulator.dataset import keep_freed_memory
from core.errors import UnusableDataError

VISITS: Final = 24
ROUNDS: Final = 12
"""Of sources added to each real frame."""
_FIRST_SEED: Final = 1000
"""Seeds below are for tuning."""


def seed_of_commit(name: str) -> int:
    """A seed that nobody chose; of a tree outside git, the first."""
    try:
        return _FIRST_SEED + int(name[:7], 16)
    except ValueError:
        return _FIRST_SEED


def run(opened: Opened, events: Sequence[dict[str, Any]], tell: Any) -> tuple[list[Rerun], dict[str, Any]]:
    """Every readout measured, timed with R beside it, and compared; what was found and the speeds."""
    keep_freed_memory()
    runs: list[Rerun] = []
    ratios: list[tuple[float, float, float]] = []
    stages: dict[str, list[tuple[float, float]]] = {}
    for number, event in enumerate(events):
        tell(f"{event['visit']} {event['detector']}")
        raw, bundle = opened.load(event)
        try:
            if number == 0:  # compiles, touches every buffer
                opened.measure(raw, bundle)
            begin = time.perf_counter()
            first = opened.measure(raw, bundle)
            wall_s = time.perf_counter() - begin
        except UnusableDataError as error:
            runs.append(Rerun.without(event["visit"], event["detector"], error.outcome.value))
            continue
        reference = _reference(first.exposure.frame.image)
        stage_cpu_s = {timing.name: timing.cpu_s for timing in first.stopwatch.timings}
        ratios.append((to_dia_sources(stage_cpu_s) / reference[1], wall_s / reference[0], reference[1]))
        for timing in first.stopwatch.timings:
            stages.setdefault(timing.name, []).append((timing.wall_s, timing.cpu_s))
        runs.append(compare(opened.dataset, first, event["visit"], event["detector"]))
    speeds: dict[str, Any] = {
        "stages": {
            name: {kind: quantiles([t[i] for t in times], 50, 95, 99) for i, kind in enumerate(("wall_s", "cpu_s"))}
            for name, times in stages.items()
        }
    }
    if ratios:
        names = ("dia_cpu_ratio", "wall_ratio", "reference_cpu_s")
        speeds |= {name: median(column) for name, column in zip(names, zip(*ratios, strict=True), strict=True)}
    return runs, speeds


def _reference(image: Any) -> tuple[float, float]:
    """Wall and CPU of R: the median of three."""
    walls, cpus = [], []
    for _ in range(3):
        wall, cpu = time.perf_counter(), time.thread_time()
        sep.Background(image, bw=128, bh=128)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.thread_time() - cpu)
    return median(walls), median(cpus)


@click.command(
    "bench-quality",
    epilog="""\b
Examples:
  sub60 bench-quality --report quality.json     48 detector-visits with a seed from this commit, 10-20 minutes
  sub60 bench-quality --seed 14 --visits 6      a quarter of that with a seed for tuning""",
)
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), default=Path("var/quality"), show_default=True
)
@click.option("--dataset", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Use this one as it is.")
@click.option("--seed", type=click.IntRange(1), help="Of the simulation; default: from the commit's hash.")
@click.option("--visits", type=click.IntRange(1), default=VISITS, show_default=True, help="Of two detectors each.")
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="Processes that simulate.")
@click.option(
    "--real",
    envvar="SUB60_REFERENCE_DATA",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of reference data with real frames (SUB60_REFERENCE_DATA).",
)
@click.option("--report", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the report here.")
def command(
    folder: Path,
    dataset: Path | None,
    seed: int | None,
    visits: int,
    jobs: int,
    real: Path | None,
    path: Path | None,
) -> None:
    """Simulate full detectors, process them, and print every figure of quality beside its bar.

    Exit code 1 where a bar is not kept.
    """
    console = Console(stderr=True)
    if dataset is None:
        seed = seed or seed_of_commit(commit())
        config = preset("quality", seed=seed, visits=visits)
        dataset = make_dataset(folder / f"seed{seed}", config, console, jobs)
    dataset = dataset.resolve()
    events = readouts(read_events(dataset))
    opened = open_dataset(dataset)
    with bar("processing", console) as progress:
        task = progress.add_task("", total=len(events))
        runs, speeds = run(opened, events, lambda line: progress.update(task, advance=1, description=line))
    report = _report(dataset, events, runs, speeds, _real_frames(real, console))
    document = report.model_dump(by_alias=True, exclude_unset=True)
    bars.show(document, table_console(140))
    _show_detectors(document, table_console(140))
    if path is not None:
        report.write(path)
        console.print(f"report: {path}")
    if bars.broken(document):
        raise SystemExit(1)


def _real_frames(folder: Path | None, console: Console) -> dict[str, Any]:
    """Figures of the real frames, where they are."""
    if folder is None:
        console.print("real frames are left out: SUB60_REFERENCE_DATA does not name the folder of reference data")
        return {}
    with bar("real frames", console) as progress:
        task = progress.add_task("", total=2 * ROUNDS)
        return real_figures(folder, ROUNDS, lambda line: progress.update(task, advance=1, description=line))


def _report(
    dataset: Path,
    events: Sequence[dict[str, Any]],
    runs: Sequence[Rerun],
    speeds: dict[str, Any],
    real_frames: dict[str, Any],
) -> Report:
    made = simulation(dataset)
    parts = [run.quality for run in runs if run.quality is not None]
    outcomes: dict[str, int] = {}
    for one in runs:
        outcomes[one.outcome] = outcomes.get(one.outcome, 0) + 1
    return Report.model_validate(
        {
            "schema": 1,
            "environment": environment(),
            "command": "bench-quality",
            "seeds": [made["seed"]] if "seed" in made else [],
            "visits": len({event["visit"] for event in events}),
            "detector_visits": len(events),
            "outcomes": outcomes,
            **speeds,
            **({"quality": summarize(parts) | {"real_frames": real_frames}} if parts else {}),
            "not_simulated": made.get("not_simulated", []),
        }
    )


def _show_detectors(document: dict[str, Any], console: Console) -> None:
    """A line a detector-visit: what stands out."""
    for row in field(document, "quality.detectors") or []:
        completeness = row["completeness_snr6"]
        console.print(
            f'{row["visit"]} {row["detector"]:3d} {row["band"]} {row["fwhm_arcsec"]:.2f}"  '
            f"completeness {completeness if completeness is None else round(completeness, 3)}  "
            f"false {row['false_positives']}  pull sd {row['pull_sd']:.3f}  map sd {row['snr_map_sd']:.3f}",
            markup=False,
            highlight=False,
        )
