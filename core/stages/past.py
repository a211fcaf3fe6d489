"""What a visit may use of the history: a prefetched base under a short tail of what was appended to it since.

The base is large and is only looked into, never copied or sorted: what comes after the pixels takes as long for twelve
months as for one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from core.contracts.bundle import History, HistoryIndex, TableIndex
from core.contracts.catalogs import Catalog, join_rows, take_rows
from core.contracts.exposure import VisitInfo

HISTORY_DAYS: Final = 365.0
IN_TAIL: Final = -1
"""Base row of a row that the base does not have."""
_JUDGED: Final = ("midpointMjdTai", "visit", "detector", "timeWithdrawnMjdTai")

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRows:
    """Earlier rows of chosen objects in one table, object after object in the order of the ids, each ordered by time.

    Parameters
    ----------
    start : (n + 1,) rows of object i are ``start[i]:start[i + 1]``.
    base : table of which most rows are.    index : of it.    base_row : (rows,) row in it, or IN_TAIL.
    tail : table of the others.    tail_row : (rows,) row in it; 0 where ``base_row`` says another.
    """

    start: Int64
    base: Catalog
    index: TableIndex
    base_row: Int64
    tail: Catalog
    tail_row: Int64

    def column(self, name: str) -> NDArray[np.generic]:
        """One column of all rows."""
        whole: NDArray[np.generic] = self.index.columns.get(name, self.base[name])
        appended = self.base_row == IN_TAIL
        # a row of the tail takes any row of the base first
        values = whole.take(self.base_row, mode="clip") if whole.size else np.empty(appended.size, whole.dtype)
        if appended.any():
            values[appended] = self.tail[name][self.tail_row[appended]]
        return values


class Past:
    """The history of a detector as one visit sees it: rows of other visits, of the 365 days before its midpoint.

    Parameters
    ----------
    base : sorted and free of repeats.    index : of the base.    tail : in any order, repeats allowed.
    """

    def __init__(self, base: History, index: HistoryIndex, tail: History, visit_info: VisitInfo) -> None:
        self.base, self._index, self._tail, self._visit_info = base, index, tail, visit_info
        self.dia_objects: Catalog = _latest_objects(base.dia_objects, tail.dia_objects)
        """The latest version of each object, by id."""

    @classmethod
    def of(cls, base: History, visit_info: VisitInfo) -> "Past":
        """A base without anything appended."""
        tail = History(
            dia_objects=base.dia_objects[:0], dia_sources=base.dia_sources[:0],
            dia_forced_sources=base.dia_forced_sources[:0],
        )  # fmt: skip
        return cls(base, HistoryIndex.of(base), tail, visit_info)

    def dia_sources(self, ids: Int64) -> PastRows:
        """DIASources of objects, ids ascending."""
        return self._rows(self.base.dia_sources, self._index.dia_sources, self._tail.dia_sources, "diaSourceId", ids)

    def dia_forced_sources(self, ids: Int64) -> PastRows:
        """Forced sources of objects, ids ascending."""
        return self._rows(
            self.base.dia_forced_sources, self._index.dia_forced_sources, self._tail.dia_forced_sources,
            "diaForcedSourceId", ids,
        )  # fmt: skip

    def _rows(self, base: Catalog, index: TableIndex, tail: Catalog, key: str, ids: Int64) -> PastRows:
        begin, end = (
            np.searchsorted(index.columns["diaObjectId"], ids, "left"),
            np.searchsorted(index.columns["diaObjectId"], ids, "right"),
        )
        counts = end - begin
        owner = np.repeat(np.arange(ids.size), counts)
        base_row = np.arange(owner.size) + np.repeat(begin - (np.cumsum(counts) - counts), counts)
        keep = _is_usable({name: index.columns[name].take(base_row) for name in _JUDGED}, self._visit_info)
        owner, base_row = owner[keep], base_row[keep]
        tail = self._appended(base, base_row, tail, key, ids)
        if tail.size == 0:
            start = np.searchsorted(owner, np.arange(ids.size + 1))
            none = np.zeros_like(base_row)
            return PastRows(start=start, base=base, index=index, base_row=base_row, tail=tail, tail_row=none)
        owner = np.concatenate([owner, np.searchsorted(ids, tail["diaObjectId"])])
        midpoint = np.concatenate([index.columns["midpointMjdTai"][base_row], tail["midpointMjdTai"]])
        rows = np.concatenate([base_row, np.full(tail.size, IN_TAIL)])
        tail_row = np.concatenate([np.zeros_like(base_row), np.arange(tail.size)])
        order = np.lexsort((midpoint, owner))
        return PastRows(
            start=np.searchsorted(owner[order], np.arange(ids.size + 1)),
            base=base,
            index=index,
            base_row=rows[order],
            tail=tail,
            tail_row=tail_row[order],
        )

    def _appended(self, base: Catalog, base_row: Int64, tail: Catalog, key: str, ids: Int64) -> Catalog:
        """Rows of the tail that count and that the base does not have, each once."""
        tail = take_rows(tail, np.isin(tail["diaObjectId"], ids))
        tail = take_rows(tail, np.unique(tail[key], return_index=True)[1])
        tail = take_rows(tail, _is_usable({name: tail[name] for name in _JUDGED}, self._visit_info))
        return take_rows(tail, ~np.isin(tail[key], base[key][base_row])) if tail.size else tail


def _latest_objects(base: Catalog, tail: Catalog) -> Catalog:
    if tail.size == 0:
        return base
    objects = join_rows([base, tail])
    ordered = take_rows(objects, np.lexsort((objects["validityStartMjdTai"], objects["diaObjectId"])))
    is_last = np.ones(ordered.size, bool)
    is_last[:-1] = ordered["diaObjectId"][1:] != ordered["diaObjectId"][:-1]
    return take_rows(ordered, is_last)


def _is_usable(columns: Mapping[str, NDArray[Any]], visit_info: VisitInfo) -> NDArray[np.bool_]:
    """Of the 365 days before the visit, of another visit or detector, not withdrawn."""
    before, midpoint = visit_info.midpoint_mjd_tai, columns["midpointMjdTai"]
    mine = (columns["visit"] == visit_info.visit) & (columns["detector"] == visit_info.detector)
    is_withdrawn = ~np.isnan(columns["timeWithdrawnMjdTai"])
    keep: NDArray[np.bool_] = (midpoint < before) & (midpoint >= before - HISTORY_DAYS) & ~mine & ~is_withdrawn
    return keep
