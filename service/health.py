"""Whether a process is alive and ready, without asking any server."""

import threading

from service.clock import Clock


class Health:
    """Alive: every loop turned lately. Ready: the role said so. Written by the loops, read by the HTTP thread."""

    def __init__(self, clock: Clock, *, max_turn_s: float = 60.0) -> None:
        self._clock = clock
        self._max_turn_s = max_turn_s
        self._lock = threading.Lock()
        self._turned_s = {"": clock.monotonic_s()}
        self._is_ready = False

    def turn(self, loop: str = "") -> None:
        """A loop has come round; the first named loop replaces the process's own."""
        with self._lock:
            if loop:
                self._turned_s.pop("", None)
            self._turned_s[loop] = self._clock.monotonic_s()

    def set_ready(self, is_ready: bool) -> None:
        """Say whether work can be taken."""
        with self._lock:
            self._is_ready = is_ready

    @property
    def age_s(self) -> float:
        """Seconds since the slowest loop came round."""
        with self._lock:
            return self._clock.monotonic_s() - min(self._turned_s.values())

    @property
    def is_alive(self) -> bool:
        """Whether all loops still turn."""
        return self.age_s < self._max_turn_s

    @property
    def is_ready(self) -> bool:
        """Whether work can be taken."""
        with self._lock:
            return self._is_ready
