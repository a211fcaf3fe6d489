"""Which lines of the pipeline allocate much: tracemalloc (NumPy reports to it), looked at after every line."""

import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

PACKAGES: Final = ("core.", "alerts.", "service.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """Memory that one line took at its peak, freed again or not [bytes]."""

    place: str
    nbytes: int


def allocations(work: Callable[[], Any], least_bytes: int, packages: tuple[str, ...] = PACKAGES) -> list[Allocation]:
    """Lines of our packages that took at least ``least_bytes`` while ``work`` ran, the largest first.

    What a library allocates is the line's that called it. Several arrays of one line count together, so a line may be
    named though each is small, but none that is large is missed.
    """
    watch = _Watch(packages)
    tracemalloc.start()
    previous = sys.gettrace()
    try:
        sys.settrace(watch.trace)
        work()
    finally:
        sys.settrace(previous)
        tracemalloc.stop()
    found = [Allocation(place=place, nbytes=n) for place, n in watch.most.items() if n >= least_bytes]
    return sorted(found, key=lambda one: -one.nbytes)


class _Watch:
    """Holds the last line seen and the most that each took."""

    def __init__(self, packages: tuple[str, ...]) -> None:
        self.most: dict[str, int] = {}
        self._packages = packages
        self._place = "before the first line"
        self._held = 0

    def trace(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        """Called by the interpreter at every line of ours (sys.settrace)."""
        del argument
        if not frame.f_globals.get("__name__", "").startswith(self._packages):
            return None
        now, peak = tracemalloc.get_traced_memory()
        self.most[self._place] = max(self.most.get(self._place, 0), peak - self._held)
        tracemalloc.reset_peak()
        # a function that returns goes on in its caller's line
        place = frame.f_back if event == "return" and frame.f_back is not None else frame
        self._place = f"{place.f_globals.get('__name__', '?')}:{place.f_lineno} ({place.f_code.co_name})"
        self._held = now
        return self.trace
