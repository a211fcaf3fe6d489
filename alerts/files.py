"""Alert files: Avro object containers written from framed alerts without decoding them."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import fastavro

from alerts.codec import FRAME, FRAME_BYTES, GARBLED, Record, zigzag
from alerts.schema import schema_json
from core.errors import RejectedInputError

_MAGIC: Final = b"Obj\x01"
_BLOCK_BYTES: Final = 4 * 1024 * 1024


def write_alerts(path: Path, alerts: Iterable[bytes]) -> int:
    """Write framed alerts to an Avro file (uncompressed), whole or not at all; returns their number.

    The same alerts give the same bytes: the sync marker is a digest of the name.
    """
    sync = hashlib.md5(path.name.encode(), usedforsecurity=False).digest()
    partial = path.with_name(path.name + ".partial")
    total = 0
    with partial.open("wb") as file:
        file.write(_header() + sync)
        for block in _blocks(alerts):
            total += len(block)
            content = b"".join(block)
            file.write(zigzag(len(block)) + zigzag(len(content)) + content + sync)
    partial.replace(path)
    return total


def read_alerts(path: Path) -> Iterator[Record]:
    """Records of an alert file; ``RejectedInputError`` at what :func:`write_alerts` did not write."""
    header = _header()
    with path.open("rb") as file:
        if file.read(len(header)) != header:
            raise RejectedInputError(f"{path.name} is no alert file of this schema", code="bad_alert_file")
        file.seek(0)
        try:
            for record in fastavro.reader(file):
                assert isinstance(record, dict)
                yield record
        except GARBLED as error:
            raise RejectedInputError(f"{path.name} is no whole alert file", code="bad_alert_file") from error


def _header() -> bytes:
    schema = schema_json().encode()
    entries = ((b"avro.schema", schema), (b"avro.codec", b"null"))
    pairs = b"".join(zigzag(len(k)) + k + zigzag(len(v)) + v for k, v in entries)
    return _MAGIC + zigzag(len(entries)) + pairs + b"\0"


def _blocks(alerts: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Bodies without their frames, in blocks of a few megabytes."""
    block: list[bytes] = []
    size = 0
    for alert in alerts:
        if alert[: FRAME.size] != FRAME_BYTES:
            raise RejectedInputError("not an alert of this schema", code="bad_alert_frame")
        block.append(alert[FRAME.size :])
        size += len(alert)
        if size >= _BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block
