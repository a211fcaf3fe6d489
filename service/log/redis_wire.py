"""Between the log's contract and the Redis protocol: connections, keys, records, errors."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

import msgpack
import redis
import redis.connection
from redis.backoff import NoBackoff
from redis.retry import Retry

from core.errors import ConfigurationError
from service.access import NOBODY, Access
from service.log.contract import LogUnavailable, Message, Record
from service.log.redis_scripts import PREFIX
from service.redis_access import REFUSALS, client_options, refusal
from service.wire import unpack_msgpack

Client: TypeAlias = Any
"""A ``redis.Redis``; its replies are untyped bytes in any case."""
_errors: Any = redis.exceptions  # both modules: the stubs are of an older version
_connection: Any = redis.connection
LOST_REPLY: Final = (_errors.ConnectionError, _errors.TimeoutError, OSError)
"""Errors after which it is not known whether the server did what was asked."""
NOT_NOW: Final = ("MISCONF", "READONLY", "MASTERDOWN", "NOREPLICAS")
"""A server that refuses every write for now: its disk is full, or it is somebody's replica."""
PACK_BYTES: Final = 6000
"""Values longer than this are sent as they are."""
MAX_BLOCK_S: Final = 2.0
"""Longest wait in one blocking read, well below the reply's time-out."""


def connect(url: str, timeout_s: float, access: Access = NOBODY) -> Client:
    """Client that never sends a command twice on its own: by default redis-py does, after a lost reply."""
    make: Any = redis.Redis.from_url
    encoder = _connection.Encoder(encoding="utf-8", encoding_errors="strict", decode_responses=False)
    return make(
        url,
        protocol=2,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        # hiredis' own packer would copy every value once more; its parser is used where it is installed
        command_packer=_connection.PythonRespSerializer(PACK_BYTES, encoder.encode),
        **client_options(url, access),
    )


@contextmanager
def unavailable(action: str) -> Iterator[None]:
    """Turn the client's errors into LogUnavailable, a refusal into ConfigurationError; programming errors pass."""
    try:
        yield
    except (*LOST_REPLY, *REFUSALS, _errors.OutOfMemoryError) as error:
        if (refused := refusal(error)) is not None:
            raise refused from error
        raise LogUnavailable(f"cannot {action}: {error}", action=action) from error
    except _errors.ResponseError as error:
        if not str(error).startswith(NOT_NOW):
            raise
        raise LogUnavailable(f"cannot {action}: {error}", action=action) from error


def key(*parts: str) -> str:
    """Redis key of the log."""
    return PREFIX + ":".join(parts)


class Topics:
    """Numbers of partitions of the topics, asked once each."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[str, int] = {}

    def partitions(self, topic: str) -> int:
        """Number of partitions; ConfigurationError for an unknown topic."""
        if topic not in self._known:
            with unavailable("look up a topic"):
                number: Any = self._client.hget(key("topics"), topic)
            if number is None:
                raise ConfigurationError(f"no topic {topic!r} in the log", code="unknown_topic", topic=topic)
            self._known[topic] = int(number)
        return self._known[topic]

    def partition_of(self, record: Record) -> int:
        """The record's partition: as given, else by CRC-32 of its key."""
        partitions = self.partitions(record.topic)
        partition = zlib.crc32(record.key) % partitions if record.partition is None else record.partition
        if not 0 <= partition < partitions:
            raise ConfigurationError("no such partition", code="unknown_partition", topic=record.topic)
        return partition

    def arguments(self, records: Sequence[Record]) -> list[bytes | str | int]:
        """Records as script arguments, five each: topic, partition, key, value, headers."""
        out: list[bytes | str | int] = []
        for record in records:
            headers = msgpack.packb(dict(record.headers)) if record.headers else b""
            out += (record.topic, self.partition_of(record), record.key, record.value, headers)
        return out


def decode_entries(
    topic: str, partition: int, entries: Sequence[tuple[bytes, Any]], epoch: int = 0
) -> Iterator[Message]:
    """Stream entries as messages."""
    for identifier, flat in entries:
        fields: Mapping[bytes, bytes] = (
            flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))
        )
        packed = fields.get(b"h")
        yield Message(
            topic=topic,
            partition=partition,
            offset=int(identifier.split(b"-")[0]),
            key=fields[b"k"],
            value=fields[b"v"],
            headers=unpack_msgpack(packed) if packed else {},
            timestamp_ms=int(fields[b"t"]),
            epoch=epoch,
        )


def read_streams(
    client: Client, topic: str, positions: Mapping[int, int], timeout_s: float, count: int
) -> dict[int, Any]:
    """Partition → entries at and after its position, at most ``count`` each; waits when there are none."""
    names = {key("stream", topic, str(partition)).encode(): partition for partition in positions}
    arguments: list[Any] = ["XREAD", "COUNT", count]
    if timeout_s > 0:
        arguments += ["BLOCK", max(1, int(min(timeout_s, MAX_BLOCK_S) * 1000))]
    arguments += ["STREAMS", *names, *(f"{offset}-0" for offset in positions.values())]
    with unavailable("read"):
        reply: Any = client.execute_command(*arguments)
    pairs = reply.items() if isinstance(reply, dict) else reply or ()
    return {names[name]: entries for name, entries in pairs}
