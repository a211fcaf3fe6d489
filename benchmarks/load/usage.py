"""CPU and memory of a service's processes, by what they do, as the kernel counts them (proc(5))."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_ROLE_FLAG: Final = b"--role"
CHILD: Final = "child"
SERVER: Final = "server"
OTHER: Final = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """All processes of one kind."""

    n: int
    cpu_s: float
    """User and system, of the processes that live, since they began."""
    rss_bytes: int
    """Most that each has held resident, summed: shared pages count in each."""


def usage(root: int) -> dict[str, Usage]:
    """The processes below ``root`` by kind: a role's name, ``child`` (compute), ``server`` (Redis), ``supervisor``."""
    parents = {pid: parent for pid in _pids() if (parent := _parent(pid)) is not None}
    found: dict[str, Usage] = {}
    for pid in (root, *parents):
        if pid != root and not _is_below(pid, root, parents):
            continue
        try:
            kind = "supervisor" if pid == root else _kind(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"))
            cpu_s, rss = _cpu_s(pid), _peak_bytes(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        before = found.get(kind, Usage(n=0, cpu_s=0.0, rss_bytes=0))
        found[kind] = Usage(n=before.n + 1, cpu_s=before.cpu_s + cpu_s, rss_bytes=before.rss_bytes + rss)
    return found


def cpu_between(before: dict[str, Usage], after: dict[str, Usage]) -> dict[str, float]:
    """CPU seconds of each kind from one look to a later one."""
    nothing = Usage(n=0, cpu_s=0.0, rss_bytes=0)
    return {kind: max(0.0, now.cpu_s - before.get(kind, nothing).cpu_s) for kind, now in after.items()}


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _stat(pid: int) -> list[bytes]:
    """Fields behind the name, which may hold anything: state is the first, the parent the second."""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()


def _parent(pid: int) -> int | None:
    try:
        return int(_stat(pid)[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def _is_below(pid: int, root: int, parents: dict[int, int]) -> bool:
    while (pid := parents.get(pid, 0)) > 1:
        if pid == root:
            return True
    return False


def _cpu_s(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _peak_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0  # a process that has just ended


def _kind(words: list[bytes]) -> str:
    if _ROLE_FLAG in words[:-1]:
        return words[words.index(_ROLE_FLAG) + 1].decode()
    if b"service.child_main" in words:
        return CHILD
    return SERVER if b"valkey-server" in words[0] or b"redis-server" in words[0] else OTHER
