"""The log on Redis Streams: one stream a partition, no consumer groups (they keep neither order nor affinity).

The server must run with ``appendonly yes`` and ``maxmemory-policy noeviction``. With ``appendfsync everysec`` a killed
server loses nothing, a machine that loses power at most the last second.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal, Self

from core.errors import ConfigurationError
from service.access import NOBODY, Access
from service.log.contract import Message, Record, Retention
from service.log.redis_scripts import APPEND, FIRST_AT, STORE_OFFSETS, TRIM
from service.log.redis_wire import Client, Topics, connect, decode_entries, key, read_streams, unavailable
from service.log.redis_worker import RedisWorkerLog

APPEND_BYTES: Final = 16 << 20
"""Records appended in one script call: a longer one would keep the server from its other clients."""


class RedisLog:
    """A log on one Redis or Valkey server.

    Parameters
    ----------
    url : ``redis://host:port``, ``rediss://host:port`` (TLS) or ``unix:///path``.
    access : login and authority.
    timeout_s : how long to wait for a reply before it counts as lost.
    lease_s : a worker silent for this long loses its partitions.
    """

    def __init__(self, url: str, access: Access = NOBODY, *, timeout_s: float = 10.0, lease_s: float = 5.0) -> None:
        self._timeout_s = timeout_s
        self._lease_s = lease_s
        self._connect = partial(connect, url, timeout_s, access)
        self._client = self._connect()
        self._topics = Topics(self._client)

    @property
    def client(self) -> Client:
        """Connection for questions about the server itself."""
        return self._client

    def ensure_topics(self, topics: Mapping[str, int], retention: Mapping[str, Retention] | None = None) -> None:
        """Create missing topics; refuse another number of partitions. Old records go by :meth:`trim` only."""
        for topic, partitions in topics.items():
            with unavailable("create a topic"):
                self._client.hsetnx(key("topics"), topic, str(partitions))
            if (existing := self._topics.partitions(topic)) != partitions:
                raise ConfigurationError(
                    f"topic {topic!r} has {existing} partitions, not {partitions}", code="partition_count", topic=topic
                )

    def partitions(self, topic: str) -> int:
        """Number of partitions of a topic."""
        return self._topics.partitions(topic)

    def producer(self) -> "RedisProducer":
        """A producer with its own connection."""
        return RedisProducer(self._connect())

    def join(self, group: str, topic: str, slot: int) -> RedisWorkerLog:
        """Become member ``slot`` of ``group``."""
        return RedisWorkerLog(
            self._connect(),
            group,
            topic,
            slot,
            self.partitions(topic),
            timeout_s=self._timeout_s,
            lease_s=self._lease_s,
        )

    def reader(
        self, topic: str, *, name: str | None = None, start: Literal["earliest", "latest"] = "earliest"
    ) -> "RedisReader":
        """A reader of all partitions of a topic."""
        return RedisReader(self._connect(), topic, self.partitions(topic), name, start)

    def trim(self, topic: str, max_bytes: int, sinks: Iterable[str]) -> int:
        """Drop the oldest records above ``max_bytes``, each partition in proportion to what it holds."""
        sizes = self._sizes(topic)
        if (held := sum(sizes)) <= max_bytes:
            return 0
        with unavailable("trim"):
            stored = [_offsets(self._client, sink, topic) for sink in sinks]
            dropped = 0
            for partition, size in enumerate(sizes):
                limit = min((offsets.get(partition, 0) for offsets in stored), default=(1 << 53))
                keep = size * max_bytes // held
                dropped += int(self._client.register_script(TRIM)(args=[f"{topic}:{partition}", keep, limit]))
        return dropped

    def size_bytes(self, topic: str) -> int:
        """Bytes of keys and values held."""
        return sum(self._sizes(topic))

    def server_time_s(self) -> float | None:
        """TIME of the server."""
        with unavailable("ask for the time"):
            seconds, microseconds = self._client.time()
        return float(seconds) + float(microseconds) / 1e6

    def ping(self) -> None:
        """Raise LogUnavailable if the server does not answer."""
        with unavailable("ping"):
            self._client.ping()

    def close(self) -> None:
        """Release connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _sizes(self, topic: str) -> list[int]:
        names = [f"{topic}:{partition}" for partition in range(self.partitions(topic))]
        with unavailable("ask for sizes"):
            total: Any = self._client.hmget(key("bytes"), names)
            trimmed: Any = self._client.hmget(key("trimmed"), names)
        return [int(a or 0) - int(b or 0) for a, b in zip(total, trimmed, strict=True)]


def _offsets(client: Any, name: str, topic: str) -> dict[int, int]:
    """Partition → next offset stored under a name."""
    return {int(partition): int(offset) for partition, offset in client.hgetall(key("offsets", name, topic)).items()}


class RedisProducer:
    """At-least-once producer."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._topics = Topics(self._client)
        self._script = self._client.register_script(APPEND)

    def append(self, records: Sequence[Record]) -> None:
        """Append; durable on return."""
        for batch in _batches(records):
            with unavailable("append"):
                self._script(args=self._topics.arguments(batch))

    def close(self) -> None:
        """Release connections."""
        self._client.close()


def _batches(records: Sequence[Record]) -> Iterator[list[Record]]:
    """Runs of records of about APPEND_BYTES."""
    batch: list[Record] = []
    size = 0
    for record in records:
        batch.append(record)
        size += len(record.value)
        if size >= APPEND_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class RedisReader:
    """Plain reader of one topic. What is in a stream is committed, so there is nothing to filter."""

    def __init__(self, client: Client, topic: str, partitions: int, name: str | None, start: str) -> None:
        self._client = client
        self._topic = topic
        self._partitions = partitions
        self._name = name
        self._store = self._client.register_script(STORE_OFFSETS)
        self._first_at = self._client.register_script(FIRST_AT)
        stored = self.committed() if name else {}
        first = {p: bounds[start == "latest"] for p, bounds in self.bounds().items()}
        self._positions = first | stored
        self._turn = 0

    def poll(self, timeout_s: float, max_messages: int = 500) -> list[Message]:
        """Next messages; partitions take turns to be first."""
        count = max(1, max_messages // self._partitions)
        found = read_streams(self._client, self._topic, self._positions, timeout_s, count)
        self._turn += 1
        messages: list[Message] = []
        for partition in sorted(found, key=lambda p: (p + self._turn) % self._partitions):
            room = max_messages - len(messages)
            messages += decode_entries(self._topic, partition, found[partition][:room])
        for message in messages:
            self._positions[message.partition] = message.offset + 1
        return messages

    def commit(self, offsets: Mapping[int, int] | None = None) -> None:
        """Store offsets under this reader's name."""
        if self._name is None:
            raise ConfigurationError("a reader without a name has nowhere to commit", code="anonymous_reader")
        stored = self._positions if offsets is None else offsets
        if stored:
            with unavailable("store offsets"):
                self._store(
                    keys=[key("offsets", self._name, self._topic)],
                    args=[number for partition_offset in stored.items() for number in partition_offset],
                )

    def committed(self) -> dict[int, int]:
        """Stored offsets."""
        if self._name is None:
            return {}
        with unavailable("read offsets"):
            return _offsets(self._client, self._name, self._topic)

    def seek(self, offsets: Mapping[int, int]) -> None:
        """Go on at these offsets."""
        self._positions |= offsets

    def bounds(self) -> dict[int, tuple[int, int]]:
        """Oldest offset held and next offset to be appended."""
        names = [f"{self._topic}:{partition}" for partition in range(self._partitions)]
        with unavailable("ask for bounds"):
            begins: Any = self._client.hmget(key("begins"), names)
            ends: Any = self._client.hmget(key("ends"), names)
        return {p: (int(b or 0), int(e or 0)) for p, (b, e) in enumerate(zip(begins, ends, strict=True))}

    def offsets_at(self, timestamp_ms: int) -> dict[int, int]:
        """First offset at or after a time, else the end."""
        with unavailable("ask for offsets"):
            return {p: int(self._first_at(args=[f"{self._topic}:{p}", timestamp_ms])) for p in range(self._partitions)}

    def close(self) -> None:
        """Release connections."""
        self._client.close()
