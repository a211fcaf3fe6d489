"""A Kafka cluster: reach, transactions, what we may do, replicas, size limits."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer, TopicCollection
from confluent_kafka.admin import AclOperation, ConfigResource, ResourceType

from core.errors import TransientError
from service import topics
from service.checks.finding import Finding, failed, ok, warning
from service.log.kafka import KafkaLog
from service.log.kafka_wire import MAX_MESSAGE_BYTES, error_of, group_id
from service.roles.archive import APDB, FILES, HISTORY
from service.roles.run_fanout import NAME as FAN_OUT
from service.roles.run_worker import GROUP

TIMEOUT_S: Final = 10.0
GROUPS: Final = (
    group_id(GROUP, topics.WORK),
    *(group_id(FAN_OUT, topic) for topic in topics.INPUTS),
    group_id(HISTORY, topics.RESULTS),
    group_id(APDB, topics.RESULTS),
    group_id(FILES, topics.ALERTS),
)
LARGE: Final = (topics.ALERTS, topics.RESULTS)
_DENIED: Final = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
)

_LOADING: Final = (
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
)
"""A group's coordinator is being made (a new cluster's first question does that) or moves: ask again."""


def check_cluster(log: KafkaLog) -> Iterator[Finding]:
    """Brokers answer, and a transaction can be begun under a name like the workers'."""
    cluster = _ask(log.admin.describe_cluster(request_timeout=TIMEOUT_S))
    controller = cluster.controller.id if cluster.controller is not None else "none"
    yield ok("log", f"cluster {cluster.cluster_id}: {len(cluster.nodes)} brokers, controller {controller}")
    # A name of its own: that of a slot would fence the worker that runs there.
    name = f"{group_id(GROUP, topics.WORK)}.check"
    producer = Producer(dict(log.producer_settings()) | {"transactional.id": name})
    try:
        producer.init_transactions(TIMEOUT_S)
        producer.begin_transaction()
        producer.abort_transaction(TIMEOUT_S)
    except KafkaException as error:
        cause = error_of(error)
        hint = f"allow Write and Describe on transactional ids that begin with {group_id(GROUP, topics.WORK)}."
        yield failed("log", f"no transactions: {cause.str()}; {hint}", can_heal=cause.code() not in _DENIED)
    else:
        yield ok("log", f"transactions can be begun ({name})")
    yield from check_groups(log)


def check_groups(log: KafkaLog) -> Iterator[Finding]:
    """Consumer groups whose offsets we may not read and store."""
    waits_until = time.monotonic() + TIMEOUT_S
    asked = list(GROUPS)
    while asked:
        loading = []
        for name, future in log.admin.describe_consumer_groups(asked, request_timeout=TIMEOUT_S).items():
            try:
                _ask(future)
            except TransientError as error:
                code = _code(error)
                if code in _DENIED:
                    yield failed("log", f"consumer group {name}: we may not READ; add this to the user's ACLs")
                elif code in _LOADING and time.monotonic() < waits_until:
                    loading.append(name)
                else:
                    raise
        asked = loading
        if asked:
            time.sleep(0.2)


def check_kafka_topics(log: KafkaLog, names: Sequence[str]) -> Iterator[Finding]:
    """Of each topic: what we may do, replicas, in-sync replicas wanted, size limit."""
    if not names:
        return
    asked = log.admin.describe_topics(
        TopicCollection(list(names)), include_authorized_operations=True, request_timeout=TIMEOUT_S
    )
    described = {name: _ask(future) for name, future in asked.items()}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    found = log.admin.describe_configs(resources, request_timeout=TIMEOUT_S)
    configs = {resource.name: _configs(future) for resource, future in found.items()}
    problems = [problem for name in names for problem in _topic(name, described[name], configs[name])]
    yield from problems
    replicas = sorted({len(part.replicas) for topic in described.values() for part in topic.partitions})
    in_sync = sorted({int(c["min.insync.replicas"]) for c in configs.values() if c is not None})
    if replicas == [1]:
        yield warning("topics", "one replica each: a broker that dies takes the alerts with it; make them with three")
    if not any(problem.level == "failed" for problem in problems):
        text = f"{len(names)} of {len(topics.ALL)}, replicas {_list(replicas)}, min.insync.replicas {_list(in_sync)}"
        yield ok("topics", text)


def _topic(name: str, described: Any, config: dict[str, str] | None) -> Iterator[Finding]:
    allowed = described.authorized_operations
    if allowed is not None and AclOperation.ALL not in allowed:
        missing = [wanted.name for wanted in wanted_operations(name) if wanted not in allowed]
        if missing:
            yield failed("topics", f"{name}: we may not {', '.join(missing)}; add these to the user's ACLs")
    if config is None:
        yield warning("topics", f"{name}: we may not DESCRIBE_CONFIGS; its size limit and replicas are not known")
        return
    limit, in_sync = int(config["max.message.bytes"]), int(config["min.insync.replicas"])
    fewest = min(len(part.replicas) for part in described.partitions)
    if name in LARGE and limit < MAX_MESSAGE_BYTES:
        text = f"{name}: max.message.bytes is {limit}: large commits would fail for ever; set {MAX_MESSAGE_BYTES}"
        yield failed("topics", text)
    if in_sync > fewest:
        yield failed("topics", f"{name}: min.insync.replicas {in_sync} of {fewest} replicas: nothing can be written")
    elif fewest > 1 and in_sync == 1:
        yield warning("topics", f"{name}: min.insync.replicas 1: one broker's word is taken for all; set 2")


def wanted_operations(topic: str) -> tuple[AclOperation, ...]:
    """What the service as a whole does with a topic."""
    both = (AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE)
    if topic == topics.HEARTBEAT:
        return (AclOperation.WRITE, AclOperation.DESCRIBE)
    return both


def _configs(future: Any) -> dict[str, str] | None:
    """Values by name; None where we may not ask."""
    try:
        return {name: entry.value for name, entry in _ask(future).items()}
    except TransientError as error:
        if _code(error) in _DENIED:
            return None
        raise


def _ask(future: Any) -> Any:
    try:
        return future.result(timeout=TIMEOUT_S + 1)
    except (KafkaException, FutureTimeoutError) as error:
        raise TransientError(f"the cluster does not answer: {error}", code="log_unavailable") from error


def _code(error: TransientError) -> int | None:
    """Kafka's code of what `_ask` raised; None if there was no answer."""
    return error_of(error.__cause__).code() if isinstance(error.__cause__, KafkaException) else None


def _list(numbers: list[int]) -> str:
    return ", ".join(str(number) for number in numbers) or "not known"
