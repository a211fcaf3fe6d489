"""Arithmetic of the stage, hard-sky and effect benchmarks on numbers whose answers are known."""

import time
from pathlib import Path

import pytest

from benchmarks.effects import ALL, EFFECTS, FIGURES, base_config, costs
from benchmarks.hard_skies import RanAwayError, limit
from benchmarks.hard_skies import chosen as chosen_skies
from benchmarks.simulator.hard import HARD_SKIES
from benchmarks.stages.budgets import MAX_TOTAL, budgets_from, read_budgets, write_budgets
from benchmarks.stages.workbench import STAGES, Rounds


def test_a_round_is_measured_in_the_references_on_both_sides_of_it() -> None:
    rounds = Rounds(cpu_s=[1.0, 3.0], reference_cpu_s=[0.1, 0.3, 0.3])
    assert rounds.ratios == pytest.approx([5.0, 10.0])


def test_budgets_come_back_as_written_and_the_total_is_bounded(tmp_path: Path) -> None:
    budgets = budgets_from({"isr": 1.0, "seeing": 0.01}, total=30.0)
    assert budgets.stages == {"isr": 1.25, "seeing": 0.15}
    assert budgets.total == MAX_TOTAL
    write_budgets(budgets, tmp_path / "budgets.toml")
    assert read_budgets(tmp_path / "budgets.toml") == budgets


def test_every_stage_has_a_budget() -> None:
    budgets = read_budgets()
    assert list(budgets.stages) == list(STAGES)
    assert budgets.total <= MAX_TOTAL


def test_what_runs_away_is_stopped_and_what_does_not_is_left_alone() -> None:
    with limit(5.0):
        pass
    begin = time.monotonic()
    with pytest.raises(RanAwayError), limit(0.05):
        sum(iter(lambda: int(time.monotonic() > begin + 5), 1))
    assert time.monotonic() - begin < 1


def test_the_easy_sky_is_always_among_the_chosen() -> None:
    assert [sky.name for sky in chosen_skies("partial")] == ["easy", "partial"]
    assert chosen_skies("") == list(HARD_SKIES)


@pytest.mark.parametrize("effect", [effect for effect in EFFECTS if effect.name != ALL], ids=lambda effect: effect.name)
def test_every_effect_is_on_and_can_be_switched_off_alone(effect: type) -> None:
    base = base_config("quality", 3, 1)
    without = effect.without(base)  # type: ignore[attr-defined]
    assert without.digest() != base.digest()
    assert without.seed == base.seed


def test_a_cost_is_the_full_sky_minus_the_sky_without() -> None:
    full = {name: {"value": 3.0, "error": 3.0} for name in FIGURES}
    without = {name: {"value": 1.0, "error": 4.0} for name in FIGURES} | {"snr50": {"value": None, "error": None}}
    found = costs(full, without)  # type: ignore[arg-type]
    assert found["pull_sd"] == {"value": 2.0, "error": 5.0}
    assert found["snr50"] == {"value": None, "error": None}
