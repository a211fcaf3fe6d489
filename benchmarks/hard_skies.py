"""``sub60 bench-hard``: hard skies, each held against what it must end in and how long it may take."""

import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.display import bar, table_console
from benchmarks.environment import environment
from benchmarks.harness import reference_cpu_s, to_dia_sources
from benchmarks.quality.rerun import Opened, compare, open_dataset
from benchmarks.quality.summary import summarize, without_nan
from benchmarks.replay import read_events, readouts
from benchmarks.report import Report
from benchmarks.simulator.config import SimulationConfig, preset
from benchmarks.simulator.dataset import is_complete, keep_freed_memory, n_steps, simulate
from benchmarks.simulator.hard import EASY, HARD_SKIES, HardSky
from benchmarks.simulator.landmarks import GALAXY_RADIUS_ARCSEC, large_galaxy
from core.errors import UnusableDataError

TOO_LONG: Final = "ran away"
"""Outcome of a sky that did not end within the limit: never the right one."""
_RING_PIX: Final = 24


class RanAwayError(Exception):
    """The pipeline did not end within the limit."""


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raise :class:`RanAwayError` in the block when it lasts longer, between two calls of kernels."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise RanAwayError

    usual = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, usual)


def run_sky(sky: HardSky, dataset: Path, limit_s: float, easy: dict[str, Any] | None) -> dict[str, Any]:
    """Figures of one sky's detector-visits; ``easy`` are the easy sky's, None for itself."""
    config, opened = sky_config(sky), open_dataset(dataset)
    keep_freed_memory()
    runs = [_run(opened, event, config, limit_s) for event in readouts(read_events(dataset))]
    figures = _pooled(runs)
    if easy is not None and figures["cpu_ratio"] and easy["cpu_ratio"]:
        figures["time_ratio"] = figures["cpu_ratio"] / easy["cpu_ratio"]
    wrong = [outcome for outcome in figures["outcomes"] if outcome not in sky.outcomes]
    missed = [f"outcome {outcome} is none of {', '.join(sky.outcomes)}" for outcome in wrong]
    if not wrong and "alerts" in figures["outcomes"]:
        missed += sky.missed(figures)
    return {"meaning": sky.meaning, "expected": list(sky.outcomes), **figures, "missed": missed}


def _run(opened: Opened, event: dict[str, Any], config: SimulationConfig, limit_s: float) -> dict[str, Any]:
    """One detector-visit, timed on its second pass: the first compiles and touches the buffers."""
    raw, bundle = opened.load(event)
    first, begin, cpu = None, time.perf_counter(), time.thread_time()
    found: dict[str, Any] = {"outcome": TOO_LONG, "quality": None}
    try:
        for _ in range(2):
            begin, cpu = time.perf_counter(), time.thread_time()
            with limit(limit_s):
                first = opened.measure(raw, bundle)
    except UnusableDataError as error:
        found |= {"outcome": error.outcome.value, "code": error.code, "context": error.context}
    except RanAwayError:
        found |= {"stage": "past the limit"}
    found |= {"wall_s": time.perf_counter() - begin, "cpu_s": time.thread_time() - cpu}
    if first is None or found["outcome"] != TOO_LONG or "stage" in found:
        return found
    rerun = compare(opened.dataset, first, event["visit"], event["detector"])
    stages = {timing.name: timing.cpu_s for timing in first.stopwatch.timings}
    image = first.exposure.frame.image
    reference = min(reference_cpu_s(image) for _ in range(3))
    return found | {
        "outcome": rerun.outcome,
        "quality": rerun.quality,
        "counts": first.counts,
        "n_sources": int(first.summary["n_sources"]),
        "stages": stages,
        "cpu_ratio": to_dia_sources(stages) / reference,
        "ring": _ring(first, config, opened.pipeline.camera),
    }


def _ring(first: Any, config: SimulationConfig, camera: Any) -> float | None:
    """Largest mean of the difference in rings about the large galaxy, over its pixels' noise."""
    galaxy = large_galaxy(config, camera)
    if galaxy is None or first.subtraction is None:
        return None
    frame, wcs = first.subtraction.difference.frame, first.exposure.wcs
    x, y = (float(v[0]) for v in wcs.sky_to_pixel(np.array([galaxy.ra]), np.array([galaxy.dec])))
    reach = round(1.5 * GALAXY_RADIUS_ARCSEC / wcs.pixel_scale_arcsec)
    box = (slice(max(round(y) - reach, 0), round(y) + reach), slice(max(round(x) - reach, 0), round(x) + reach))
    image, variance, mask = (plane[box] for plane in (frame.image, frame.variance, frame.mask))
    yy, xx = np.indices(image.shape)
    ring = (np.hypot(yy + box[0].start - y, xx + box[1].start - x) / _RING_PIX).astype(np.int64)
    # masked is what a source was found on, too: a source is no ring
    good = (mask == 0) & (variance > 0)
    sums = np.bincount(ring[good], (image / np.sqrt(variance))[good])
    counts = np.bincount(ring[good])
    means = sums[counts > 1000] / counts[counts > 1000]
    return float(np.abs(means).max()) if means.size else None


def _pooled(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Figures by the names that gates have."""
    parts = [run["quality"] for run in runs if run["quality"] is not None]
    quality = summarize(parts) if parts else {}
    ratios = [run["cpu_ratio"] for run in runs if "cpu_ratio" in run]
    rings = [run["ring"] for run in runs if run.get("ring") is not None]
    return {
        "outcomes": [run["outcome"] for run in runs],
        "wall_s": max(run["wall_s"] for run in runs),
        "cpu_s": max(run["cpu_s"] for run in runs),
        "cpu_ratio": max(ratios) if ratios else None,
        "completeness_snr6": quality.get("completeness_snr6"),
        "completeness_snr10": quality.get("completeness_snr10"),
        "completeness_all_area": quality.get("completeness_all_area"),
        "false_positives": quality["false_positives"]["total"] if quality else None,
        "masked_fraction": quality.get("masked_fraction"),
        "snr_map_sd": quality.get("snr_map_sd"),
        "n_detected": max((run["counts"]["n_detected"] for run in runs if "counts" in run), default=None),
        "n_sources": max((run["n_sources"] for run in runs if "n_sources" in run), default=None),
        "ring": max(rings) if rings else None,
        "codes": [run["code"] for run in runs if "code" in run],
        "context": [{k: str(v) for k, v in run["context"].items()} for run in runs if "context" in run],
        "stage_cpu_s": [run["stages"] for run in runs if "stages" in run],
    }


def sky_config(sky: HardSky) -> SimulationConfig:
    """What is simulated of it."""
    return preset(f"hard-{sky.name}")


def chosen(names: str) -> list[HardSky]:
    """The easy sky and the named ones, all for none."""
    wanted = [name for name in names.split(",") if name]
    if unknown := sorted(set(wanted) - {sky.name for sky in HARD_SKIES}):
        known = ", ".join(sky.name for sky in HARD_SKIES)
        raise click.BadParameter(f"no such sky: {', '.join(unknown)}; there are {known}", param_hint="--skies")
    return [sky for sky in HARD_SKIES if not wanted or sky.name in wanted or sky is EASY]


@click.command(
    "bench-hard",
    epilog="""\b
Examples:
  sub60 bench-hard --report hard.json           all hard skies, simulated once: half an hour the first time
  sub60 bench-hard --skies crowded,partial      two of them, and the easy one that times are compared with""",
)
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), default=Path("var/hard"), show_default=True)
@click.option("--skies", "names", default="", help="Comma-separated; default: all. The easy one runs always.")
@click.option(
    "--limit-s", type=click.FloatRange(1), default=60.0, show_default=True, help="A sky that lasts longer failed."
)
@click.option("--report", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the report here.")
def command(folder: Path, names: str, limit_s: float, path: Path | None) -> None:
    """Run the pipeline on hard skies; nonzero status where one ends otherwise than it must."""
    console, skies = Console(stderr=True), chosen(names)
    with bar("simulating", console) as progress:
        task = progress.add_task("", total=sum(n_steps(sky_config(sky)) for sky in skies))
        for sky in skies:
            _simulate(sky, folder, lambda line: progress.update(task, advance=1, description=line))
    found: dict[str, Any] = {}
    with bar("hard skies", console) as progress:
        task = progress.add_task("", total=len(skies))
        for sky in skies:
            progress.update(task, description=sky.name)
            found[sky.name] = without_nan(run_sky(sky, (folder / sky.name).resolve(), limit_s, found.get(EASY.name)))
            progress.update(task, advance=1)
    show(found, table_console(180))
    if path is not None:
        _report(found, [sky_config(sky).seed for sky in skies]).write(path)
        console.print(f"report: {path}")
    sys.exit(int(any(figures["missed"] for figures in found.values())))


def _simulate(sky: HardSky, folder: Path, tell: Callable[[str], None]) -> None:
    config = sky_config(sky)
    if is_complete(folder / sky.name, config):
        for _ in range(n_steps(config)):
            tell(f"{sky.name} is there")
        return
    simulate(folder / sky.name, config, 1, lambda line: tell(f"{sky.name}: {line}"))


def _report(found: dict[str, Any], seeds: list[int]) -> Report:
    outcomes = [outcome for figures in found.values() for outcome in figures["outcomes"]]
    return Report.model_validate(
        {
            "schema": 1,
            "environment": environment(),
            "command": "bench-hard",
            "seeds": sorted(set(seeds)),
            "detector_visits": len(outcomes),
            "outcomes": {name: outcomes.count(name) for name in sorted(set(outcomes))},
            "hard_skies": found,
        }
    )


_COLUMNS: Final = (
    ("s", "wall_s", 1.0, 1), ("R", "cpu_ratio", 1.0, 1), ("x easy", "time_ratio", 1.0, 2),
    ("sources", "n_sources", 1.0, 0), ("detections", "n_detected", 1.0, 0),
    ("complete 6-100 [%]", "completeness_snr6", 100.0, 1), ("whole area [%]", "completeness_all_area", 100.0, 1),
    ("false", "false_positives", 1.0, 0), ("masked [%]", "masked_fraction", 100.0, 1), ("S/N sd", "snr_map_sd", 1.0, 3),
    ("ring", "ring", 1.0, 3),
)  # fmt: skip


def show(found: dict[str, Any], console: Console) -> None:
    """Print the table, what each sky is, and what was missed."""
    table = Table(title="hard skies", title_justify="left")
    table.add_column("sky")
    table.add_column("outcome")
    for heading, *_ in _COLUMNS:
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    for name, figures in found.items():
        numbers = (
            "" if figures.get(key) is None else f"{factor * figures[key]:.{digits}f}"
            for _, key, factor, digits in _COLUMNS
        )
        outcome = ", ".join(dict.fromkeys([*figures["outcomes"], *figures["codes"]]))
        table.add_row(name, outcome, *numbers, "MISSED" if figures["missed"] else "as expected")
    console.print(table)
    for name, figures in found.items():
        missed = f": {'; '.join(figures['missed'])}" if figures["missed"] else ""
        console.print(f"{name}: {figures['meaning']}{missed}", markup=False, highlight=False, soft_wrap=True)
