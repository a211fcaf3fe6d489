"""One run of the pipeline taken down stage by stage, so that each can be run again by itself on the same input."""

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import core.pipeline
from core.stopwatch import Clock, Stopwatch
from core.workspace import Workspace


@dataclass(slots=True, kw_only=True)
class Call:
    """One call that the pipeline made, with what came of it."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    result: Any = None


@dataclass(slots=True, kw_only=True)
class Recorded:
    """The calls of one stage, and the buffers that it changes as they were before it."""

    calls: list[Call] = field(default_factory=list)
    before: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)
    """Checksums of the same buffers after it."""

    def run(self) -> None:
        """Call everything again."""
        for call in self.calls:
            call.function(*call.arguments, **call.keywords)

    def call(self, name: str) -> Call:
        """The call of the stage's function of this name."""
        return next(call for call in self.calls if call.function.__name__ == name)


class Recorder(Stopwatch):
    """A stopwatch that takes down what happens in each stage it times.

    Stages change frames in place, all of them buffers of one workspace: what a stage changed is put back from a copy.
    The buffers are always in the state between two stages; :meth:`go_to` takes them to another.
    """

    def __init__(self, clock: Clock, workspace: Workspace) -> None:
        super().__init__(clock)
        self._workspace = workspace
        self._now: Recorded | None = None
        self.stages: dict[str, Recorded] = {}
        self._n_done = 0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block, and keep the buffers that it changes."""
        self._now = self.stages.setdefault(name, Recorded())
        before = {key: array.copy() for key, array in self._workspace.buffers.items()}
        with super().stage(name):
            yield
        self._now = None
        after = self._workspace.buffers
        changed = {key: old for key, old in before.items() if not _is_same(old, after[key])}
        self.stages[name].before = changed
        self.stages[name].after = {key: checksum(after[key]) for key in changed}
        self._n_done = len(self.stages)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While this lasts, the stages' functions that the pipeline calls are taken down."""
        usual = {
            name: value
            for name, value in vars(core.pipeline).items()
            if callable(value) and getattr(value, "__module__", "").startswith("core.stages.") and name.islower()
        }
        for name, function in usual.items():
            setattr(core.pipeline, name, self._recording(function))
        try:
            yield
        finally:
            for name, function in usual.items():
                setattr(core.pipeline, name, function)

    def _recording(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            result = function(*arguments, **keywords)
            if self._now is not None:
                self._now.calls.append(Call(function=function, arguments=arguments, keywords=keywords, result=result))
            return result

        return call

    def go_to(self, name: str) -> None:
        """Take the buffers to where this stage begins: later stages put back, or earlier ones run again."""
        wanted, names = self._place(name), list(self.stages)
        for later in reversed(names[wanted : self._n_done]):
            self._put_back(later)
        for earlier in names[self._n_done : wanted]:
            self.stages[earlier].run()
        self._n_done = wanted

    def run(self, name: str) -> None:
        """Run a stage from where it begins."""
        self.stages[name].run()
        self._n_done = self._place(name) + 1

    def all_done(self) -> None:
        """The pipeline has been run as a whole."""
        self._n_done = len(self.stages)

    def is_as_recorded(self, name: str) -> bool:
        """Whether the stage that has just run left the frames as it did when it was recorded."""
        buffers, after = self._workspace.buffers, self.stages[name].after
        # lists are longer than what is in them
        return all(checksum(buffers[key]) == value for key, value in after.items() if buffers[key].ndim == 2)

    def _place(self, name: str) -> int:
        return list(self.stages).index(name)

    def _put_back(self, name: str) -> None:
        buffers = self._workspace.buffers
        for key, old in self.stages[name].before.items():
            np.copyto(buffers[key], old)


def checksum(array: NDArray[np.generic]) -> int:
    """Of an array's bytes."""
    return zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data)


def _is_same(one: NDArray[np.generic], other: NDArray[np.generic]) -> bool:
    """Bytes equal; NaN equals NaN."""
    return one.shape == other.shape and bool(np.array_equal(one.view(np.uint8), other.view(np.uint8)))
