"""Joins a worker's group only once its child can compute.

A worker that comes back after a crash would else be given its partitions at once, and hold them idle for as long as its
child takes to warm up, while others could have done the work.
"""

import time
from collections.abc import Callable, Mapping, Sequence

from service.log.contract import Checkpoint, Message, Record, WorkerLog


class LateJoin:
    """A worker's log that is empty until ``is_warm`` says yes; then it joins, and is the log that ``join`` gave."""

    def __init__(self, join: Callable[[], WorkerLog], is_warm: Callable[[], bool]) -> None:
        self._join = join
        self._is_warm = is_warm
        self._log: WorkerLog | None = None

    @property
    def has_joined(self) -> bool:
        """Whether it is a member of its group."""
        return self._log is not None

    def assignment(self) -> Mapping[int, int]:
        """Nothing before it has joined."""
        return {} if self._log is None else self._log.assignment()

    def poll(self, timeout_s: float) -> list[Message]:
        """Join if it is time; then as the log does."""
        if self._log is None:
            if not self._is_warm():
                time.sleep(timeout_s)
                return []
            self._log = self._join()
        return self._log.poll(timeout_s)

    def checkpoint(self, partition: int) -> Checkpoint | None:
        """Of an owned partition: there is none before it has joined."""
        assert self._log is not None
        return self._log.checkpoint(partition)

    def commit(
        self, partition: int, checkpoint: Checkpoint, records: Sequence[Record], *, epoch: int | None = None
    ) -> None:
        """To an owned partition."""
        assert self._log is not None
        self._log.commit(partition, checkpoint, records, epoch=epoch)

    def close(self) -> None:
        """Leave the group, if it is in it."""
        if self._log is not None:
            self._log.close()
