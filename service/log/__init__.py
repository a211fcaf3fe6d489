"""The partitioned log and its two adapters: Redis Streams (embedded) and Kafka (production)."""

from urllib.parse import parse_qsl, urlsplit

from core.errors import ConfigurationError
from service.log.contract import (
    Checkpoint,
    CommitUnknown,
    Fenced,
    IdentityTaken,
    Log,
    LogUnavailable,
    Message,
    Producer,
    Reader,
    Record,
    WorkerLog,
)

__all__ = [
    "Checkpoint",
    "CommitUnknown",
    "Fenced",
    "IdentityTaken",
    "Log",
    "LogUnavailable",
    "Message",
    "Producer",
    "Reader",
    "Record",
    "WorkerLog",
    "open_log",
]


def open_log(url: str) -> Log:
    """Log at ``redis://host:port``, ``unix:///path/to/socket`` or ``kafka://host:port[,host:port…]``.

    A query on a Kafka URL holds librdkafka settings for every client: ``?security.protocol=SSL&…``.
    """
    parts = urlsplit(url)
    scheme = parts.scheme
    if scheme in {"redis", "rediss", "unix"}:
        from service.log.redis_streams import RedisLog

        return RedisLog(url)
    if scheme == "kafka":
        from service.log.kafka import KafkaLog  # librdkafka is loaded only where it is used

        return KafkaLog(parts.netloc, dict(parse_qsl(parts.query)))
    raise ConfigurationError("log URL must start with redis://, unix:// or kafka://", code="bad_log_url", url=url)
