"""The fuzzer finds what is planted: errors, signals, hangs, leaks, bombs; and nothing where there is nothing."""

from pathlib import Path

import pytest

from tests.fuzz.finds import shrink
from tests.fuzz.targets import Entry
from tests.fuzz.watch import Outcome, Plan, run_target


def fuzz(tmp_path: Path, name: str, seconds: float = 1.0) -> Outcome:
    entry = Entry(spec=f"tests.unit.fuzz.{name}", leak_bytes=8 << 20)
    return run_target(
        Plan(target="planted", entry=entry, seed=3, seconds=seconds, finds=tmp_path, hang_s=0.5, regressions=None)
    )


def only_find(outcome: Outcome) -> str:
    (find,) = outcome.finds.values()
    return f"{find.kind}: {find.where}"


def test_nothing_is_found_where_nothing_is_wrong(tmp_path: Path) -> None:
    outcome = fuzz(tmp_path, "planted:Sound")
    assert outcome.is_good, (outcome.finds, outcome.error)
    report = outcome.as_report()
    assert report["inputs"] == report["accepted"] + report["rejected"]["too_early"] > 100
    assert (report["crashes"], report["hangs"], list(tmp_path.iterdir())) == (0, 0, [])


@pytest.mark.parametrize(("name", "kind"), [("planted:Raises", "KeyError"), ("planted:Bomb", "MemoryError")])
def test_an_error_is_kept_with_its_smallest_input(tmp_path: Path, name: str, kind: str) -> None:
    outcome = fuzz(tmp_path, name)
    assert only_find(outcome).startswith(f"crash: {kind} at tests/unit/fuzz/planted.py")
    assert outcome.as_report()["crashes"] > 1
    (find,) = outcome.finds.values()
    assert Path(find.file).read_bytes() == b"z"
    note = Path(find.file).with_suffix(".txt").read_text()
    assert f"python -m tests.fuzz --replay {find.file}" in note
    assert "planted.py" in note


def test_a_signal_is_a_find_and_the_run_goes_on(tmp_path: Path) -> None:
    outcome = fuzz(tmp_path, "planted:Dies", 2.0)
    assert only_find(outcome).startswith("crash: ended by signal 11")
    (find,) = outcome.finds.values()
    assert b"zz" in Path(find.file).read_bytes()
    assert outcome.inputs > outcome.answers["crash"] > 0


def test_a_hang_is_ended_and_kept(tmp_path: Path) -> None:
    outcome = fuzz(tmp_path, "planted:Hangs")
    assert outcome.hangs > 0
    assert only_find(outcome).startswith("hang: longer than 0.5 s")
    assert "planted.py" in next(iter(outcome.finds.values())).detail


def test_growing_memory_and_open_files_are_leaks(tmp_path: Path) -> None:
    outcome = fuzz(tmp_path, "planted:Leaks", 6.0)
    assert outcome.leak_bytes > 8 << 20
    assert {find.kind for find in outcome.finds.values()} == {"leak", "descriptors"}


def test_a_target_that_cannot_be_built_is_an_error(tmp_path: Path) -> None:
    outcome = fuzz(tmp_path, "unbuildable:Target")
    assert "unbuildable" in outcome.error
    assert not outcome.is_good


def test_shrinking_keeps_what_fails() -> None:
    assert shrink(b"aaaaxbbbbyccc", lambda d: b"x" in d and b"y" in d, lambda: False) == b"xy"
