"""The partitioned log and its two adapters: Redis Streams (embedded) and Kafka (production)."""

from urllib.parse import urlsplit

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
    """Log at ``redis://host:port``, ``unix:///path/to/socket`` or ``kafka://host:port[,host:port…]``."""
    scheme = urlsplit(url).scheme
    if scheme in {"redis", "rediss", "unix"}:
        from service.log.redis_streams import RedisLog

        return RedisLog(url)
    if scheme == "kafka":
        from service.log.kafka import KafkaLog  # librdkafka is loaded only where it is used

        return KafkaLog(url.removeprefix("kafka://").rstrip("/"))
    raise ConfigurationError("log URL must start with redis://, unix:// or kafka://", code="bad_log_url", url=url)
