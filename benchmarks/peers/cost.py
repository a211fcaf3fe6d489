"""What a piece of work costs: CPU and wall seconds, and CPU in units of R measured around it."""

import resource
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
import sep
from numpy.typing import NDArray

from core.errors import ConfigurationError

Float32 = NDArray[np.float32]

TIMEOUT_S: Final = 1800.0
_LAST_LINES: Final = 4


class PeerFailedError(RuntimeError):
    """A peer ended with an error: named in the report, and the others go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """CPU and wall seconds; ``x_r`` is CPU over R, R being the mean of its measurements before and after."""

    cpu_s: float
    wall_s: float
    x_r: float
    n_runs: int = 1

    def scaled(self, factor: float) -> "Cost":
        """The same work on ``factor`` times the area."""
        return replace(self, cpu_s=factor * self.cpu_s, wall_s=factor * self.wall_s, x_r=factor * self.x_r)


def from_run(cpu_s: float, wall_s: float, before_s: float, after_s: float) -> Cost:
    """Cost of one run between two measurements of R [CPU s]."""
    return Cost(cpu_s=cpu_s, wall_s=wall_s, x_r=2 * cpu_s / (before_s + after_s))


def of_runs(costs: Sequence[Cost]) -> Cost:
    """Medians of repeated runs, each quantity for itself."""
    return Cost(
        cpu_s=median(cost.cpu_s for cost in costs),
        wall_s=median(cost.wall_s for cost in costs),
        x_r=median(cost.x_r for cost in costs),
        n_runs=len(costs),
    )


def of_sum(costs: Iterable[Cost]) -> Cost:
    """One step after the other; the number of runs is that of the step that ran least often."""
    parts = list(costs)
    return Cost(
        cpu_s=sum(part.cpu_s for part in parts),
        wall_s=sum(part.wall_s for part in parts),
        x_r=sum(part.x_r for part in parts),
        n_runs=min((part.n_runs for part in parts), default=0),
    )


def ratio(peer: Cost, ours: Cost) -> float | None:
    """Peer's CPU over ours, both in units of the R around them, so that load between the two cancels."""
    return peer.x_r / ours.x_r if ours.x_r > 0 else None


def area_factor(shape: tuple[int, int], side: int) -> float:
    """How many times a square tile of this side goes into a frame (ny, nx)."""
    if side <= 0:
        raise ConfigurationError("a tile has a positive side", side=side)
    return shape[0] * shape[1] / side**2


def reference_cpu_s(image: Float32) -> float:
    """R: CPU seconds of ``sep.Background(bw=128, bh=128)`` on this frame, now."""
    begin = time.process_time()
    sep.Background(image, bw=128, bh=128)
    return time.process_time() - begin


def measured(work: Callable[[], tuple[float, float]], image: Float32, repeats: int) -> Cost:
    """Median cost of ``work``, which does it once and returns (CPU s, wall s), with R around every run."""
    costs = []
    for _ in range(repeats):
        before_s = reference_cpu_s(image)
        cpu_s, wall_s = work()
        costs.append(from_run(cpu_s, wall_s, before_s, reference_cpu_s(image)))
    return of_runs(costs)


def run_tool(arguments: Sequence[str], folder: Path, timeout_s: float = TIMEOUT_S) -> tuple[float, float]:
    """(CPU s, wall s) of a command run in ``folder``, the reading and writing of its files included.

    Raises :class:`PeerFailedError` with the command's last lines where it fails.
    """
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    try:
        done = subprocess.run(
            [*arguments], cwd=folder, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerFailedError(str(error)) from error
    wall_s, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        reason = " / ".join(lines[-_LAST_LINES:]) or f"exit status {done.returncode}"
        raise PeerFailedError(f"{arguments[0]}: {reason}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall_s
