"""`make chart` where helm cannot be had: it says why, and fails nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.chart import ROOT


def check(folder: Path, go: str | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The check with a `go` of these shell lines, or without one."""
    tools = folder / "tools"
    tools.mkdir()
    if go is not None:
        (tools / "go").write_text(f"#!/bin/sh\n{go}\n")
        (tools / "go").chmod(0o755)
    command = [sys.executable, str(ROOT / "helm" / "check.py"), "--folder", str(folder / "chart"), *arguments]
    return subprocess.run(command, env={"PATH": str(tools)}, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("go", "reason"),
    [
        (None, "there is no go"),
        ("echo 'proxy: 403 Forbidden' >&2; exit 1", "go cannot build helm: proxy: 403 Forbidden"),
        ("while :; do :; done", "not built within 1 s"),
    ],
    ids=["no go", "go fails", "go takes too long"],
)
def test_without_helm_it_is_not_checked_and_says_why(tmp_path: Path, go: str | None, reason: str) -> None:
    done = check(tmp_path, go, "--build-limit-s", "1")
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("not checked: ")
    assert reason in last
