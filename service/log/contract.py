"""The log: a partitioned, append-only, durable sequence of records, and what every adapter of it promises.

::

    with open_log(url) as log:                                # service.log.open_log
        log.ensure_topics({"work": 8, "alerts": 8, "results": 8})
        log.producer().append([Record("work", key=b"25", value=event)])          # at least once
        worker = log.join("workers", "work", slot=0)          # one member of a group, by its slot
        for message in worker.poll(0.2):                      # ahead of the checkpoint, in order within a partition
            before = worker.checkpoint(message.partition)
            after = before.advance(message, visit=visit, detector=detector)
            worker.commit(message.partition, after, records, epoch=message.epoch)   # all of it or nothing

Promises, held by one contract suite over all adapters:

- Within a partition, messages come in the order in which they were appended.
- A commit makes all its records visible together with the checkpoint, or none of it, whatever dies when.
- One worker at a time can commit to a partition: a worker that lost it, however late it wakes, gets :class:`Fenced`.
- What was polled and not committed is polled again by the next owner of the partition, from the checkpoint.
- A reader sees committed records only, each once.

Nothing here is asynchronous. An instance is used by one thread at a time; :meth:`WorkerLog.poll` is called at least
every few seconds, also while a job runs elsewhere.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, Protocol, Self

import msgpack

from core.errors import RejectedInputError, Sub60Error, TransientError
from service.wire import unpack_msgpack

CHECKPOINT_FORMAT: Final = 1
CHECKPOINT_FORMATS_READ: Final = (CHECKPOINT_FORMAT - 1, CHECKPOINT_FORMAT)
"""Of the previous release and ours, as of all records; see docs/upgrades.md."""
MAX_CHECKPOINT_BYTES: Final = 3000
"""A packed checkpoint fits Kafka's offset metadata (4096 characters of base64) with room to spare."""
RECENT_KEPT: Final = 64
"""Visit-detectors remembered in a partition's checkpoint."""
MAX_STATE_BYTES: Final = 1500
MAX_VALUE_BYTES: Final = 15 << 20
"""Largest value of a record; the topics take 16 MiB with key, headers and framing."""


class Fenced(Sub60Error):  # noqa: N818 - the word the design and both logs use
    """The partition belongs to somebody else by now: drop the job and its result, go on with what is still ours."""

    code = "fenced"


class IdentityTaken(Fenced):
    """Another process runs under our slot: nothing is ours any more; exit."""

    code = "identity_taken"


class LogUnavailable(TransientError):  # noqa: N818 - names a state
    """The log's server did not answer or refused; nothing was changed unless said otherwise."""

    code = "log_unavailable"


class CommitUnknown(LogUnavailable):
    """A commit's outcome could not be learned: its reply was lost and the log cannot be asked.

    The partition is given up by this worker; its next owner starts at the checkpoint, which has the answer.
    """

    code = "commit_unknown"


@dataclass(frozen=True, slots=True)
class Record:
    """One thing to append. ``partition`` None: chosen by CRC-32 of the key, alike in all adapters."""

    topic: str
    key: bytes
    value: bytes
    partition: int | None = None
    headers: Mapping[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.value) > MAX_VALUE_BYTES:
            raise ValueError(f"record of {len(self.value)} bytes for {self.topic!r} is too large for the log")


@dataclass(frozen=True, slots=True)
class Message:
    """One record as read back.

    ``offset`` counts within the partition, rising, possibly with gaps. ``timestamp_ms`` is the log server's UTC clock
    [unix ms]. ``epoch`` is the worker's tenure of the partition (0 for a plain reader): a message of an older tenure
    than :meth:`WorkerLog.assignment` shows is to be dropped, it comes again.
    """

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    headers: Mapping[str, bytes]
    timestamp_ms: int
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a partition stands: one record, replaced by each commit.

    ``offset``: the next message to do; everything below is done. ``recent``: (visit, detector) of the last commits,
    oldest first, at most :data:`RECENT_KEPT`. ``state``: free bytes of the worker (at most :data:`MAX_STATE_BYTES`).
    """

    offset: int = 0
    recent: tuple[tuple[int, int], ...] = ()
    state: bytes = b""

    def advance(self, message: Message, *, visit: int | None = None, detector: int = 0) -> Self:
        """The checkpoint after ``message``, remembering its visit-detector if one is given; keeps ``state``."""
        recent = self.recent if visit is None else (*self.recent, (visit, detector))[-RECENT_KEPT:]
        return replace(self, offset=message.offset + 1, recent=recent)

    def has(self, visit: int, detector: int) -> bool:
        """Whether this visit-detector is among the recent ones: its readout is a duplicate."""
        return (visit, detector) in self.recent

    def pack(self) -> bytes:
        """Msgpack ``[format, offset, [visit, detector, visit, detector, …], state]``."""
        if len(self.recent) > RECENT_KEPT or len(self.state) > MAX_STATE_BYTES:
            raise ValueError(f"checkpoint of {len(self.recent)} visits and {len(self.state)} state bytes is too large")
        flat = [number for pair in self.recent for number in pair]
        packed: bytes = msgpack.packb([CHECKPOINT_FORMAT, self.offset, flat, self.state])
        if len(packed) > MAX_CHECKPOINT_BYTES:
            raise ValueError(f"checkpoint of {len(packed)} bytes is too large")
        return packed

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        """Inverse of :meth:`pack`; refuses a format it does not know."""
        version, *rest = unpack_msgpack(packed)
        if version not in CHECKPOINT_FORMATS_READ:
            text = f"a checkpoint of format {version}; this release reads {CHECKPOINT_FORMATS_READ}"
            raise RejectedInputError(text, code="bad_checkpoint", format=version)
        offset, flat, state = rest
        return cls(offset=offset, recent=tuple(zip(flat[::2], flat[1::2], strict=True)), state=state)


@dataclass(frozen=True, slots=True)
class Retention:
    """How long a topic keeps its records. None: for ever, or as many as there are."""

    days: float | None = None
    partition_bytes: int | None = None


class Producer(Protocol):
    """Appends outside any commit: at least once."""

    def append(self, records: Sequence[Record]) -> None:
        """Append; returns when the log has them all. Order is kept per partition.

        Raises :class:`LogUnavailable` when that is not known for each of them; appending again may then repeat some.
        """

    def close(self) -> None:
        """Release connections."""


class WorkerLog(Protocol):
    """One member of a group that shares out a topic's partitions; commits to those it owns."""

    def assignment(self) -> Mapping[int, int]:
        """Partitions owned now → epoch of this tenure. Changes only inside :meth:`poll` and :meth:`commit`."""

    def poll(self, timeout_s: float) -> list[Message]:
        """Messages of owned partitions not yet returned in this tenure, in order within each; empty after the timeout.

        Also takes up and gives up partitions, so call it regularly. Raises :class:`IdentityTaken` when another process
        has joined under our slot, :class:`LogUnavailable` when the server is away (call again).
        """

    def checkpoint(self, partition: int) -> Checkpoint | None:
        """Checkpoint of an owned partition as of our last commit, or as found when it was taken up; None: never any."""

    def commit(
        self, partition: int, checkpoint: Checkpoint, records: Sequence[Record], *, epoch: int | None = None
    ) -> None:
        """Append all ``records`` and replace the partition's checkpoint, or do nothing at all.

        ``checkpoint.offset`` must be above the stored one, or equal to it if there are no records (a note in
        ``state`` only). ``epoch``, if given, must be the current tenure's. A lost reply is resolved here: over a new
        connection the stored checkpoint tells whether the commit happened; it is never sent twice.

        Raises
        ------
        Fenced : the partition is not ours any more, or its checkpoint is past this one; nothing was changed.
        IdentityTaken : the same, and the slot is lost.
        LogUnavailable : nothing was changed; try again.
        CommitUnknown : the log cannot be asked; the partition is given up.
        """

    def close(self) -> None:
        """Leave the group. Partitions are free at once; on Kafka (static membership) after the session time-out."""


class Reader(Protocol):
    """Plain reader of all partitions of one topic: committed records, in order within a partition."""

    def poll(self, timeout_s: float, max_messages: int = 500) -> list[Message]:
        """Next messages; empty after the timeout. Raises :class:`LogUnavailable` (call again)."""

    def commit(self, offsets: Mapping[int, int] | None = None) -> None:
        """Store partition → next offset under this reader's name; default: all that poll has returned."""

    def committed(self) -> dict[int, int]:
        """Partition → stored next offset; partitions never committed are absent."""

    def seek(self, offsets: Mapping[int, int]) -> None:
        """Go on at these offsets; what was stored stays as it is until the next commit."""

    def bounds(self) -> dict[int, tuple[int, int]]:
        """Partition → (oldest offset held, next offset to be appended)."""

    def offsets_at(self, timestamp_ms: int) -> dict[int, int]:
        """Partition → offset of the first record held with this ``Message.timestamp_ms`` or a later one, else the end.

        Read on from there to see it: where transactions take offsets too, it may stand a little before the record.
        Where the server's clock was set back, later records may have earlier times.
        """

    def close(self) -> None:
        """Release connections."""


class Log(Protocol):
    """A log server, from which the parts above are had."""

    def ensure_topics(self, topics: Mapping[str, int], retention: Mapping[str, Retention] | None = None) -> None:
        """Create missing topics with these numbers of partitions; another number than an existing topic's is refused.

        ``retention`` is set on those that are created, where the server itself drops old records (Kafka).

        Raises :class:`core.errors.ConfigurationError`.
        """

    def partitions(self, topic: str) -> int:
        """Number of partitions of an existing topic; raises ConfigurationError for an unknown one."""

    def producer(self) -> Producer:
        """A producer with its own connection."""

    def join(self, group: str, topic: str, slot: int) -> WorkerLog:
        """Become member ``slot`` (stable over restarts) of ``group``; a former process of that slot is fenced."""

    def reader(
        self, topic: str, *, name: str | None = None, start: Literal["earliest", "latest"] = "earliest"
    ) -> Reader:
        """A reader; with ``name`` it starts where that name last committed, else (and at first) at ``start``."""

    def trim(self, topic: str, max_bytes: int, sinks: Iterable[str]) -> int:
        """Drop the oldest records of ``topic`` above ``max_bytes``, never one a named sink has not committed.

        Returns bytes dropped. Kafka drops by its own retention: 0.
        """

    def size_bytes(self, topic: str) -> int:
        """Bytes of keys and values held, as far as the server can say; 0 where it cannot."""

    def server_time_s(self) -> float | None:
        """The server's UTC clock now [unix s]; None where it does not tell."""

    def ping(self) -> None:
        """Raise :class:`LogUnavailable` if the server does not answer."""

    def close(self) -> None:
        """Release connections of the log itself; what was made from it is closed by its maker."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...
