"""Options and fixtures of the stage benchmarks: ``make bench``, or ``pytest benchmarks/stages --dataset FOLDER``."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.stages.budgets import Budgets, budgets_from, read_budgets, write_budgets
from benchmarks.stages.table import make_report
from benchmarks.stages.workbench import STAGES, TOTAL, Workbench


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("stages")
    group.addoption("--dataset", default="var/stages/dataset", help="Simulated dataset of one full detector.")
    group.addoption("--rounds", type=int, default=11, help="Rounds of each stage.")
    group.addoption("--reference-rounds", type=int, default=3, help="Rounds of each reference.")
    group.addoption("--write-budgets", action="store_true", help="Replace the budgets by what is measured.")
    group.addoption("--stage-report", default="", help="Write the report here.")


@pytest.fixture(scope="session")
def bench(request: pytest.FixtureRequest) -> Iterator[Workbench]:
    """The workbench, shared by all; at the end its report and budgets are written."""
    option = request.config.getoption
    dataset = Path(option("--dataset"))
    if not dataset.is_dir():
        pytest.skip(f"no dataset at {dataset}: `sub60 bench` makes it")
    made = Workbench(dataset)
    yield made
    if option("--write-budgets") and set(made.measured) >= {*STAGES, TOTAL}:
        write_budgets(_measured(made))
    if option("--stage-report"):
        make_report(made, read_budgets()).write(Path(option("--stage-report")))


def _measured(bench: Workbench) -> Budgets:
    medians = {name: sorted(r.ratios)[len(r.ratios) // 2] for name, r in bench.measured.items()}
    return budgets_from({name: medians[name] for name in STAGES}, medians[TOTAL])


@pytest.fixture(scope="session")
def budgets(request: pytest.FixtureRequest) -> Budgets | None:
    """Budgets to be kept; None where they are written anew."""
    return None if request.config.getoption("--write-budgets") else read_budgets()


@pytest.fixture(scope="session")
def n_rounds(request: pytest.FixtureRequest) -> int:
    """Rounds of each stage."""
    return int(request.config.getoption("--rounds"))


@pytest.fixture(scope="session")
def n_reference_rounds(request: pytest.FixtureRequest) -> int:
    """Rounds of each reference."""
    return int(request.config.getoption("--reference-rounds"))
