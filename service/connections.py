"""The log and the cache of the settings, opened with the settings' credentials; and whether they want us."""

import redis

from core.errors import TransientError
from service.access import cache_access, log_access
from service.log import Log, LogUnavailable, open_log
from service.masking import mask_url
from service.redis_access import refusal, tls_port
from service.settings import Settings

PING_S = 2.0
PROBE_KEY = "sub60:access"


def connect_log(settings: Settings, url: str = "") -> Log:
    """The log at ``url``, by default the settings' own."""
    url = url or settings.log_url
    return open_log(url, log_access(settings, url))


def ping_log(settings: Settings) -> None:
    """Raise LogUnavailable for a log that is away, ConfigurationError for one that refuses us."""
    with connect_log(settings) as log:
        try:
            log.ping()
        except LogUnavailable as error:
            if (refused := tls_port(settings.log_url)) is not None:
                raise refused from error
            raise


def ping_cache(settings: Settings) -> None:
    """Raise TransientError for a cache that is away, ConfigurationError for one that refuses us or denies a write."""
    from service.storage.cache import connect

    client = connect(settings.cache_url, PING_S, cache_access(settings))
    try:
        client.set(PROBE_KEY, b"", ex=1)
    except redis.RedisError as error:
        if (refused := refusal(error, settings.cache_url) or tls_port(settings.cache_url)) is not None:
            raise refused from error
        raise TransientError(
            f"{mask_url(settings.cache_url)} does not answer: {error}", code="cache_unavailable"
        ) from error
    finally:
        client.close()
