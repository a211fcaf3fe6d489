"""A log, a clock and a child that live in the test's own memory."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from core.errors import Outcome
from service.answers import Answer, Job, encode_answer
from service.child import FromChild
from service.ipc import Message as ChildMessage
from service.log.contract import Checkpoint, Message, Record
from service.records import Prepare, Readout, pack
from tests.support.service.builders import T0


class FakeClock:
    """Stands still until told."""

    def __init__(self, tai_s: float = T0 + 0.2) -> None:
        self.now = tai_s

    def tai_s(self) -> float:
        """TAI."""
        return self.now

    def monotonic_s(self) -> float:
        """The same clock, another zero."""
        return self.now - T0 + 1000.0


class FakeLog:
    """One worker's view of a log of two partitions."""

    def __init__(self) -> None:
        self.epochs: dict[int, int] = {0: 1, 1: 1}
        self.checkpoints: dict[int, Checkpoint] = {}
        self.commits: list[tuple[int, Checkpoint, list[Record]]] = []
        self.appended: list[Record] = []
        self.errors: deque[Exception] = deque()
        self._arrived: list[Message] = []
        self._next = 0

    def put(self, record: Prepare | Readout | bytes, partition: int = 0) -> Message:
        """Let a record arrive."""
        value = record if isinstance(record, bytes) else pack(record)
        message = Message("work", partition, self._next, b"", value, {}, 0, self.epochs[partition])
        self._next += 1
        self._arrived.append(message)
        return message

    def assignment(self) -> Mapping[int, int]:
        """Partition → epoch."""
        return self.epochs

    def poll(self, timeout_s: float) -> list[Message]:
        """Everything that arrived."""
        arrived, self._arrived = self._arrived, []
        return arrived

    def checkpoint(self, partition: int) -> Checkpoint | None:
        """As committed."""
        return self.checkpoints.get(partition)

    def commit(
        self, partition: int, checkpoint: Checkpoint, records: Sequence[Record], *, epoch: int | None = None
    ) -> None:
        """Keep it, or raise what the test wants."""
        if self.errors:
            raise self.errors.popleft()
        self.checkpoints[partition] = checkpoint
        self.commits.append((partition, checkpoint, list(records)))

    def append(self, records: Sequence[Record]) -> None:
        """As a producer."""
        self.appended += records

    def close(self) -> None:
        """Nothing to close."""


class FakeChild:
    """Records what it is asked; the test answers."""

    def __init__(self) -> None:
        self.serial = 0
        self.pid: int | None = None
        self.is_warm = False
        self.jobs: list[Job] = []
        self.hints: list[Prepare] = []
        self.said: deque[FromChild] = deque()
        self.n_kills = 0

    def start(self) -> None:
        """Come up and be warm at once."""
        self.serial += 1
        self.pid = 1
        self.say({"op": "ready", "warm_up_s": 0.0})

    def kill(self) -> None:
        """Go down."""
        self.pid = None
        self.is_warm = False
        self.n_kills += 1

    def prepare(self, work: Prepare) -> None:
        """Take a hint."""
        self.hints.append(work)

    def process(self, job: Job) -> None:
        """Take a job."""
        self.jobs.append(job)

    def say(self, message: ChildMessage | None, blobs: list[memoryview] | None = None) -> None:
        """Something for the worker's inbox."""
        self.said.append(FromChild(serial=self.serial, message=message, blobs=blobs or []))

    def answer(self, n_alerts: int = 2, **changes: object) -> None:
        """Answer the last job."""
        ids = np.arange(1, n_alerts + 1, dtype=np.int64)
        answer = Answer(outcome=Outcome.ALERTS, alert_ids=ids, alerts=tuple(b"a%d" % i for i in ids.tolist()))
        message, blobs = encode_answer(self.jobs[-1].generation, replace(answer, **changes), 0.5, 0.4)  # type: ignore[arg-type]
        self.say(message, [memoryview(blob) for blob in blobs])

    # the worker reads its inbox through these two

    def empty(self) -> bool:
        """Whether nothing was said."""
        return not self.said

    def get(self) -> FromChild:
        """What was said first."""
        return self.said.popleft()


class FakeAttempts:
    """Counts in memory."""

    def __init__(self) -> None:
        self.counts: dict[tuple[int, int], int] = {}
        self.is_done: set[tuple[int, int]] = set()

    def start(self, visit: int, detector: int) -> tuple[int, bool]:
        """Count up."""
        self.counts[visit, detector] = self.counts.get((visit, detector), 0) + 1
        return self.counts[visit, detector], (visit, detector) in self.is_done

    def forgive(self, visit: int, detector: int) -> None:
        """Count down."""
        self.counts[visit, detector] -= 1

    def done(self, visit: int, detector: int) -> None:
        """Remember."""
        self.is_done.add((visit, detector))
