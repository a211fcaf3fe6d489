"""Inputs that once failed."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.fuzz.finds import kept
from tests.fuzz.target import Lane
from tests.fuzz.targets import TARGETS
from tests.fuzz.watch import REGRESSIONS, Plan, run_target


@pytest.mark.parametrize("target", [name for name in TARGETS if kept(REGRESSIONS, name)])
def test_inputs_that_once_failed_are_taken_or_refused(tmp_path: Path, target: str) -> None:
    entry = replace(TARGETS[target], lanes=(Lane(),))
    outcome = run_target(Plan(target=target, entry=entry, seed=1, seconds=0.1, finds=tmp_path))
    assert outcome.is_good, (outcome.finds, outcome.error)
    assert outcome.inputs >= len(kept(REGRESSIONS, target))


def test_the_kept_inputs_are_small() -> None:
    assert sum(path.stat().st_size for path in REGRESSIONS.rglob("*") if path.is_file()) < 100_000
