"""``python -m benchmarks.simulator OUT``: make a dataset."""

import sys
import time
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.simulator.config import PRESETS, preset
from benchmarks.simulator.dataset import n_steps, simulate
from benchmarks.simulator.selftest import check_dataset


def _numbers(text: str | None) -> tuple[int, ...] | None:
    return tuple(int(part) for part in text.split(",")) if text else None


@click.command(
    epilog="Example: python -m benchmarks.simulator var/demo --preset demo --seed 7 --visits 3 --detectors 94,4"
)
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--preset", "name", type=click.Choice(PRESETS), default="demo", show_default=True)
@click.option("--seed", type=int, help="Default: the preset's.")
@click.option("--visits", type=click.IntRange(1), help="Number of visits.")
@click.option("--detectors", help="Comma-separated detector numbers.")
@click.option("--bands", help="Comma-separated bands of the visits, in turn.")
@click.option("--seeing", help="Comma-separated FWHM [arcsec] of the visits, in turn.")
@click.option("--camera", type=click.Choice(["lsstcam", "testcam"]), help="Default: the preset's.")
@click.option("--self-test", is_flag=True, help="Measure sky noise, star counts and zero point; fail beyond 5 %.")
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="Processes, one a detector.")
def main(
    out: Path,
    name: str,
    seed: int | None,
    visits: int | None,
    detectors: str | None,
    bands: str | None,
    seeing: str | None,
    camera: str | None,
    self_test: bool,
    jobs: int,
) -> None:
    """Simulate raws, calibrations, templates, history, events and truth into OUT (skipped if already there)."""
    changes = {
        "seed": seed,
        "visits": visits,
        "detectors": _numbers(detectors),
        "bands": tuple(bands.split(",")) if bands else None,
        "seeing_arcsec": tuple(float(v) for v in seeing.split(",")) if seeing else None,
        "camera": camera,
    }
    config = preset(name, **{key: value for key, value in changes.items() if value is not None})
    console = Console(file=sys.stderr)
    columns = (
        TextColumn("simulating"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    begin = time.monotonic()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=n_steps(config))
        is_new = simulate(out, config, jobs, lambda line: progress.update(task, advance=1, description=line))
    if is_new:
        console.print(f"{out}: {config.visits * len(config.detectors)} raws in {time.monotonic() - begin:.0f} s")
    else:
        console.print(f"{out}: already there")
    if self_test:
        checks = check_dataset(out)
        for check in checks:
            verdict = "ok" if check.passed else "OUT OF TOLERANCE"
            line = f"{check.raw} {check.name}: asked {check.asked:.4g}, found {check.found:.4g} {verdict}"
            console.print(line, markup=False)
        if not all(check.passed for check in checks):
            raise click.ClickException("the dataset is not what was asked for")


if __name__ == "__main__":
    main()
