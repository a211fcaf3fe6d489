"""How often a visit-detector was tried, and whether it was done before: one bounded Redis call a job."""

import contextlib
from collections.abc import Callable
from typing import Final, Protocol

import redis

MAX_LOCAL: Final = 4096


class Attempts(Protocol):
    """Counts attempts over all workers."""

    def start(self, visit: int, detector: int) -> tuple[int, bool]:
        """Count one attempt; how many that makes, and whether the visit-detector is already done."""

    def forgive(self, visit: int, detector: int) -> None:
        """Take one attempt back: it was given up, it did not fail."""

    def done(self, visit: int, detector: int) -> None:
        """Remember that a readout is committed."""


class RedisAttempts:
    """Attempts in the cache server; without it counted in this process, which is enough for a worker that lives on.

    Parameters
    ----------
    client : with a socket timeout of the bounded call.
    on_skip : called when the server did not answer in time.
    keep_s : how long a mark is kept; readouts older than that are not processed anyway.
    """

    def __init__(self, client: "redis.Redis[bytes]", keep_s: float, on_skip: Callable[[], object]) -> None:
        self._client = client
        self._keep_s = int(keep_s)
        self._on_skip = on_skip
        self._local: dict[tuple[int, int], int] = {}

    def start(self, visit: int, detector: int) -> tuple[int, bool]:
        """One round trip: count up, keep for a while, look for the done mark."""
        if len(self._local) >= MAX_LOCAL:
            self._local.pop(next(iter(self._local)))
        local = self._local[visit, detector] = self._local.get((visit, detector), 0) + 1
        try:
            with self._client.pipeline(transaction=False) as pipe:
                pipe.incr(self._key("attempts", visit, detector))
                pipe.expire(self._key("attempts", visit, detector), self._keep_s)
                pipe.exists(self._key("done", visit, detector))
                count, _, is_done = pipe.execute()
        except redis.RedisError:
            self._on_skip()
            return local, False
        return max(int(count), local), bool(is_done)

    def forgive(self, visit: int, detector: int) -> None:
        """Count down; a lost call only makes the count stricter."""
        self._local[visit, detector] = max(0, self._local.get((visit, detector), 0) - 1)
        with contextlib.suppress(redis.RedisError):
            self._client.decr(self._key("attempts", visit, detector))

    def done(self, visit: int, detector: int) -> None:
        """Mark as done for a while; a lost call leaves the checkpoint's own list."""
        self._local.pop((visit, detector), None)
        try:
            with self._client.pipeline(transaction=False) as pipe:
                pipe.set(self._key("done", visit, detector), b"1", ex=self._keep_s)
                pipe.delete(self._key("attempts", visit, detector))
                pipe.execute()
        except redis.RedisError:
            self._on_skip()

    @staticmethod
    def _key(kind: str, visit: int, detector: int) -> str:
        return f"sub60:{kind}:{visit}:{detector}"
