"""Reusable buffers, and the threads that share a stage's long loops.

No stage allocates full frames per visit: the first touch of new memory is dear.
"""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

T = TypeVar("T")


class Workspace:
    """Named scratch arrays of one compute process, made on first use and kept; its threads.

    A name stands for one role in the pipeline (``"science.image"``); asking again with the same name, shape and dtype
    returns the same memory with whatever it held. Stages document the names they use; results that outlive the
    visit are copied out.
    """

    def __init__(self, n_threads: int = 1) -> None:
        self.n_threads = n_threads
        self.helper_cpu_s = 0.0
        """CPU that threads other than the caller's have spent in :meth:`share`."""
        self._arrays: dict[str, NDArray[np.generic]] = {}
        self._helpers: ThreadPoolExecutor | None = None

    def array(self, name: str, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[np.generic]:
        """Return the buffer ``name``; its content is undefined."""
        wanted = np.dtype(dtype)
        found = self._arrays.get(name)
        if found is None or found.shape != shape or found.dtype != wanted:
            found = np.empty(shape, wanted)
            self._arrays[name] = found
        return found

    @property
    def buffers(self) -> Mapping[str, NDArray[np.generic]]:
        """All buffers by name: for whoever watches or restores them, not for stages."""
        return MappingProxyType(self._arrays)

    @property
    def nbytes(self) -> int:
        """Bytes held by all buffers."""
        return sum(a.nbytes for a in self._arrays.values())

    def share(self, function: Callable[[T], object], parts: Sequence[T]) -> None:
        """Call ``function`` on every part, on as many threads as there are; the parts write to places of their own.

        Gains where the function leaves the interpreter: kernels, FFTs, BLAS. Buffers are asked for before, not inside.
        """
        if self.n_threads == 1 or len(parts) == 1:
            for part in parts:
                function(part)
            return
        if self._helpers is None:
            self._helpers = ThreadPoolExecutor(self.n_threads - 1, thread_name_prefix="stage")
        waiting = [self._helpers.submit(_timed, function, part) for part in parts[1:]]
        try:
            function(parts[0])
        finally:
            # never return while another thread still writes
            self.helper_cpu_s += sum(future.result() for future in waiting)


def _timed(function: Callable[[T], object], part: T) -> float:
    begin = time.thread_time()
    function(part)
    return time.thread_time() - begin


def bands(n: int, n_bands: int) -> list[tuple[int, int]]:
    """Begin and end of ``n_bands`` nearly equal stretches of ``range(n)``; fewer where ``n`` is less."""
    edges = np.linspace(0, n, min(n_bands, max(n, 1)) + 1).round().astype(int)
    return [(int(a), int(b)) for a, b in itertools.pairwise(edges)]
