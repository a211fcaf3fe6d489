"""Reusable buffers: no stage allocates full frames per visit (the first touch of new memory is dear)."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Workspace:
    """Named scratch arrays of one compute process, made on first use and kept.

    A name stands for one role in the pipeline (``"science.image"``); asking again with the same name, shape and dtype
    returns the same memory with whatever it held. Stages document the names they use; results that outlive the
    visit are copied out.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[np.generic]] = {}

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
