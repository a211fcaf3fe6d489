"""History tables: empty, packed, joined."""

import hashlib
import zlib
from dataclasses import replace
from typing import Final

import numpy as np

from core.contracts.bundle import History
from core.contracts.catalogs import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, Catalog, join_rows, take_rows
from service.storage.codec import ArrayManifest, array_dtype, pack_array, unpack_array

_DTYPES: Final = (DIA_OBJECT, DIA_SOURCE, DIA_FORCED_SOURCE)
_COLUMNS: Final = hashlib.sha256(repr([dtype.descr for dtype in _DTYPES]).encode()).hexdigest()[:16]


def empty_history() -> History:
    """No rows."""
    return History(
        dia_objects=np.empty(0, DIA_OBJECT),
        dia_sources=np.empty(0, DIA_SOURCE),
        dia_forced_sources=np.empty(0, DIA_FORCED_SOURCE),
    )


def sort_history(history: History) -> History:
    """Each table by (diaObjectId, time)."""
    return History(
        dia_objects=_sorted(history.dia_objects, "validityStartMjdTai"),
        dia_sources=_sorted(history.dia_sources, "midpointMjdTai"),
        dia_forced_sources=_sorted(history.dia_forced_sources, "midpointMjdTai"),
    )


def join_histories(histories: list[History]) -> History:
    """All rows, sorted by (diaObjectId, time)."""
    if not histories:
        return empty_history()
    return sort_history(
        History(
            dia_objects=join_rows([h.dia_objects for h in histories]),
            dia_sources=join_rows([h.dia_sources for h in histories]),
            dia_forced_sources=join_rows([h.dia_forced_sources for h in histories]),
        )
    )


def _sorted(rows: Catalog, time: str) -> Catalog:
    return take_rows(rows, np.lexsort((rows[time], rows["diaObjectId"])))


def with_latest_objects(history: History) -> History:
    """Sorted tables with each DIAObject once, in its latest version: cells read at different times may hold two."""
    ids = history.dia_objects["diaObjectId"]
    is_last = np.append(ids[1:] != ids[:-1], True) if ids.size else np.zeros(0, bool)
    if is_last.all():
        return history
    return replace(history, dia_objects=take_rows(history.dia_objects, is_last))


def pack_rows(history: History) -> tuple[str, int, tuple[bytes, ...]]:
    """Few rows as they lie in memory: which columns, checksum, each table's bytes. Reading them back copies nothing."""
    parts = tuple(table.tobytes() for table in (history.dia_objects, history.dia_sources, history.dia_forced_sources))
    return _COLUMNS, _checksum(parts), parts


def unpack_rows(columns: object, checksum: object, parts: tuple[bytes, ...]) -> History | None:
    """Inverse of :func:`pack_rows`; None for spoiled rows or rows of other columns."""
    if columns != _COLUMNS or len(parts) != len(_DTYPES) or checksum != _checksum(parts):
        return None
    if any(len(part) % dtype.itemsize for part, dtype in zip(parts, _DTYPES, strict=True)):
        return None
    objects, sources, forced = (np.frombuffer(part, dtype) for part, dtype in zip(parts, _DTYPES, strict=True))
    return History(dia_objects=objects, dia_sources=sources, dia_forced_sources=forced)


def _checksum(parts: tuple[bytes, ...]) -> int:
    total = 0
    for part in parts:
        total = zlib.crc32(part, total)
    return total


def pack_history(history: History) -> list[tuple[bytes, list[bytes]]]:
    """Each table's manifest and pieces."""
    packed = [pack_array(table) for table in (history.dia_objects, history.dia_sources, history.dia_forced_sources)]
    return [(array.manifest(), [bytes(piece) for piece in array.pieces]) for array in packed]


def unpack_history(tables: tuple[tuple[bytes, tuple[bytes, ...]], ...]) -> History | None:
    """Inverse of :func:`pack_history`; None for a spoiled one or one of other columns."""
    manifests = [(ArrayManifest.read(manifest), pieces) for manifest, pieces in tables]
    arrays = [manifest.with_pieces(pieces) if manifest is not None else None for manifest, pieces in manifests]
    if any(array is None or array_dtype(array) != dtype for array, dtype in zip(arrays, _DTYPES, strict=True)):
        return None
    objects, sources, forced = (unpack_array(array) for array in arrays if array is not None)
    return History(dia_objects=objects, dia_sources=sources, dia_forced_sources=forced)
