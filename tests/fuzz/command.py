"""``python -m tests.fuzz``: all targets for a while, or one input again."""

import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.display import table_console
from benchmarks.environment import environment
from benchmarks.report import Report
from tests.fuzz.child import limit_memory, make_target
from tests.fuzz.finds import place
from tests.fuzz.targets import TARGETS
from tests.fuzz.watch import Outcome, Plan, run_target

FOLDER = Path("var/fuzz")


@click.command(
    epilog="""\b
Examples:
  python -m tests.fuzz --minutes 20 --report fuzz.json
  python -m tests.fuzz --seconds-each 60 fits http
  python -m tests.fuzz --replay var/fuzz/events/0123456789abcdef"""
)
@click.argument("names", nargs=-1, metavar="[TARGET]...", type=click.Choice(list(TARGETS)))
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=20.0, show_default=True,
              help="For all targets together.")  # fmt: skip
@click.option(
    "--seconds-each", type=click.FloatRange(min=0, min_open=True), help="For each target, in place of --minutes."
)
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="Targets at a time.")
@click.option("--seed", type=click.IntRange(0), help="Of the inputs; by default another each time.")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), default=FOLDER, show_default=True,
              help="Failing inputs are kept here.")  # fmt: skip
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here (JSON).")
@click.option("--replay", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Try one kept input again; its folder names the target.")  # fmt: skip
def command(
    names: tuple[str, ...],
    minutes: float,
    seconds_each: float | None,
    jobs: int,
    seed: int | None,
    folder: Path,
    report: Path | None,
    replay: Path | None,
) -> None:
    """Throw broken and hostile input at everything that reads bytes from outside; nonzero status for any find."""
    if replay is not None:
        sys.exit(try_again(replay))
    wanted = tuple(dict.fromkeys(names)) or tuple(TARGETS)
    seed = int(time.time()) % 1_000_000 if seed is None else seed
    jobs = min(jobs, len(wanted))
    seconds = seconds_each or minutes * 60 * jobs / len(wanted)
    outcomes = _run(wanted, seconds, jobs, seed, folder)
    targets = {outcome.target: outcome.as_report() for outcome in outcomes}
    if report is not None:
        content = {"schema": 1, "environment": environment(), "command": "fuzz", "seeds": [seed], "fuzz": targets}
        Report.model_validate(content).write(report)
    show(targets)
    sys.exit(not all(outcome.is_good for outcome in outcomes))


def _run(names: tuple[str, ...], seconds: float, jobs: int, seed: int, folder: Path) -> list[Outcome]:
    columns = TextColumn("{task.description:7}"), TimeElapsedColumn(), TextColumn("{task.fields[said]}")
    with Progress(*columns, console=Console(stderr=True)) as progress, ThreadPoolExecutor(jobs) as pool:

        def one(name: str) -> Outcome:
            task = progress.add_task(name, total=seconds, said="setting up")
            began: list[float] = []

            def notice(outcome: Outcome) -> None:
                began.append(time.monotonic()) if not began else None
                ran = time.monotonic() - began[0]
                rate = f"{outcome.inputs / ran:,.0f}/s" if ran > 1 else "…"
                found = f"{len(outcome.finds)} found"
                progress.update(task, completed=min(ran, seconds), said=f"{outcome.inputs:,} inputs, {rate}, {found}")

            plan = Plan(target=name, entry=TARGETS[name], seed=seed, seconds=seconds, finds=folder, notice=notice)
            return run_target(plan)

        return list(pool.map(one, names))


def try_again(path: Path) -> int:
    """Try one input in this process; 0 when it is taken or refused as it should be."""
    target = path.resolve().parent.name
    if target not in TARGETS:
        raise click.UsageError(f"the folder {target!r} names no target; targets are {', '.join(TARGETS)}")
    console = Console()
    with tempfile.TemporaryDirectory() as scratch:
        made = make_target(TARGETS[target].spec, Path(scratch))
        limit_memory(1 << 30)
        began = time.monotonic()
        try:
            answer = made.check(path.read_bytes())
        except Exception as error:
            console.print("".join(traceback.format_exception(error)), markup=False, highlight=False, soft_wrap=True)
            console.print(f"still failing: {place(error)}", markup=False, soft_wrap=True)
            return 1
    console.print(f"{answer} after {time.monotonic() - began:.3f} s", markup=False)
    return 0


def show(targets: dict[str, Any]) -> None:
    """The figures as a table, the finds below it."""
    console = table_console(160)
    table = Table(
        "target", *(("inputs", "s", "inputs/s", "accepted", "refused", "crashes", "hangs", "leak MB", "seed"))
    )
    for name, found in targets.items():
        table.add_row(
            name, f"{found['inputs']:,}", f"{found['seconds']:.0f}", f"{found['inputs_per_s'] or 0:,.0f}",
            f"{found['accepted']:,}", f"{sum(found['rejected'].values()):,} in {len(found['rejected'])} codes",
            str(found["crashes"]), str(found["hangs"]), f"{found['leak_bytes'] / 1e6:.1f}", str(found["seed"]),
        )  # fmt: skip
    console.print(table)
    for name, found in targets.items():
        for find in found["finds"]:
            console.print(f"{name}: {find['kind']}: {find['where']}  {find['file']}", markup=False, soft_wrap=True)
        if found["error"]:
            console.print(f"{name}: {found['error']}", markup=False, soft_wrap=True)
