"""One worker of the Kafka log: a static member of a consumer group and a transactional producer of the same slot.

What fences whom. Another slot that took the partition over: the group's generation, compared by the broker when the
offset joins the transaction. Another process of our own slot: the group instance id and the transactional id.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from core.errors import RejectedInputError
from service.failpoints import Failpoint, reach
from service.log.contract import Checkpoint, CommitUnknown, Fenced, IdentityTaken, LogUnavailable, Message, Record
from service.log.kafka_bounded import BoundedCalls
from service.log.kafka_security import denied
from service.log.kafka_wire import (
    READ_AHEAD,
    Settings,
    Topics,
    consume,
    consumer_settings,
    decode,
    error_of,
    group_id,
    pack_offset,
    produce,
    producer_settings,
    unavailable,
    unpack_offset,
)

log = structlog.get_logger()

SESSION_S: Final = 6.0
"""A member silent for so long loses its partitions."""
MAX_POLL_S: Final = 30.0
TRANSACTION_TIMEOUT_S: Final = 10.0
CALL_S: Final = 5.0
"""One step of a transaction takes a tenth of a second; later its producer is given up, and the outcome looked up."""
OFFSETS_S: Final = 2.0
"""Storing the checkpoint is the smallest step, and the one that hangs where the broker was away just before."""
GRACE_S: Final = 1.0
"""A call of librdkafka that is so much beyond its time-out is left alone."""
RENEW_PRODUCER_S: Final = 4.0
"""Wait after our producer was fenced: a heartbeat tells the consumer whether another process has our slot."""
_LOST_MEMBERSHIP: Final = {
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.FENCED_INSTANCE_ID,
}
_FENCED_PRODUCER: Final = {
    KafkaError._FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_ID_MAPPING,
}


@dataclass(slots=True)
class _Tenure:
    """An owned partition."""

    epoch: int
    position: int
    checkpoint: Checkpoint | None


class KafkaWorkerLog:
    """Member ``slot`` of a group on a topic."""

    def __init__(
        self, bootstrap: str, settings: Settings, topics: Topics, group: str, topic: str, slot: int, *, timeout_s: float
    ) -> None:
        self._topics = topics
        self._topic = topic
        self._slot = slot
        self._timeout_s = timeout_s
        identity = f"{group_id(group, topic)}.{slot}"
        self._producer_settings = producer_settings(bootstrap, settings) | {
            "transactional.id": identity,
            "transaction.timeout.ms": int(TRANSACTION_TIMEOUT_S * 1000),
        }
        self._calls = BoundedCalls()
        self._tenures: dict[int, _Tenure] = {}
        self._suspects: set[int] = set()
        self._epoch = 0
        self._is_taken = False
        self._away: KafkaError | None = None
        self._renew_at_s: float | None = None
        self._producer: Any = self._new_producer()
        self._consumer = Consumer(
            consumer_settings(bootstrap, settings, group_id(group, topic))
            | {
                "group.instance.id": identity,
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": int(SESSION_S * 1000),
                "heartbeat.interval.ms": 1000,
                "max.poll.interval.ms": int(MAX_POLL_S * 1000),
                "error_cb": self._on_error,
            }
        )
        self._consumer.subscribe([topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke)

    def assignment(self) -> Mapping[int, int]:
        """Owned partitions and their epochs."""
        return {partition: tenure.epoch for partition, tenure in self._tenures.items()}

    def poll(self, timeout_s: float) -> list[Message]:
        """Next messages of owned partitions."""
        if not self._has_producer():
            timeout_s = min(timeout_s, 0.5)
        for partition in sorted(self._suspects):
            self._take_up_again(partition)
        found: list[Any] = []
        try:
            found = consume(self._consumer, timeout_s, READ_AHEAD)
        except KafkaException as failure:
            self._on_error(error_of(failure))
        messages: list[Message] = []
        for item in found:
            if (error := item.error()) is not None:
                self._on_error(error)
                continue
            tenure = self._tenures.get(item.partition())
            if tenure is not None and item.offset() >= tenure.position:
                messages.append(decode(item, tenure.epoch))
                tenure.position = item.offset() + 1
        self._raise_taken()
        if self._away is not None and not messages:
            away, self._away = self._away, None
            raise LogUnavailable(f"cannot read: {away}", action="read")
        return messages

    def checkpoint(self, partition: int) -> Checkpoint | None:
        """Checkpoint of an owned partition."""
        return self._tenure(partition, None).checkpoint

    def commit(
        self, partition: int, checkpoint: Checkpoint, records: Sequence[Record], *, epoch: int | None = None
    ) -> None:
        """Records and offset in one transaction."""
        tenure = self._tenure(partition, epoch)
        stored = tenure.checkpoint.offset if tenure.checkpoint else 0
        if checkpoint.offset < stored or (checkpoint.offset == stored and records):
            raise Fenced("the partition's checkpoint is past this commit", partition=partition, slot=self._slot)
        if not self._has_producer():
            raise LogUnavailable("the producer was fenced and is being renewed", partition=partition)
        offset = pack_offset(self._topic, partition, checkpoint)
        try:
            self._producer.begin_transaction()
            reach(Failpoint.COMMIT_OPENED)
            produce(self._producer, self._topics, records)
            reach(Failpoint.COMMIT_APPENDED)
            membership = self._consumer.consumer_group_metadata()
            self._bounded(self._producer.send_offsets_to_transaction, [offset], membership, timeout_s=OFFSETS_S)
            reach(Failpoint.COMMIT_OFFSET)
        except KafkaException as error:
            self._abort(partition, error)
        try:
            self._bounded(self._producer.commit_transaction)
        except KafkaException as error:
            if error_of(error).txn_requires_abort():
                self._abort(partition, error)
            self._resolve(partition, checkpoint, error)
        reach(Failpoint.COMMIT_DONE)
        tenure.checkpoint = checkpoint
        tenure.position = max(tenure.position, checkpoint.offset)

    def close(self) -> None:
        """Leave. A static member's partitions stay its own until the session times out or its slot comes back."""
        self._tenures.clear()
        self._consumer.close()
        self._producer = None
        self._calls.close()

    # ---- refusals

    def _tenure(self, partition: int, epoch: int | None) -> _Tenure:
        self._raise_taken()
        tenure = self._tenures.get(partition)
        if tenure is None or epoch not in (None, tenure.epoch):
            raise Fenced("the partition is not ours", partition=partition, slot=self._slot)
        return tenure

    def _raise_taken(self) -> None:
        if self._is_taken:
            self._tenures.clear()
            raise IdentityTaken("another process runs under our slot", slot=self._slot)

    def _on_error(self, error: KafkaError) -> None:
        """Errors of the consumer, from its callback or in place of a message; a missing ACL is raised."""
        if (refused := denied(error, "read")) is not None:
            raise refused
        if error.code() in {KafkaError.FENCED_INSTANCE_ID, KafkaError._FATAL} or error.fatal():
            self._is_taken = True
        elif error.code() != KafkaError._MAX_POLL_EXCEEDED:  # after that it joins again by itself
            self._away = error

    def _abort(self, partition: int, cause: KafkaException) -> None:
        """End a transaction that cannot be committed; always raises."""
        error = error_of(cause)
        if (refused := denied(error, "commit")) is not None:
            self._producer = None
            raise refused from cause
        if error.fatal() or error.code() in _FENCED_PRODUCER:
            self._lose_producer()
        elif not error.txn_requires_abort():
            # A time-out, most likely. librdkafka would take up the call where it stopped, and after a restart of the
            # broker that was seen to wait for ever; a new producer ends the transaction when it starts.
            self._producer = None
        else:
            try:
                self._bounded(self._producer.abort_transaction)
            except KafkaException:
                self._producer = None
        if error.code() == KafkaError.FENCED_INSTANCE_ID:
            self._is_taken = True
        if error.code() in _LOST_MEMBERSHIP | _FENCED_PRODUCER or error.fatal():
            self._tenures.pop(partition, None)
            self._suspects.add(partition)
            self._raise_taken()
            raise Fenced(f"the partition was taken over: {error}", partition=partition, slot=self._slot) from cause
        raise LogUnavailable(f"cannot commit: {error}", partition=partition) from cause

    # ---- producer

    def _new_producer(self) -> Any:
        """A producer of our slot; starting it fences any other and ends what that one left open."""
        producer = Producer(self._producer_settings)
        with unavailable("start transactions"):
            self._bounded(producer.init_transactions, timeout_s=self._timeout_s + TRANSACTION_TIMEOUT_S)
        return producer

    def _bounded(self, function: Callable[..., Any], *arguments: Any, timeout_s: float | None = None) -> None:
        """A call whose last argument is its time-out, which it is held to."""
        timeout_s = min(self._timeout_s, CALL_S) if timeout_s is None else timeout_s
        self._calls.call(timeout_s + GRACE_S, function, *arguments, timeout_s)

    def _lose_producer(self) -> None:
        """Our producer was fenced: by another process of our slot, or by the broker because we were frozen."""
        self._producer = None
        self._renew_at_s = time.monotonic() + RENEW_PRODUCER_S

    def _has_producer(self) -> bool:
        """Whether there is a producer, making one if that cannot do harm to a rightful holder of our slot."""
        if self._producer is None and (self._renew_at_s is None or time.monotonic() > self._renew_at_s):
            self._raise_taken()
            self._producer = self._new_producer()
            self._renew_at_s = None
        return self._producer is not None

    def _resolve(self, partition: int, checkpoint: Checkpoint, cause: KafkaException) -> None:
        """Learn what became of a commit whose outcome was not told; return if it happened.

        A new producer completes or aborts what the old one left; the stored offset then tells which.
        """
        is_fenced = error_of(cause).fatal() or error_of(cause).code() in _FENCED_PRODUCER
        self._producer = None
        if is_fenced:
            self._lose_producer()
        give_up_s = time.monotonic() + self._timeout_s
        while True:
            try:
                if not is_fenced:
                    self._has_producer()
                stored = self._stored(partition)
                break
            except LogUnavailable:
                if time.monotonic() > give_up_s:
                    self._tenures.pop(partition, None)
                    self._suspects.add(partition)
                    raise CommitUnknown("the outcome of a commit is unknown", partition=partition) from cause
                time.sleep(0.2)
        if stored == checkpoint:
            return
        if is_fenced:
            self._tenures.pop(partition, None)
            self._suspects.add(partition)
            raise Fenced("the commit came too late", partition=partition, slot=self._slot) from cause
        raise LogUnavailable("a commit did not reach the log", partition=partition) from cause

    # ---- partitions

    def _stored(self, partition: int) -> Checkpoint | None:
        """Committed offset with its metadata; waits for a pending transaction on it to end."""
        wait_s = self._timeout_s + TRANSACTION_TIMEOUT_S
        with unavailable("read a checkpoint"):
            found = self._consumer.committed([TopicPartition(self._topic, partition)], timeout=wait_s)
            return unpack_offset(found[0])

    def _on_assign(self, consumer: Consumer, parts: Sequence[TopicPartition]) -> None:
        """Start tenures at the stored checkpoints; where one cannot be read, poll tries again."""
        positions = []
        for part in parts:
            position = 0
            try:
                position = self._take_up(part.partition)
            except LogUnavailable:
                self._suspects.add(part.partition)
            except RejectedInputError as error:  # of a release that we do not read: held, not worked on
                log.error("partition_stopped", partition=part.partition, reason=str(error), **error.context)
            positions.append(TopicPartition(self._topic, part.partition, position))
        consumer.incremental_assign(positions)

    def _take_up(self, partition: int) -> int:
        """Start a tenure; returns the offset to read from."""
        checkpoint = self._stored(partition)
        position = checkpoint.offset if checkpoint else 0
        self._epoch += 1
        self._suspects.discard(partition)
        self._tenures[partition] = _Tenure(self._epoch, position, checkpoint)
        return position

    def _take_up_again(self, partition: int) -> None:
        """A partition given up after an unknown outcome or a late commit, if the group still says it is ours."""
        with unavailable("read the assignment"):
            owned = {part.partition for part in self._consumer.assignment()}
        if partition not in owned:
            self._suspects.discard(partition)
            return
        if self._has_producer():
            try:
                position = self._take_up(partition)
            except RejectedInputError as error:
                log.error("partition_stopped", partition=partition, reason=str(error), **error.context)
                self._suspects.discard(partition)
                return
            with unavailable("read"):
                self._consumer.seek(TopicPartition(self._topic, partition, position))

    def _on_revoke(self, _: Consumer, parts: Sequence[TopicPartition]) -> None:
        """End tenures."""
        for part in parts:
            self._tenures.pop(part.partition, None)
            self._suspects.discard(part.partition)
