"""The process that tries the inputs of one target; its parent (watch.py) watches it.

``python -m tests.fuzz.child '<json of Orders>'``; one JSON object a line on standard output.
"""

import contextlib
import faulthandler
import gc
import json
import logging
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, Final, TextIO

from tests.fuzz.finds import keep, kept, place, shrink
from tests.fuzz.mailbox import MAX_INPUT_BYTES, Mailbox
from tests.fuzz.target import Target
from tests.fuzz.targets import load

MEMORY_BYTES: Final = 1 << 30
"""Address space that inputs may take on top of what the target has when it is ready."""
SHRINK_S: Final = 2.0
TELL_S: Final = 0.5
PAGE_BYTES: Final = resource.getpagesize()
DESCRIPTORS: Final = 4
"""More open ones at the end than half-way are a leak."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What the parent wants."""

    target: str
    spec: str
    replay: str
    """What starts a command that tries one input again."""
    seed: int
    seconds: float
    mailbox: str
    finds: str
    regressions: str
    """Folder of inputs to try first, empty for none."""


class Run:
    """Tries inputs until the time is up; a :class:`tests.fuzz.target.Session`."""

    def __init__(self, orders: Orders, target: Target, out: TextIO) -> None:
        self.random = Random(orders.seed)
        self._orders, self._target, self._out = orders, target, out
        self._mailbox = Mailbox(Path(orders.mailbox))
        self._until = time.monotonic() + orders.seconds
        self._told = 0.0
        self._n = 0
        self._answers: Counter[str] = Counter()
        self._found: dict[str, int] = {}
        self._memory: list[tuple[float, int, int]] = []

    def is_over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self._until

    def attempt(self, data: bytes) -> None:
        """Try one input: watched, counted, kept if it fails."""
        data = data[:MAX_INPUT_BYTES]
        self._n += 1
        error = self._try(data)
        if error is not None:
            self._answers["crash"] += 1
            self._take(data, error)
        if time.monotonic() - self._told > TELL_S:
            self._tell_progress()

    def finish(self) -> None:
        """The last figures, with what has leaked."""
        gc.collect()
        self._tell_progress()
        self._tell("end", leak_bytes=self._grown(1), descriptors=self._grown(2))

    def _try(self, data: bytes, count: bool = True) -> BaseException | None:
        self._mailbox.begin(self._n, data)
        try:
            answer = self._target.check(data)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return error
        finally:
            self._mailbox.end(self._n)
        if count:
            self._answers[answer] += 1
        return None

    def _take(self, data: bytes, error: BaseException) -> None:
        """Keep the input, made smaller, unless a smaller one that fails alike is there."""
        where = place(error)
        if len(self._found) > 100 or (where in self._found and self._found[where] <= len(data)):
            return
        if where not in self._found:
            until = time.monotonic() + SHRINK_S
            data = shrink(data, lambda d: self._fails_at(d, where), lambda: time.monotonic() > until)
        self._found[where] = len(data)
        text = "".join(traceback.format_exception(error))
        path = keep(
            Path(self._orders.finds), self._orders.target, data, self._orders.replay, f"{where}\n\n{text[-6000:]}"
        )
        self._tell("find", find={"kind": "crash", "where": where, "detail": text[-1500:], "file": str(path)})

    def _fails_at(self, data: bytes, where: str) -> bool:
        error = self._try(data, count=False)
        return error is not None and place(error) == where

    def _tell_progress(self) -> None:
        self._told = time.monotonic()
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - twice a second
            resident = int(file.read().split()[1]) * PAGE_BYTES
        self._memory.append((self._told, resident, len(os.listdir("/proc/self/fd"))))  # noqa: PTH208
        self._tell("progress", n=self._n, answers=dict(self._answers))

    def _grown(self, column: int) -> int:
        """By how much memory or descriptors have grown from the middle of the run to its end; medians of a few."""
        if len(self._memory) < 8:
            return 0
        values = [sample[column] for sample in self._memory]
        few, half = max(len(values) // 10, 1), len(values) // 2
        return int(median(values[-few:]) - median(values[half : half + few]))

    def _tell(self, event: str, **content: Any) -> None:
        print(json.dumps({"event": event} | content), file=self._out, flush=True)


def limit_memory(more_bytes: int) -> None:
    """No more address space than now and ``more_bytes``: a bomb is a MemoryError here, not the machine's end."""
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123
        now = int(file.read().split()[0]) * PAGE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (now + more_bytes, now + more_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def make_target(spec: str, scratch: Path) -> Target:
    """The target, ready; silent as far as the product's logs and warnings go."""
    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    warnings.simplefilter("ignore")
    return load(spec)(scratch)


def main(orders: Orders) -> None:
    """Try the kept inputs, then new ones."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    faulthandler.enable()
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-", dir=_fast_folder()))
    try:
        target = make_target(orders.spec, scratch)
        limit_memory(MEMORY_BYTES)
        run = Run(orders, target, out)
        if orders.regressions:
            for path in kept(Path(orders.regressions), orders.target):
                run.attempt(path.read_bytes())
        target.drive(run)
        run.finish()
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(scratch)


def _fast_folder() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


if __name__ == "__main__":
    main(Orders(**json.loads(sys.argv[1])))
