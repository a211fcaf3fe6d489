"""What the audit of dependencies says, above all when it could not look."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "audit_dependencies.py"
GOOD = {"name": "numpy", "version": "2.4.6", "vulns": []}
SKIPPED = {"name": "scipy", "skip_reason": "Dependency not found on PyPI and could not be audited: scipy (1.17.1)"}
BAD = {
    "name": "x",
    "version": "1",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"], "aliases": [], "description": ""}],
}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit_dependencies", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("dependencies", "status", "says"),
    [
        ([GOOD], 0, "1 of 1 packages"),
        ([GOOD, BAD], 1, "VULNERABLE x 1: PYSEC-1, fixed in 2"),
        ([SKIPPED, BAD], 1, "VULNERABLE"),
        ([GOOD, SKIPPED], 3, "NOT AUDITED"),
        ([], 3, "no network"),
    ],
)
def test_only_what_was_looked_up_is_clean(
    script: ModuleType, dependencies: list[object], status: int, says: str
) -> None:
    found, lines = script.judge(dependencies, "no network")
    assert found == status
    assert says in "\n".join(lines)
