"""Packed arrays a process holds, the least recently used ones dropped above a number of bytes."""

from collections import OrderedDict
from threading import Lock

from service.storage.codec import PackedArray


class MemoryCache:
    """Byte-bounded cache of packed arrays by name; safe between threads."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._arrays: OrderedDict[str, PackedArray] = OrderedDict()
        self._nbytes = 0
        self._lock = Lock()

    def get(self, name: str) -> PackedArray | None:
        """The array, now the most recently used."""
        with self._lock:
            packed = self._arrays.get(name)
            if packed is not None:
                self._arrays.move_to_end(name)
            return packed

    def put(self, name: str, packed: PackedArray) -> None:
        """Keep an array; one larger than everything is not kept."""
        with self._lock:
            old = self._arrays.pop(name, None)
            if old is not None:
                self._nbytes -= old.nbytes
            if packed.nbytes > self._max_bytes:
                return
            self._arrays[name] = packed
            self._nbytes += packed.nbytes
            while self._nbytes > self._max_bytes:
                _, dropped = self._arrays.popitem(last=False)
                self._nbytes -= dropped.nbytes

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._nbytes
