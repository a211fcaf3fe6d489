"""Join the prefetched history with what was appended to it since."""

from typing import Final

import numpy as np

from core.contracts.bundle import History
from core.contracts.catalogs import Catalog, join_rows, take_rows
from core.contracts.exposure import VisitInfo

HISTORY_DAYS: Final = 365.0


def merge_history(base: History, tail: History, visit_info: VisitInfo) -> History:
    """History usable by a visit: base and tail, each row once, before my midpoint and of another (visit, detector).

    The base is sorted and free of repeats by contract, the tail need not be. For DIAObjects the version with the
    latest ``validityStartMjdTai`` wins. Rows older than 365 days are left out. Sorted by (diaObjectId, midpointMjdTai).
    """
    return History(
        dia_objects=_latest_objects(base.dia_objects, tail.dia_objects),
        dia_sources=_merge_rows(base.dia_sources, tail.dia_sources, "diaSourceId", visit_info),
        dia_forced_sources=_merge_rows(
            base.dia_forced_sources, tail.dia_forced_sources, "diaForcedSourceId", visit_info
        ),
    )


def _latest_objects(base: Catalog, tail: Catalog) -> Catalog:
    if tail.size == 0:
        return base
    objects = join_rows([base, tail])
    ordered = take_rows(objects, np.lexsort((objects["validityStartMjdTai"], objects["diaObjectId"])))
    is_last = np.ones(ordered.size, bool)
    is_last[:-1] = ordered["diaObjectId"][1:] != ordered["diaObjectId"][:-1]
    return take_rows(ordered, is_last)


def _merge_rows(base: Catalog, tail: Catalog, key: str, visit_info: VisitInfo) -> Catalog:
    base = _usable(base, visit_info)
    tail = _usable(tail, visit_info)
    if tail.size == 0:
        return base
    tail = take_rows(tail, np.unique(tail[key], return_index=True)[1])
    rows = join_rows([base, take_rows(tail, ~np.isin(tail[key], base[key]))])
    return take_rows(rows, np.lexsort((rows["midpointMjdTai"], rows["diaObjectId"])))


def _usable(rows: Catalog, visit_info: VisitInfo) -> Catalog:
    midpoint = visit_info.midpoint_mjd_tai
    mine = (rows["visit"] == visit_info.visit) & (rows["detector"] == visit_info.detector)
    keep = (rows["midpointMjdTai"] < midpoint) & (rows["midpointMjdTai"] >= midpoint - HISTORY_DAYS) & ~mine
    return rows if keep.all() else take_rows(rows, keep)
