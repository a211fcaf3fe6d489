"""Redis or Valkey as log and as cache: what they do when full, memory left, what is on disk."""

from collections.abc import Iterator
from typing import Any, Final

import redis

from core.errors import TransientError
from service.access import cache_access
from service.checks.finding import Finding, failed, ok, warning
from service.connections import ping_cache
from service.masking import mask_url
from service.settings import Settings
from service.storage.cache import connect

TIMEOUT_S: Final = 2.0
FULL: Final = 0.95
NEARLY_FULL: Final = 0.80


def check_redis_log(client: Any, url: str) -> Iterator[Finding]:
    """A log keeps what it was given: append-only file, nothing evicted, room left."""
    info = _info(client, url)
    if not info.get("aof_enabled"):
        yield failed("log", "appendonly is no: a restart loses alerts; set `appendonly yes`")
    elif info.get("aof_last_write_status") != "ok":
        yield failed("log", "the append-only file could not be written; is the server's disk full?", can_heal=True)
    if (policy := info["maxmemory_policy"]) != "noeviction":
        yield failed("log", f"maxmemory-policy is {policy}: records may vanish; set `maxmemory-policy noeviction`")
    yield from _memory("log", info, url)


def check_cache(settings: Settings) -> Iterator[Finding]:
    """A cache drops what has a time to live, and only that: the history's tails have none."""
    if not settings.cache_url:
        yield ok("cache", "embedded")
        return
    ping_cache(settings)
    url = mask_url(settings.cache_url)
    info = _info(connect(settings.cache_url, TIMEOUT_S, cache_access(settings)), url)
    policy = info["maxmemory_policy"]
    if policy.startswith("allkeys"):
        text = f"maxmemory-policy is {policy}: it drops the history's tails; set `maxmemory-policy volatile-ttl`"
        yield failed("cache", text)
    elif policy != "volatile-ttl":
        yield warning("cache", f"maxmemory-policy is {policy}; `volatile-ttl` drops first what is needed least")
    if info.get("aof_enabled"):
        yield warning("cache", "appendonly is yes: a cache needs no disk, and reads it all again at its start")
    yield from _memory("cache", info, url)


def _info(client: Any, url: str) -> dict[str, Any]:
    try:
        info: dict[str, Any] = client.info("memory") | client.info("persistence") | client.info("server")
    except redis.RedisError as error:
        raise TransientError(f"{url} does not answer: {error}", code="redis_unavailable") from error
    return info


def _memory(name: str, info: dict[str, Any], url: str) -> Iterator[Finding]:
    used, limit = int(info["used_memory"]), int(info["maxmemory"])
    version = info.get("valkey_version") or info.get("redis_version")
    text = f"{url}: version {version}, {used / 1e6:.0f} MB used"
    if not limit:
        yield warning(name, f"{text}, no maxmemory: the system ends it when the machine's memory is gone; set one")
        return
    text += f" of {limit / 1e6:.0f} MB"
    if name == "log" and used > FULL * limit:
        yield failed(name, f"{text}: it refuses records soon; raise maxmemory, or is the archive down?", can_heal=True)
    elif name == "log" and used > NEARLY_FULL * limit:
        yield warning(name, f"{text}: fills up; look at sub60_sink_lag_records")
    else:
        yield ok(name, text)
