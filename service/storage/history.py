"""Twelve months of history in Redis, per sky cell: a ``base`` read from the APDB, a ``tail`` of what came since."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final, Protocol

import msgpack
import numpy as np
import redis
from numpy.typing import NDArray

from core.camera import Camera
from core.contracts.bundle import History, PartSource
from core.contracts.catalogs import Catalog, take_rows
from core.errors import ConfigurationError, TransientError
from service.storage.codec import SPOILED
from service.storage.recipe import BundleKey
from service.storage.sky_pixels import HISTORY_ORDER, cell_circle, cells_of, detector_cells
from service.storage.tables import (
    empty_history,
    join_histories,
    pack_history,
    pack_rows,
    unpack_history,
    unpack_rows,
    with_latest_objects,
)
from service.wire import unpack_msgpack

FORMAT: Final = 1
"""Of a base: arrays compressed where it pays."""
TAIL_FORMAT: Final = 2
"""Of a tail entry: rows as they lie in memory. Compressed, 750 entries of 24 visits took 100 ms to read."""
BASE_TTL_S: Final = 3600
PRUNE_AFTER_S: Final = 900.0
"""A tail entry is kept this long after a base was first seen to hold it, for workers that still have an older base.

For them, too, what is younger is appended again after a flush.
"""
WARM_LEVELS: Final = 3
"""HEALPix levels above the cells, whose cells are read from the APDB at once: half a degree wide."""
MAX_TAIL: Final = 32
"""Visits in the tail of a cell, beyond which its base is read anew ..."""
REFRESH_S: Final = 300.0
"""... if it is so old: else a field visited all night, or one kept warm, would have a tail too long to read in time."""
MARGIN_DEG: Final = 5 / 3600
_NOWHERE: Final = (0.0, -90.0, 1e-4, 51544.0)
SENTINEL_FIELD: Final = "1"


class RegionReader(Protocol):
    """What is asked of the APDB (``service.storage.apdb``, whose packages take seconds to import)."""

    def read_region(self, ra_deg: float, dec_deg: float, radius_deg: float, mjd_tai: float) -> History:
        """History of a circle, twelve months before a time."""


class HistoryStore:
    """History by sky cell.

    Parameters
    ----------
    client : redis-py client of the cache, None to read the APDB only.
    apdb : where bases come from, None for none.
    now_s : clock for the age of tail entries.
    """

    def __init__(
        self,
        client: Any | None,
        apdb: RegionReader | None,
        camera: Camera,
        now_s: Callable[[], float],
        namespace: str = "sub60",
        base_ttl_s: int = BASE_TTL_S,
        prune_after_s: float = PRUNE_AFTER_S,
    ) -> None:
        self._client = client
        self._apdb = apdb
        self._camera = camera
        self._now_s = now_s
        self._prefix = f"{namespace}:history"
        self._base_ttl_s = base_ttl_s
        self.prune_after_s = prune_after_s
        """How long a worker may have a base."""

    def warm_up(self) -> None:
        """Open the APDB by reading an empty piece of sky; one that does not answer now may do so later."""
        if self._apdb is not None:
            with suppress(TransientError):
                self._apdb.read_region(*_NOWHERE)

    def cells(self, key: BundleKey) -> list[int]:
        """Sky cells of a detector's predicted footprint."""
        return detector_cells(self._camera, key.detector, key.ra_deg, key.dec_deg, key.rot_sky_deg)

    def load(self, key: BundleKey) -> tuple[History, PartSource]:
        """Bases of a detector's cells; those Redis lacks are read from the APDB and left there for the next."""
        cells = self.cells(key)
        bases, outgrown = self._read_bases(cells)
        missing = [cell for cell in cells if cell not in bases]
        if outgrown:
            try:
                bases |= self._refresh([*missing, *outgrown], key.mjd_tai)
                return with_latest_objects(join_histories(list(bases.values()))), PartSource.COLD
            except TransientError:
                pass  # what is old serves, too
        if missing:
            bases |= self._refresh(missing, key.mjd_tai)
        rows = with_latest_objects(join_histories(list(bases.values())))
        return rows, PartSource.COLD if missing else PartSource.REDIS

    def warm(self, cells: Iterable[int], mjd_tai: float, keep_s: int, done: Callable[[int], None]) -> int:
        """Leave the bases of cells in Redis for ``keep_s``, those it lacks; how many rows that was.

        ``done`` hears of each number of cells that is there. Raises ``TransientError`` where the APDB or Redis does not
        answer.
        """
        if self._client is None or self._apdb is None:
            raise ConfigurationError("a history needs an APDB and a cache to be warmed", code="nothing_to_warm")
        groups: dict[int, list[int]] = {}
        for cell in cells:
            groups.setdefault(cell >> (2 * WARM_LEVELS), []).append(cell)
        n_rows = 0
        for _, group in sorted(groups.items()):
            try:
                there = self._client.exists
                missing = [cell for cell in group if not there(self._base_key(cell))]
                fresh = self._read_cold(missing, mjd_tai) if missing else {}
                self._store_bases(fresh, keep_s)
            except redis.RedisError as error:
                raise TransientError("the cache does not answer", code="history_unavailable") from error
            n_rows += sum(base.dia_sources.size + base.dia_forced_sources.size for base in fresh.values())
            done(len(group))
        return n_rows

    def read_tail(self, cells: Iterable[int]) -> History:
        """What the sink appended for these cells; the caller's client bounds the time.

        Raises ``TransientError`` when the server does not answer in time: the visit goes on without.
        """
        if self._client is None:
            return empty_history()
        try:
            pipeline = self._client.pipeline(transaction=False)
            for cell in cells:
                pipeline.hvals(self._tail_key(cell))
            values = pipeline.execute()
        except redis.RedisError as error:
            raise TransientError("the history's tail cannot be read", code="history_unavailable") from error
        entries = (_unpack_entry(value) for values_of_cell in values for value in values_of_cell)
        return join_histories([entry[1] for entry in entries if entry is not None])

    def append(self, visit: int, detector: int, rows: History) -> None:
        """Add one visit-detector's rows to the tails of their cells; the same again changes nothing."""
        if self._client is None:
            return
        added_s = self._now_s()
        try:
            pipeline = self._client.pipeline(transaction=False)
            for cell, part in split_by_cell(rows).items():
                entry = bytes(msgpack.packb((TAIL_FORMAT, added_s, pack_rows(part))))
                pipeline.hset(self._tail_key(cell), f"{visit}:{detector}", entry)
            pipeline.execute()
        except redis.RedisError as error:
            raise TransientError("the history's tail cannot be written", code="history_unavailable") from error

    def is_marked(self) -> bool:
        """Whether the sentinel is there; if not, Redis was flushed and the tails must be appended again."""
        if self._client is None:
            return True
        try:
            return bool(self._client.exists(self._sentinel_key))
        except redis.RedisError as error:
            raise TransientError("the history's sentinel cannot be read", code="history_unavailable") from error

    def mark(self) -> None:
        """Set the sentinel."""
        if self._client is None:
            return
        try:
            self._client.set(self._sentinel_key, SENTINEL_FIELD)
        except redis.RedisError as error:
            raise TransientError("the history's sentinel cannot be set", code="history_unavailable") from error

    def _read_bases(self, cells: list[int]) -> tuple[dict[int, History], list[int]]:
        """Bases that are there, and the cells whose tail has outgrown theirs."""
        if self._client is None or not cells:
            return {}, []
        try:
            pipeline = self._client.pipeline(transaction=False)
            pipeline.mget([self._base_key(cell) for cell in cells])
            for cell in cells:
                pipeline.hlen(self._tail_key(cell))
            values, *lengths = pipeline.execute()
        except redis.RedisError:
            return {}, []
        bases, outgrown, now_s = {}, [], self._now_s()
        for cell, value, n_appended in zip(cells, values, lengths, strict=True):
            entry = _unpack_entry(value) if value is not None else None
            if entry is None:
                continue
            bases[cell] = entry[1]
            if self._apdb is not None and n_appended > MAX_TAIL and now_s - entry[0] > REFRESH_S:
                outgrown.append(cell)
        return bases, outgrown

    def _refresh(self, cells: list[int], mjd_tai: float) -> dict[int, History]:
        """Bases from the APDB, left in Redis."""
        fresh = self._read_cold(cells, mjd_tai)
        self._write_bases(fresh)
        return fresh

    def _read_cold(self, cells: list[int], mjd_tai: float) -> dict[int, History]:
        """Bases of whole cells from the APDB, an empty one where it has nothing."""
        bases = dict.fromkeys(cells, empty_history())
        if self._apdb is not None:
            ra, dec, radius = cell_circle(cells, HISTORY_ORDER)
            rows = self._apdb.read_region(ra, dec, radius + MARGIN_DEG, mjd_tai)
            bases |= {cell: part for cell, part in split_by_cell(rows).items() if cell in bases}
        return bases

    def _write_bases(self, bases: dict[int, History]) -> None:
        with suppress(redis.RedisError):  # The next load reads the APDB again; this one has what it needs.
            self._store_bases(bases, self._base_ttl_s)

    def _store_bases(self, bases: dict[int, History], keep_s: int) -> None:
        """Set bases, and take out of the tails what bases have held for a while."""
        if self._client is None or not bases:
            return
        now_s = self._now_s()
        pipeline = self._client.pipeline(transaction=False)
        for cell, base in bases.items():
            pipeline.set(self._base_key(cell), _pack_entry(now_s, base), ex=keep_s)
            pipeline.hgetall(self._tail_key(cell))
            pipeline.hgetall(self._held_key(cell))
        answers = pipeline.execute()
        pipeline = self._client.pipeline(transaction=False)
        for (cell, base), tail, since in zip(bases.items(), answers[1::3], answers[2::3], strict=True):
            held = [field for field, value in tail.items() if _is_held(base, value)]
            if fresh := {field: now_s for field in held if field not in since}:
                pipeline.hset(self._held_key(cell), mapping=fresh)
            gone = [f for f in held if f in since and now_s - float(since[f]) >= self.prune_after_s]
            if gone:
                pipeline.hdel(self._tail_key(cell), *gone)
                pipeline.hdel(self._held_key(cell), *gone)
        pipeline.execute()

    @property
    def _sentinel_key(self) -> str:
        return f"{self._prefix}:sentinel"

    def _base_key(self, cell: int) -> str:
        return f"{self._prefix}:base:{HISTORY_ORDER}:{cell}"

    def _tail_key(self, cell: int) -> str:
        return f"{self._prefix}:tail:{HISTORY_ORDER}:{cell}"

    def _held_key(self, cell: int) -> str:
        """Fields of the tail → when a base was first seen to hold them."""
        return f"{self._prefix}:held:{HISTORY_ORDER}:{cell}"


def split_by_cell(rows: History) -> dict[int, History]:
    """Rows by the sky cell of their own position."""
    tables = (rows.dia_objects, rows.dia_sources, rows.dia_forced_sources)
    cells = [cells_of(table["ra"], table["dec"], HISTORY_ORDER) for table in tables]
    groups = [_groups(table, cell) for table, cell in zip(tables, cells, strict=True)]
    none = (rows.dia_objects[:0], rows.dia_sources[:0], rows.dia_forced_sources[:0])
    return {
        cell: History(
            dia_objects=groups[0].get(cell, none[0]),
            dia_sources=groups[1].get(cell, none[1]),
            dia_forced_sources=groups[2].get(cell, none[2]),
        )
        for cell in sorted(set().union(*groups))
    }


def _groups(table: Catalog, cells: NDArray[np.int64]) -> dict[int, Catalog]:
    order = np.argsort(cells, kind="stable")
    unique, first = np.unique(cells[order], return_index=True)
    parts = np.split(take_rows(table, order), first[1:]) if unique.size else []
    return {int(cell): np.ascontiguousarray(part) for cell, part in zip(unique, parts, strict=True)}


def _pack_entry(added_s: float, rows: History) -> bytes:
    return bytes(msgpack.packb((FORMAT, added_s, pack_history(rows))))


def _unpack_entry(data: bytes) -> tuple[float, History] | None:
    """When an entry was added and its rows; None for another format or a spoiled one."""
    try:
        number, added_s, tables = unpack_msgpack(data, use_list=False)
        rows = unpack_rows(*tables) if number == TAIL_FORMAT else unpack_history(tables) if number == FORMAT else None
    except SPOILED:
        return None
    return None if rows is None else (added_s, rows)


def _is_held(base: History, entry: bytes) -> bool:
    """Whether all sources of a tail entry are in the base."""
    unpacked = _unpack_entry(entry)
    if unpacked is None:
        return False
    rows = unpacked[1]
    return bool(
        np.isin(rows.dia_sources["diaSourceId"], base.dia_sources["diaSourceId"]).all()
        and np.isin(rows.dia_forced_sources["diaForcedSourceId"], base.dia_forced_sources["diaForcedSourceId"]).all()
    )
