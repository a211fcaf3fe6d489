"""Between the log's contract and librdkafka: settings, partitions, messages, checkpoints in offset metadata, errors."""

import base64
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from core.errors import ConfigurationError
from service.log.contract import Checkpoint, LogUnavailable, Message, Record, Retention
from service.log.kafka_security import Refusals, denied

MAX_MESSAGE_BYTES: Final = 16 << 20
READ_AHEAD: Final = 500
LOOK_UP_S: Final = 1.0
Settings: TypeAlias = Mapping[str, Any]


def common_settings(bootstrap: str, extra: Settings) -> dict[str, Any]:
    """What every client of ours has."""
    return {
        "bootstrap.servers": bootstrap,
        "log_level": 2,
        "socket.keepalive.enable": True,
        # The default of 10 s is a sixth of our clock, and is reached after a handful of broken connections.
        "reconnect.backoff.max.ms": 1000,
        **extra,
    }


def consumer_settings(bootstrap: str, extra: Settings, group_id: str) -> dict[str, Any]:
    """A consumer that sees committed records only and moves no offset by itself."""
    return common_settings(bootstrap, extra) | {
        "group.id": group_id,
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "fetch.min.bytes": 1,
    }


def producer_settings(bootstrap: str, extra: Settings) -> dict[str, Any]:
    """A producer whose records are on all in-sync replicas when it says so."""
    return common_settings(bootstrap, extra) | {
        "enable.idempotence": True,
        "acks": "all",
        "linger.ms": 1,
        # first pause where the broker still writes the markers of the transaction before; the default is 100 ms
        "retry.backoff.ms": 10,
        "message.max.bytes": MAX_MESSAGE_BYTES,
    }


def topic_config(retention: Retention | None) -> dict[str, str]:
    """Configuration of a topic of ours: size limit, the broker's own timestamps, retention where one is given."""
    config = {"max.message.bytes": str(MAX_MESSAGE_BYTES), "message.timestamp.type": "LogAppendTime"}
    if retention is not None:
        days, size = retention.days, retention.partition_bytes
        config["retention.ms"] = "-1" if days is None else str(int(days * 86_400_000))
        config["retention.bytes"] = "-1" if size is None else str(size)
    return config


def group_id(name: str, topic: str) -> str:
    """Consumer group of a worker group or a named reader on a topic."""
    return f"{name}.{topic}"


def error_of(exception: KafkaException) -> KafkaError:
    """The error inside an exception."""
    error: KafkaError = exception.args[0]
    return error


@contextmanager
def unavailable(action: str) -> Iterator[None]:
    """Turn librdkafka's exceptions into LogUnavailable, a missing ACL into ConfigurationError."""
    try:
        yield
    except KafkaException as error:
        if (refused := denied(error_of(error), action)) is not None:
            raise refused from error
        raise LogUnavailable(f"cannot {action}: {error_of(error)}", action=action) from error


class Topics:
    """Numbers of partitions of the topics, asked once each."""

    def __init__(self, admin: AdminClient, timeout_s: float, refusals: Refusals) -> None:
        self._admin = admin
        self._timeout_s = timeout_s
        self._refusals = refusals
        self._known: dict[str, int] = {}

    def names(self, timeout_s: float | None = None) -> frozenset[str]:
        """Topics that there are for us; one that our user may not see is none."""
        return frozenset(name for name, found in self._look_up(timeout_s).items() if found.error is None)

    def _look_up(self, timeout_s: float | None = None) -> Mapping[str, Any]:
        """Metadata of all topics, asked in short pieces: a refused login is known long before the time is over."""
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        give_up_s = time.monotonic() + timeout_s
        while True:
            try:
                found: Mapping[str, Any] = self._admin.list_topics(timeout=min(LOOK_UP_S, timeout_s)).topics
            except KafkaException as error:
                is_final = time.monotonic() >= give_up_s
                self._refusals.raise_refused(lambda: self._admin.poll(0), is_final=is_final)
                if is_final:
                    reason = self._refusals.text or error_of(error).str()
                    raise LogUnavailable(f"cannot look up topics: {reason}", action="look up topics") from error
                time.sleep(0.05)
            else:
                self._refusals.reached()
                return found

    def partitions(self, topic: str) -> int:
        """Number of partitions; ConfigurationError for an unknown topic."""
        if topic not in self._known:
            found = self._look_up().get(topic)
            if found is None or found.error is not None or not found.partitions:
                raise ConfigurationError(f"no topic {topic!r} in the log", code="unknown_topic", topic=topic)
            self._known[topic] = len(found.partitions)
        return self._known[topic]

    def partition_of(self, record: Record) -> int:
        """The record's partition: as given, else by CRC-32 of its key."""
        partitions = self.partitions(record.topic)
        partition = zlib.crc32(record.key) % partitions if record.partition is None else record.partition
        if not 0 <= partition < partitions:
            raise ConfigurationError("no such partition", code="unknown_partition", topic=record.topic)
        return partition


def produce(producer: Any, topics: Topics, records: Sequence[Record], on_delivery: Any = None) -> None:
    """Hand records to librdkafka, waiting where its queue is full."""
    for record in records:
        arguments: dict[str, Any] = {"key": record.key, "value": record.value, "partition": topics.partition_of(record)}
        if record.headers:
            arguments["headers"] = dict(record.headers)
        if on_delivery is not None:
            arguments["on_delivery"] = on_delivery
        while True:
            try:
                producer.produce(record.topic, **arguments)
                break
            except BufferError:
                producer.poll(0.05)


def consume(consumer: Consumer, timeout_s: float, max_messages: int) -> list[Any]:
    """Wait for a first message, then take what else is there: ``consume`` alone would wait for all of them."""
    first = consumer.poll(timeout_s)
    if first is None:
        return []
    more: list[Any] = consumer.consume(max_messages - 1, timeout=0) if max_messages > 1 else []
    return [first, *more]


def decode(found: Any, epoch: int = 0) -> Message:
    """A Kafka message as ours."""
    return Message(
        topic=found.topic(),
        partition=found.partition(),
        offset=found.offset(),
        key=found.key() or b"",
        value=found.value() or b"",
        headers=dict(found.headers() or ()),
        timestamp_ms=found.timestamp()[1],
        epoch=epoch,
    )


def pack_offset(topic: str, partition: int, checkpoint: Checkpoint) -> TopicPartition:
    """The checkpoint as an offset with metadata: the only thing of ours Kafka stores within the transaction."""
    metadata = base64.b64encode(checkpoint.pack()).decode("ascii")
    return TopicPartition(topic, partition, checkpoint.offset, metadata)


def unpack_offset(stored: TopicPartition) -> Checkpoint | None:
    """Inverse of :func:`pack_offset`; None where nothing was stored. An offset set by hand has no recent visits."""
    if stored.error is not None:
        raise KafkaException(stored.error)
    if stored.offset < 0:
        return None
    checkpoint = Checkpoint.unpack(base64.b64decode(stored.metadata)) if stored.metadata else Checkpoint()
    if checkpoint.offset == stored.offset:
        return checkpoint
    return Checkpoint(offset=stored.offset, recent=checkpoint.recent, state=checkpoint.state)
