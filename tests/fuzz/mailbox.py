"""The input under way, in shared memory: it survives the process that dies of it."""

import mmap
import struct
import time
from pathlib import Path
from typing import Final

MAX_INPUT_BYTES: Final = 4 << 20
_HEAD: Final = struct.Struct("<QQQ")


class Mailbox:
    """Written by the process that tries inputs, read by the one that watches it."""

    def __init__(self, path: Path) -> None:
        size = _HEAD.size + MAX_INPUT_BYTES
        with path.open("a+b") as file:
            file.truncate(size)
            self._memory = mmap.mmap(file.fileno(), size)

    def begin(self, number: int, data: bytes) -> None:
        """Input ``number`` is tried from now on."""
        self._memory[_HEAD.size : _HEAD.size + len(data)] = data
        self._memory[: _HEAD.size] = _HEAD.pack(number, time.monotonic_ns(), len(data))

    def end(self, number: int) -> None:
        """It is done."""
        self._memory[: _HEAD.size] = _HEAD.pack(number, 0, 0)

    def clear(self) -> None:
        """As before the first input."""
        self.end(0)

    @property
    def number(self) -> int:
        """Inputs begun."""
        return int(_HEAD.unpack(self._memory[: _HEAD.size])[0])

    @property
    def busy_s(self) -> float:
        """For how long the input under way has been tried; 0 between inputs."""
        started = _HEAD.unpack(self._memory[: _HEAD.size])[1]
        return (time.monotonic_ns() - started) / 1e9 if started else 0.0

    @property
    def data(self) -> bytes | None:
        """The input under way, None between inputs."""
        _, started, n_bytes = _HEAD.unpack(self._memory[: _HEAD.size])
        return self._memory[_HEAD.size : _HEAD.size + n_bytes] if started else None

    def close(self) -> None:
        """Unmap."""
        self._memory.close()
