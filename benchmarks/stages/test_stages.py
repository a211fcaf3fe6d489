"""Every stage on a full detector, timed by pytest-benchmark; a median above its budget fails."""

from statistics import median
from typing import Any

import pytest

from benchmarks.stages.budgets import Budgets
from benchmarks.stages.references import REFERENCES
from benchmarks.stages.workbench import STAGES, TOTAL, Compared, Workbench


@pytest.mark.parametrize("name", STAGES)
def test_stage_keeps_its_budget(
    name: str, benchmark: Any, bench: Workbench, n_rounds: int, budgets: Budgets | None
) -> None:
    recorder = bench.recorder
    rounds = bench.time(benchmark, lambda: recorder.run(name), lambda: recorder.go_to(name), n_rounds)
    bench.measured[name] = rounds
    assert recorder.is_as_recorded(name), "not the work that was recorded"
    if budgets is not None:
        assert median(rounds.ratios) <= budgets.stages[name], f"{name} is over its budget [R]"


def test_all_stages_to_the_catalog_keep_their_budget(
    benchmark: Any, bench: Workbench, n_rounds: int, budgets: Budgets | None
) -> None:
    rounds = bench.time(benchmark, bench.to_dia_sources, lambda: bench.recorder.go_to("read"), n_rounds)
    bench.measured[TOTAL] = rounds
    if budgets is not None:
        assert median(rounds.ratios) <= budgets.total, "the whole is over its budget [R]"


@pytest.mark.parametrize("name", REFERENCES)
def test_reference_agrees_and_is_timed_beside_the_stage(
    name: str, benchmark: Any, bench: Workbench, n_reference_rounds: int
) -> None:
    bench.recorder.go_to(name)
    reference = REFERENCES[name](bench)
    found: list[Any] = []
    n_rounds = 1 if reference.is_slow else n_reference_rounds
    rounds = bench.time(benchmark, lambda: found.append(reference.run()), found.clear, n_rounds)
    bench.recorder.run(name)
    agreement = reference.check(found[0])
    bench.compared.setdefault(name, []).append(Compared(name=reference.name, rounds=rounds, agreement=agreement))
