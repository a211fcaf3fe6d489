"""The log on Apache Kafka (confluent-kafka): a commit is one transaction with the offset, and the checkpoint in the
offset's metadata.

Other people's readers must set ``isolation.level=read_committed`` where their client's default is another (Java's is).
"""

import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, Self

from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from core.errors import ConfigurationError
from service.log.contract import LogUnavailable, Message, Record, Retention
from service.log.kafka_security import CREATING, Refusals, denied
from service.log.kafka_wire import (
    Settings,
    Topics,
    common_settings,
    consume,
    consumer_settings,
    decode,
    error_of,
    group_id,
    produce,
    producer_settings,
    topic_config,
    unavailable,
)
from service.log.kafka_worker import KafkaWorkerLog
from service.topics import STATUS

TOPIC_READY_S: Final = 15.0
CLOCK_KEY: Final = b"clock"


class KafkaLog:
    """A log on a Kafka cluster.

    Parameters
    ----------
    bootstrap : ``host:port,host:port…``.
    settings : further librdkafka settings for every client (security, for example).
    timeout_s : how long to wait for an answer.
    """

    def __init__(self, bootstrap: str, settings: Settings | None = None, *, timeout_s: float = 10.0) -> None:
        self._bootstrap = bootstrap
        self._settings = dict(settings or {})
        self._timeout_s = timeout_s
        refusals = Refusals("sasl.username" in self._settings)
        try:
            self._admin = AdminClient(common_settings(bootstrap, self._settings) | {"error_cb": refusals.note})
        except KafkaException as error:
            raise ConfigurationError(f"librdkafka does not take the settings: {error_of(error).str()}") from error
        self._topics = Topics(self._admin, timeout_s, refusals)

    @property
    def admin(self) -> AdminClient:
        """For questions about the cluster itself."""
        return self._admin

    def producer_settings(self) -> Settings:
        """Settings of this log's producers, for one that is to be tried."""
        return producer_settings(self._bootstrap, self._settings)

    def ensure_topics(self, topics: Mapping[str, int], retention: Mapping[str, Retention] | None = None) -> None:
        """Create missing topics with the cluster's default replication; refuse another number of partitions.

        A user that may not create needs them to be there: nothing is asked for then.
        """
        kept = retention or {}
        there = self._topics.names()
        new = [
            NewTopic(topic, partitions, replication_factor=-1, config=topic_config(kept.get(topic)))
            for topic, partitions in topics.items()
            if topic not in there
        ]
        with unavailable(CREATING):
            for created in self._admin.create_topics(new, request_timeout=self._timeout_s).values() if new else ():
                try:
                    created.result()
                except KafkaException as error:
                    if error_of(error).code() != KafkaError.TOPIC_ALREADY_EXISTS:
                        raise
        for topic, partitions in topics.items():
            if (existing := self._wait_for(topic)) != partitions:
                raise ConfigurationError(
                    f"topic {topic!r} has {existing} partitions, not {partitions}", code="partition_count", topic=topic
                )

    def _wait_for(self, topic: str) -> int:
        """Number of partitions, once the new topic is known to the broker asked."""
        give_up_s = time.monotonic() + TOPIC_READY_S
        while True:
            try:
                return self._topics.partitions(topic)
            except ConfigurationError:
                if time.monotonic() > give_up_s:
                    raise
                time.sleep(0.05)

    def partitions(self, topic: str) -> int:
        """Number of partitions of a topic."""
        return self._topics.partitions(topic)

    def producer(self) -> "KafkaProducer":
        """A producer with its own connection."""
        return KafkaProducer(producer_settings(self._bootstrap, self._settings), self._topics, self._timeout_s)

    def join(self, group: str, topic: str, slot: int) -> KafkaWorkerLog:
        """Become static member ``slot`` of ``group``."""
        self.partitions(topic)
        return KafkaWorkerLog(
            self._bootstrap, self._settings, self._topics, group, topic, slot, timeout_s=self._timeout_s
        )

    def reader(
        self, topic: str, *, name: str | None = None, start: Literal["earliest", "latest"] = "earliest"
    ) -> "KafkaReader":
        """A reader of all partitions of a topic."""
        group = group_id(name or f"anonymous-{secrets.token_hex(8)}", topic)
        settings = consumer_settings(self._bootstrap, self._settings, group) | {"enable.partition.eof": True}
        source = _Source(Consumer(settings), self._admin, topic, self.partitions(topic), self._timeout_s)
        return KafkaReader(source, name is not None, start)

    def trim(self, topic: str, max_bytes: int, sinks: Iterable[str]) -> int:
        """Nothing: the topic's own retention drops records."""
        return 0

    def size_bytes(self, topic: str) -> int:
        """Not known to a client: 0."""
        return 0

    def server_time_s(self) -> float | None:
        """Time of the broker that takes a record on the status topic; None where that topic keeps producers' times."""
        stamped: list[tuple[int, int]] = []
        producer = Producer(dict(self.producer_settings()) | {"delivery.timeout.ms": int(self._timeout_s * 1000)})
        with unavailable("ask for the time"):
            producer.produce(
                STATUS, key=CLOCK_KEY, value=b"", on_delivery=lambda error, sent: stamped.append(_stamp(error, sent))
            )
            producer.flush(self._timeout_s + 5.0)
        if not stamped:
            raise LogUnavailable("cannot ask for the time: time-out", action="ask for the time")
        kind, time_ms = stamped[0]
        return time_ms / 1000 if kind == TIMESTAMP_LOG_APPEND_TIME else None

    def ping(self) -> None:
        """Raise LogUnavailable if no broker answers, ConfigurationError if one refuses us."""
        self._topics.names(self._timeout_s)

    def close(self) -> None:
        """Nothing to release: the admin client goes with the object."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _stamp(error: Any, sent: Any) -> tuple[int, int]:
    if error is not None:
        raise KafkaException(error)
    kind, time_ms = sent.timestamp()
    return kind, time_ms


class KafkaProducer:
    """At-least-once producer (idempotent within its own life)."""

    def __init__(self, settings: Settings, topics: Topics, timeout_s: float) -> None:
        self._producer = Producer(dict(settings) | {"delivery.timeout.ms": int(timeout_s * 1000)})
        self._topics = topics
        self._timeout_s = timeout_s

    def append(self, records: Sequence[Record]) -> None:
        """Append; every record acknowledged on return."""
        failures: list[Any] = []

        def note(error: Any, _: Any) -> None:
            if error is not None:
                failures.append(error)

        with unavailable("append"):
            produce(self._producer, self._topics, records, note)
            left = self._flush()
        if failures and (refused := denied(failures[0], "append")) is not None:
            raise refused
        if failures or left:
            cause = failures[0] if failures else "time-out"
            raise LogUnavailable(f"cannot append: {cause}", action="append", failed=len(failures) + left)

    def _flush(self) -> int:
        """Records not acknowledged in time. A fatal error comes out of the client as the cause of a SystemError."""
        try:
            left: int = self._producer.flush(self._timeout_s + 5.0)
        except SystemError as error:
            if isinstance(error.__cause__, KafkaException):
                refused = denied(error_of(error.__cause__), "append")
                if refused is not None:
                    raise refused from error.__cause__
            raise
        return left

    def close(self) -> None:
        """Flush what is left."""
        self._producer.flush(self._timeout_s)


class _Source:
    """A consumer of one topic, its offsets, and who to ask about the topic."""

    def __init__(self, consumer: Consumer, admin: AdminClient, topic: str, partitions: int, timeout_s: float) -> None:
        self.consumer = consumer
        self._admin = admin
        self._topic = topic
        self._partitions = partitions
        self._timeout_s = timeout_s

    def parts(self, offsets: Mapping[int, int] | None = None) -> list[TopicPartition]:
        """Partitions at offsets; without offsets all of them."""
        if offsets is None:
            return [TopicPartition(self._topic, partition) for partition in range(self._partitions)]
        return [TopicPartition(self._topic, partition, offset) for partition, offset in offsets.items()]

    def committed(self) -> dict[int, int]:
        """Stored offsets."""
        with unavailable("read offsets"):
            stored = self.consumer.committed(self.parts(), timeout=self._timeout_s)
        return {part.partition: part.offset for part in stored if part.offset >= 0}

    def bounds(self) -> dict[int, tuple[int, int]]:
        """First offset and last stable offset: two requests for all partitions."""
        try:
            return self._ask_bounds()
        except LogUnavailable:
            # After a broker's restart librdkafka asks with the leader epochs that it knew, for ever: look them up.
            with unavailable("look up a topic"):
                self._admin.list_topics(self._topic, timeout=self._timeout_s)
            return self._ask_bounds()

    def _ask_bounds(self) -> dict[int, tuple[int, int]]:
        first, end = self._ask(OffsetSpec.earliest()), self._ask(OffsetSpec.latest())
        return {partition: (first[partition], end[partition]) for partition in range(self._partitions)}

    def at_time(self, timestamp_ms: int) -> dict[int, int]:
        """First offset at or after a time, of the partitions that have one."""
        found = self._ask(OffsetSpec.for_timestamp(timestamp_ms))
        return {partition: offset for partition, offset in found.items() if offset >= 0}

    def _ask(self, spec: OffsetSpec) -> dict[int, int]:
        with unavailable("ask for offsets"):
            asked = self._admin.list_offsets(
                dict.fromkeys(self.parts(), spec),
                isolation_level=IsolationLevel.READ_COMMITTED,
                request_timeout=self._timeout_s,
            )
            return {part.partition: found.result().offset for part, found in asked.items()}


class KafkaReader:
    """Plain reader of one topic: committed records only."""

    def __init__(self, source: _Source, is_named: bool, start: str) -> None:
        self._source = source
        self._consumer = source.consumer
        self._is_named = is_named
        self._ends: dict[int, tuple[int, int]] = {}
        stored = self.committed()
        first = {p: bounds[start == "latest"] for p, bounds in self.bounds().items()}
        self._positions = first | stored
        self._assign()

    def poll(self, timeout_s: float, max_messages: int = 500) -> list[Message]:
        """Next messages."""
        with unavailable("read"):
            found = consume(self._consumer, timeout_s, max_messages)
        messages: list[Message] = []
        failure = None
        for item in found:
            partition, error = item.partition(), item.error()
            if error is None:
                messages.append(decode(item))
                self._positions[partition] = item.offset() + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                self._ends[partition] = (item.offset(), self._positions[partition])
            else:
                failure = error
        if failure is not None and not messages:
            raise denied(failure, "read") or LogUnavailable(f"cannot read: {failure}", action="read")
        return messages

    def commit(self, offsets: Mapping[int, int] | None = None) -> None:
        """Store offsets under this reader's name."""
        if not self._is_named:
            raise ConfigurationError("a reader without a name has nowhere to commit", code="anonymous_reader")
        parts = self._source.parts(self._positions if offsets is None else offsets)
        if parts:
            with unavailable("store offsets"):
                for done in self._consumer.commit(offsets=parts, asynchronous=False) or ():
                    if done.error is not None:
                        raise KafkaException(done.error)

    def committed(self) -> dict[int, int]:
        """Stored offsets."""
        return self._source.committed() if self._is_named else {}

    def seek(self, offsets: Mapping[int, int]) -> None:
        """Go on at these offsets."""
        self._positions |= offsets
        self._assign()

    def bounds(self) -> dict[int, tuple[int, int]]:
        """Oldest offset held and end of what is committed.

        Transaction markers take offsets too; where this reader has come to the end, the end is after its last message.
        """
        found = self._source.bounds()
        for partition, (end, position) in self._ends.items():
            if found[partition][1] == end:
                found[partition] = (found[partition][0], position)
        return found

    def offsets_at(self, timestamp_ms: int) -> dict[int, int]:
        """First offset at or after a time, else the end."""
        # The ends first: what is appended between the two questions is then not passed over.
        ends = {partition: end for partition, (_, end) in self.bounds().items()}
        return ends | self._source.at_time(timestamp_ms)

    def close(self) -> None:
        """Release connections."""
        self._consumer.close()

    def _assign(self) -> None:
        self._ends.clear()
        with unavailable("read"):
            self._consumer.assign(self._source.parts(self._positions))
