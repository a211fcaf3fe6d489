"""Targets with a fault each, which the fuzzer must find."""

import os
import signal
import time
from pathlib import Path
from random import Random

from tests.fuzz.target import ACCEPTED, Target


class Sound(Target):
    """Without a fault: half of its inputs are refused."""

    def make(self, random: Random) -> bytes:
        """Eight letters."""
        return bytes(random.randrange(97, 123) for _ in range(8))

    def check(self, data: bytes) -> str:
        """Refuse those with an a to m in front."""
        return ACCEPTED if data[0] >= ord("n") else "too_early"


class Raises(Sound):
    """An error nobody allowed, for an input with a z."""

    def check(self, data: bytes) -> str:
        """Fail."""
        if b"z" in data:
            raise KeyError("z")
        return super().check(data)


class Dies(Sound):
    """A signal, for inputs with zz."""

    def check(self, data: bytes) -> str:
        """Fail."""
        if b"zz" in data:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().check(data)


class Hangs(Sound):
    """No end, for inputs with zz."""

    def check(self, data: bytes) -> str:
        """Fail."""
        while b"zz" in data:
            time.sleep(0.01)
        return super().check(data)


class Leaks(Sound):
    """Keeps memory, and descriptors, of each input."""

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self._kept: list[bytearray] = []

    def check(self, data: bytes) -> str:
        """Fail."""
        time.sleep(0.005)
        if len(self._kept) < 3000:
            self._kept.append(bytearray(b"x" * 100_000))
            os.open("/dev/null", os.O_RDONLY) if len(self._kept) % 20 == 0 else None
        return super().check(data)


class Bomb(Sound):
    """Asks for more memory than there may be, for an input with a z."""

    def check(self, data: bytes) -> str:
        """Fail."""
        return str(len(bytes(8 << 30))) if b"z" in data else super().check(data)
