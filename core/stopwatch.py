"""Each stage timed once, in one place."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from core.contracts.results import StageTiming


@dataclass(frozen=True, slots=True)
class Clock:
    """Clocks given by the caller, seconds from any origin: wall, and CPU of the calling thread."""

    wall: Callable[[], float]
    cpu: Callable[[], float]


class Stopwatch:
    """Wall and CPU seconds of the stages of one visit, in their order."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._timings: list[StageTiming] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block as stage ``name``; a stage that raises is recorded too."""
        wall, cpu = self._clock.wall(), self._clock.cpu()
        try:
            yield
        finally:
            self._timings.append(
                StageTiming(name=name, wall_s=self._clock.wall() - wall, cpu_s=self._clock.cpu() - cpu)
            )

    @property
    def timings(self) -> tuple[StageTiming, ...]:
        """What was timed so far."""
        return tuple(self._timings)
