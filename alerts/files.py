"""Alert files: Avro object containers written from framed alerts without decoding them.

Besides schema and codec the header holds ``sub60.index``: crc32 of all alerts' bytes, then the length of each, as
decimal numbers between spaces (readers take metadata for text). With it the ids of a file are read at the speed of its
disk, where decoding takes 2 ms for an alert with a year of history.
"""

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

import fastavro
import numpy as np
from numpy.typing import NDArray

from alerts.codec import FRAME, GARBLED, Record, zigzag
from alerts.schema import SCHEMA_ID, known_ids, schema_json
from core.errors import RejectedInputError

_MAGIC: Final = b"Obj\x01"
_BLOCK_BYTES: Final = 4 * 1024 * 1024
_INDEX: Final = b"sub60.index"
_SYNC_BYTES: Final = 16
_LONG_BYTES: Final = 10
"""Of the longest Avro long."""


def write_alerts(path: Path, alerts: Sequence[bytes]) -> int:
    """Write framed alerts of one schema to an Avro file (uncompressed), whole or not at all; returns their number.

    Raises ``RejectedInputError`` for alerts of several schemas, or of one that this release does not have.
    The same alerts give the same bytes: the sync marker is a digest of the name.
    """
    sync = hashlib.md5(path.name.encode(), usedforsecurity=False).digest()
    partial = path.with_name(path.name + ".partial")
    number = schema_of(alerts[0]) if alerts else SCHEMA_ID
    bodies = [_body(alert, number) for alert in alerts]
    index = _index(bodies)
    with partial.open("wb") as file:
        file.write(_prefix(number) + _pair(_INDEX, index) + b"\0" + sync)
        for block in _blocks(bodies):
            content = b"".join(block)
            file.write(zigzag(len(block)) + zigzag(len(content)) + content + sync)
    partial.replace(path)
    return len(bodies)


def schema_of(alert: bytes) -> int:
    """Id of the schema in an alert's frame; ``RejectedInputError`` for one that this release does not have."""
    if len(alert) < FRAME.size:
        raise RejectedInputError("not a framed alert", code="bad_alert_frame")
    zero, number = FRAME.unpack_from(alert)
    if zero or number not in known_ids():
        raise RejectedInputError(f"not an alert of the schemas {known_ids()}", code="bad_alert_frame")
    return int(number)


def read_alerts(path: Path) -> Iterator[Record]:
    """Records of an alert file; ``RejectedInputError`` at what :func:`write_alerts` did not write."""
    with path.open("rb") as file:
        if not _skip_prefix(file):
            raise RejectedInputError(f"{path.name} is no alert file of schemas {known_ids()}", code="bad_alert_file")
        file.seek(0)
        try:
            for record in fastavro.reader(file):
                assert isinstance(record, dict)
                yield record
        except GARBLED as error:
            raise RejectedInputError(f"{path.name} is no whole alert file", code="bad_alert_file") from error


def read_ids(path: Path) -> NDArray[np.int64]:
    """diaSourceIds of an alert file in its order, every byte of its alerts read; older files are decoded.

    Raises ``RejectedInputError`` for a file that is not whole, ``OSError`` for one that cannot be read.
    """
    try:
        with path.open("rb") as file:
            if not _skip_prefix(file):
                file.seek(0)
                return _decoded_ids(file)
            if _take(file) != _INDEX:
                raise ValueError("no index")
            index = _take(file)
            if file.read(1) != b"\0":
                raise ValueError("no whole header")
            crc, *sizes = map(int, index.split(b" "))
            return _indexed_ids(file, crc, sizes)
    except (*GARBLED, StopIteration, KeyError) as error:
        raise RejectedInputError(f"{path.name} is no whole alert file: {error}", code="bad_alert_file") from error


def _indexed_ids(file: BufferedReader, crc: int, sizes: list[int]) -> NDArray[np.int64]:
    sync, found, n_done, ids = file.read(_SYNC_BYTES), 0, 0, np.empty(len(sizes), np.int64)
    while n_done < len(sizes):
        count, size = _long(file), _long(file)
        mine = sizes[n_done : n_done + count]
        content = file.read(size) if 0 < count == len(mine) and size == sum(mine) else b""
        if len(content) != size or file.read(_SYNC_BYTES) != sync:
            raise ValueError("a block is not whole")
        found = zlib.crc32(content, found)
        at = 0
        for number, length in enumerate(mine, n_done):
            ids[number] = _first_long(content, at)
            at += length
        n_done += count
    if found != crc or file.read(1):
        raise ValueError("not the bytes that were written")
    return ids


def _decoded_ids(file: BufferedReader) -> NDArray[np.int64]:
    reader = fastavro.reader(file)
    schema: Any = reader.writer_schema
    wanted = {"type": "record", "name": schema["name"], "fields": [{"name": "diaSourceId", "type": "long"}]}
    file.seek(0)
    found = []
    for record in fastavro.reader(file, wanted):
        assert isinstance(record, dict)
        found.append(record["diaSourceId"])
    return np.array(found, np.int64)


def _body(alert: bytes, number: int) -> memoryview:
    """An alert of a schema without its frame."""
    if schema_of(alert) != number:
        raise RejectedInputError("alerts of several schemas do not go into one file", code="bad_alert_frame")
    return memoryview(alert)[FRAME.size :]


def _index(bodies: Iterable[memoryview]) -> bytes:
    crc, sizes = 0, []
    for body in bodies:
        crc = zlib.crc32(body, crc)
        sizes.append(len(body))
    return b" ".join(b"%d" % number for number in (crc, *sizes))


@cache
def _prefix(number: int) -> bytes:
    """The header up to the index."""
    pairs = _pair(b"avro.schema", schema_json(number).encode()) + _pair(b"avro.codec", b"null")
    return _MAGIC + zigzag(3) + pairs


def _skip_prefix(file: BufferedReader) -> bool:
    """Whether a file begins as ours of a known schema do; then it stands behind that."""
    for prefix in map(_prefix, known_ids()):
        file.seek(0)
        if file.read(len(prefix)) == prefix:
            return True
    return False


def _pair(key: bytes, value: bytes) -> bytes:
    return zigzag(len(key)) + key + zigzag(len(value)) + value


def _take(file: BufferedReader) -> bytes:
    """Bytes or text with its length before it."""
    length = _long(file)
    data = file.read(length) if length >= 0 else b""
    if len(data) != length:
        raise EOFError("the file ends")
    return data


def _long(file: BufferedReader) -> int:
    """An Avro long."""
    data = bytearray()
    while len(data) < _LONG_BYTES:
        data += file.read(1) or b"\0"
        if data[-1] < 0x80:
            return _first_long(data, 0)
    raise ValueError("no Avro long")


def _first_long(data: bytes | bytearray, at: int) -> int:
    """The Avro long at a place."""
    value = 0
    for k in range(_LONG_BYTES):
        byte = data[at + k]
        value |= (byte & 0x7F) << 7 * k
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1)
    raise ValueError("no Avro long")


def _blocks(bodies: Iterable[memoryview]) -> Iterator[list[memoryview]]:
    """In blocks of a few megabytes."""
    block: list[memoryview] = []
    size = 0
    for body in bodies:
        block.append(body)
        size += len(body)
        if size >= _BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block
