"""``sub60 bench``: every stage at full size against its budget and beside its reference."""

import io
import json
import os
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from benchmarks.display import bar, table_console
from benchmarks.harness import make_dataset
from benchmarks.stages.budgets import PATH
from benchmarks.stages.table import show
from benchmarks.stages.workbench import simulated
from core.errors import ConfigurationError


class _Watch:
    """A pytest plugin that moves the bar."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("recording the pipeline", total=None)
        self.failures: list[str] = []

    def pytest_collection_finish(self, session: Any) -> None:
        """How many there are."""
        self._progress.update(self._task, total=len(session.items))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Which one it is."""
        self._progress.update(self._task, description=nodeid.rpartition("::")[2].removeprefix("test_"))

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Why it failed."""
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            reason = crash.message if crash else str(report.longrepr)
            self.failures.append(f"{report.nodeid.rpartition('::')[2].removeprefix('test_')}: {reason}")

    def pytest_runtest_logfinish(self) -> None:
        """One more done."""
        self._progress.update(self._task, advance=1)


@click.command(
    "bench",
    epilog="""\b
Examples:
  sub60 bench --report bench.json               all stages; nonzero status where a budget is broken
  sub60 bench --only subtract --rounds 31       one stage and its reference, measured well
  sub60 bench --write-budgets                   on a quiet machine: budgets from what is measured""",
)
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), default=Path("var/stages"), show_default=True
)
@click.option("--dataset", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Use this one as it is.")
@click.option("--rounds", type=click.IntRange(3), default=11, show_default=True, help="Rounds of each stage.")
@click.option("--only", default="", help="Tests whose name has this in it, as pytest's -k.")
@click.option("--write-budgets", is_flag=True, help="Replace benchmarks/budgets.toml by what is measured.")
@click.option("--report", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the report here.")
def command(folder: Path, dataset: Path | None, rounds: int, only: str, write_budgets: bool, path: Path | None) -> None:
    """Time every stage on one full detector; print its CPU over R, its budget and its reference."""
    try:
        import pytest
    except ImportError as error:
        raise ConfigurationError("the benchmarks need pytest and pytest-benchmark: pip install -e '.[dev]'") from error
    console = Console(stderr=True)
    dataset = dataset or make_dataset(folder / "dataset", simulated(), console)
    with tempfile.TemporaryDirectory() as scratch:
        written = Path(scratch) / "report.json"
        arguments = [
            str(Path(__file__).parent), "--rootdir", str(Path(__file__).parents[2]), "-q", "--capture=no",
            "-p", "no:cacheprovider", "--timeout=0", "--benchmark-timer=time.process_time", "--benchmark-quiet",
            "--dataset", str(dataset), "--rounds", str(rounds), "--stage-report", str(written), "-k", only,
            *(["--write-budgets"] if write_budgets else []),
        ]  # fmt: skip
        said = io.StringIO()
        with bar("timing stages", console) as progress, redirect_stdout(said):
            watch = _Watch(progress)
            status = int(pytest.main(arguments, plugins=[watch]))
        if not written.exists():
            console.print(said.getvalue(), markup=False)
            raise SystemExit(status or 1)
        report = json.loads(written.read_text(encoding="utf-8"))
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(written.read_text(encoding="utf-8"), encoding="utf-8")
    show(report, table_console(180))
    for line in watch.failures:
        console.print(line, markup=False, soft_wrap=True)
    if write_budgets:
        console.print(f"budgets: {os.path.relpath(PATH)}")
    sys.exit(status)
