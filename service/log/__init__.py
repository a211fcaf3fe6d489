"""The partitioned log and its two adapters: Redis Streams (embedded) and Kafka (production)."""

from urllib.parse import parse_qsl, urlsplit

from core.errors import ConfigurationError
from service.access import NOBODY, Access
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
from service.masking import mask_url

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


def open_log(url: str, access: Access = NOBODY) -> Log:
    """Log at ``redis[s]://host:port``, ``unix:///path/to/socket`` or ``kafka://host:port[,host:port…]``.

    A query on a Kafka URL holds librdkafka settings for every client: ``?client.id=…&…``. Users and passwords are
    ``access``'s (:func:`service.connections.connect_log` takes them from the settings).
    """
    parts = urlsplit(url)
    scheme = parts.scheme
    if scheme in {"redis", "rediss", "unix"}:
        from service.log.redis_streams import RedisLog

        return RedisLog(url, access)
    if scheme == "kafka":
        from service.log.kafka import KafkaLog  # librdkafka is loaded only where it is used
        from service.log.kafka_security import security_settings

        if "@" in parts.netloc:
            raise ConfigurationError(
                "a Kafka URL holds no login: set SUB60_KAFKA_USER and SUB60_KAFKA_PASSWORD", code="bad_log_url"
            )
        security = security_settings(parts.netloc, access, dict(parse_qsl(parts.query)))
        return KafkaLog(parts.netloc, security)
    raise ConfigurationError(
        "log URL must start with redis://, rediss://, unix:// or kafka://", code="bad_log_url", url=mask_url(url)
    )
