"""Work a worker holds: in order within a partition, earliest readout first across partitions."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace

from service.log.contract import Message
from service.records import Readout, run_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One readout and where it stands in the log."""

    message: Message
    readout: Readout
    n_retries: int = 0
    """Attempts that failed by what may pass."""
    first_tried_s: float = 0.0
    """When the first of them began (monotonic clock)."""

    @property
    def partition(self) -> int:
        """Partition of the work topic."""
        return self.message.partition

    @property
    def run(self) -> int:
        """Detector and redrive in one number: what duplicates are known by, with the visit."""
        return run_key(self.readout.detector, self.readout.redrive)


class WorkQueue:
    """Readouts by partition. The job in the child stays at the head of its partition until it is finished."""

    def __init__(self) -> None:
        self._by_partition: dict[int, deque[Work]] = {}
        self._held_until_s: dict[int, float] = {}

    def __len__(self) -> int:
        return sum(len(works) for works in self._by_partition.values())

    def add(self, work: Work) -> None:
        """Put work behind all else of its partition."""
        self._by_partition.setdefault(work.partition, deque()).append(work)

    def hold(self, partition: int, until_s: float) -> None:
        """Give out nothing of a partition for a while."""
        self._held_until_s[partition] = until_s

    def postpone(self, work: Work, first_tried_s: float, until_s: float) -> None:
        """The head failed by what may pass: it is tried again after a while."""
        works = self._by_partition.get(work.partition)
        if works and works[0] is work:
            works[0] = replace(work, n_retries=work.n_retries + 1, first_tried_s=first_tried_s)
            self.hold(work.partition, until_s)

    def next(self, now_s: float) -> Work | None:
        """The head with the earliest end of readout, redriven ones last; it stays in the queue."""
        held = self._held_until_s
        heads = [works[0] for p, works in self._by_partition.items() if works and held.get(p, now_s) <= now_s]
        return min(heads, key=_urgency, default=None)

    def finish(self, work: Work) -> None:
        """Take a head away."""
        works = self._by_partition.get(work.partition)
        if works and works[0] is work:
            works.popleft()

    def keep(self, assignment: Mapping[int, int]) -> None:
        """Drop work of partitions, or of tenures, that are no longer ours."""
        for partition, works in list(self._by_partition.items()):
            epoch = assignment.get(partition)
            if epoch is None:
                del self._by_partition[partition]
            elif works and works[0].message.epoch != epoch:
                self._by_partition[partition] = deque(work for work in works if work.message.epoch == epoch)


def _urgency(work: Work) -> tuple[bool, float]:
    return work.readout.is_late_by_intent, work.readout.readout_end_tai_s
