"""``sub60 bench-peers``: the classic chain on the frame that our pipeline has just done."""

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.demo import DemoPlan, make_dataset
from benchmarks.environment import environment
from benchmarks.peers.astromatic import SEX_NAMES, SWARP_NAMES, find
from benchmarks.peers.bench import Bench, Results
from benchmarks.peers.catalog import PEERS, Peer, chosen
from benchmarks.peers.ours import Ours, run_ours
from benchmarks.peers.summary import peer_rows, show
from benchmarks.quality.rerun import simulation, truth_file
from benchmarks.quality.truth import read_truth
from benchmarks.replay import read_events, readouts
from benchmarks.report import Report, quantiles
from core.errors import ConfigurationError
from service.settings import KEEP_MEMORY, THREADS

SIMULATED: Final[dict[str, Any]] = {"visits": 1, "detectors": (94,)}
_PACKAGES: Final = ("astroscrappy", "photutils", "Piff", "sfft", "galsim", "astropy")
_PROGRAMS: Final = {"source-extractor": SEX_NAMES, "psfex": ("psfex",), "scamp": ("scamp",), "swarp": SWARP_NAMES}


@click.command(
    "bench-peers",
    epilog="""\b
Examples:
  sub60 bench-peers --report peers.json                       one detector simulated, all peers, a few minutes
  sub60 bench-peers --dataset var/demo/dataset --detector 4   a frame of a dataset that is there
  sub60 bench-peers --peers psfex,scamp                       these two, and what they build on""",
)
@click.option("--dataset", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Use this one as it is.")
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), default=Path("var/peers"), show_default=True
)
@click.option("--report", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the report here.")
@click.option("--visit", type=int, help="Default: the dataset's first.")
@click.option("--detector", type=int, help="Default: the visit's first.")
@click.option("--peers", "names", default="", help=f"Comma-separated; default: all of {', '.join(PEERS)}.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="Runs of all but the slowest.")
@click.option("--keep", is_flag=True, help="Leave the peers' files in FOLDER/work.")
def command(
    dataset: Path | None,
    folder: Path,
    path: Path | None,
    visit: int | None,
    detector: int | None,
    names: str,
    repeats: int,
    keep: bool,
) -> None:
    """Run the classic tools and our pipeline on one frame, and compare CPU and quality."""
    peers = chosen([name.strip() for name in names.split(",") if name.strip()])
    _settle()
    console = Console(stderr=True)
    plan = DemoPlan(folder=folder, preset="quality", changes=SIMULATED, given=dataset)
    make_dataset(plan, console)
    event = choose_readout(readouts(read_events(plan.dataset)), visit, detector)
    try:
        report = _measure(plan.dataset, event, peers, folder / "work", repeats, console)
    finally:
        if not keep:
            shutil.rmtree(folder / "work", ignore_errors=True)
    if path is not None:
        report.write(path)
        console.print(f"report: {path}")
    out = Console()
    show(report.model_dump(by_alias=True, exclude_unset=True), out if out.is_terminal else Console(width=160))


def _settle() -> None:
    """Start over with one thread a library and freed memory kept, as the service's compute processes run.

    Libraries read these variables when they are loaded; the peers inherit them.
    """
    wanted = dict.fromkeys(THREADS, "1") | KEEP_MEMORY
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **wanted})


def choose_readout(events: list[dict[str, Any]], visit: int | None, detector: int | None) -> dict[str, Any]:
    """The first readout of this visit and detector, of any where they are not given."""
    for event in events:
        if visit in {None, event["visit"]} and detector in {None, event["detector"]}:
            return event
    there = sorted({(event["visit"], event["detector"]) for event in events})
    raise ConfigurationError(f"no such visit and detector; there are {', '.join(f'{v} {d}' for v, d in there)}")


def _measure(
    dataset: Path, event: dict[str, Any], peers: list[Peer], work: Path, repeats: int, console: Console
) -> Report:
    text = TextColumn("{task.description}")
    columns = (TextColumn("peers"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), text)
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(peers) + 1)
        inputs, ours = run_ours(dataset, event, repeats, lambda line: progress.update(task, description=line))
        truth = read_truth(truth_file(dataset, event["visit"], event["detector"]))
        bench = Bench(work, inputs, ours, truth, repeats)
        progress.update(task, advance=1, description="writing the frame for the peers")
        bench.prepare()
        results = Results()
        for peer in peers:
            progress.update(task, description=peer.name)
            line = results.add(bench, peer)
            progress.advance(task)
            console.print(line, markup=False, highlight=False)
        figures = bench.our_figures()
    made = simulation(dataset)
    return Report.model_validate(
        {
            "schema": 1,
            "environment": _environment(),
            "command": "make bench-peers",
            "seeds": [made["seed"]] if "seed" in made else [],
            "detector_visits": 1,
            **_our_section(ours),
            "peers": peer_rows(results.outcomes, ours, figures),
            "peers_missing": results.missing,
            "peers_failed": results.failed,
            "frame": {"visit": event["visit"], "detector": event["detector"], "band": event["band"]},
            "region": _region(bench),
            "not_simulated": made.get("not_simulated", []),
        }
    )


def _our_section(ours: Ours) -> dict[str, Any]:
    """Our stages and totals, as the other reports have them."""
    names = list(ours.runs[0].stages)
    wall, cpu = ({name: [run.stages[name][i] for run in ours.runs] for name in names} for i in (0, 1))
    totals = [run.cost(ours.dia_stages).cpu_s for run in ours.runs]
    return {
        "stages": {
            name: {"wall_s": quantiles(wall[name], 50, 95), "cpu_s": quantiles(cpu[name], 50, 95)} for name in names
        },
        "dia_cpu_s": quantiles(totals, 50, 95),
        "reference_cpu_s": ours.reference_cpu_s(),
        "dia_cpu_ratio": ours.cost().x_r,
    }


def _region(bench: Bench) -> dict[str, int]:
    """Pixels in which the differences are compared."""
    region = bench.difference_region or bench.tile
    return {"y0": region.y0, "y1": region.y1, "x0": region.x0, "x1": region.x1}


def _environment() -> dict[str, Any]:
    """With the versions of the peers."""
    found = environment()
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found["versions"][name] = version(name)
    for name, programs in _PROGRAMS.items():
        if (program := find(programs)) is not None:
            done = subprocess.run([program, "-v"], capture_output=True, text=True, check=False)
            found["versions"][name] = (done.stdout + done.stderr).strip().partition("\n")[0]
    return found
