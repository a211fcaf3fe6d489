"""The log's server and its topics."""

from collections.abc import Iterator

from core.errors import ConfigurationError
from service import topics
from service.checks.finding import Finding, failed, ok, warning
from service.checks.redis import check_redis_log
from service.connections import connect_log, ping_log
from service.masking import mask_url
from service.settings import Settings


def check_log(settings: Settings) -> Iterator[Finding]:
    """It answers and is set up as the service needs it."""
    if not settings.log_url:
        yield ok("log", "embedded")
        return
    ping_log(settings)
    with connect_log(settings) as log:
        if settings.log_url.startswith("kafka:"):
            from service.checks.kafka import check_cluster
            from service.log.kafka import KafkaLog

            assert isinstance(log, KafkaLog)
            yield from check_cluster(log)
        else:
            from service.log.redis_streams import RedisLog

            assert isinstance(log, RedisLog)
            yield from check_redis_log(log.client, mask_url(settings.log_url))


def check_topics(settings: Settings) -> Iterator[Finding]:
    """All are there with the partitions wanted; on Kafka also their size limit, replicas and what we may do."""
    if not settings.log_url:
        yield ok("topics", "embedded: made at the start")
        return
    with connect_log(settings) as log:
        log.ping()
        missing, different = [], []
        for topic, wanted in topics.partition_counts(settings.log_url, settings.partitions).items():
            try:
                count = log.partitions(topic)
            except ConfigurationError:
                missing.append(topic)
                continue
            if count != wanted:
                different.append(f"{topic} has {count}, not {wanted}")
        if different:
            text = f"partitions: {'; '.join(different)}. Set SUB60_PARTITIONS as they are, or make new topics"
            yield failed("topics", text)
        if missing:
            yield warning("topics", f"missing: {', '.join(missing)}; made at the start, or by `sub60 topics create`")
        there = [topic for topic in topics.ALL if topic not in missing]
        if settings.log_url.startswith("kafka:"):
            from service.checks.kafka import check_kafka_topics
            from service.log.kafka import KafkaLog

            assert isinstance(log, KafkaLog)
            yield from check_kafka_topics(log, there)
        elif not different:
            yield ok("topics", f"{len(there)} of {len(topics.ALL)}, partitions as wanted")
