"""Join the prefetched history with what was appended to it since."""

import numpy as np
from numpy.typing import NDArray

from core.contracts.bundle import History
from core.contracts.catalogs import Catalog
from core.contracts.exposure import VisitInfo

HISTORY_DAYS = 365.0


def merge_history(base: History, tail: History, visit_info: VisitInfo) -> History:
    """History usable by a visit: base and tail, each row once, before my midpoint and of another (visit, detector).

    For DIAObjects the version with the latest ``validityStartMjdTai`` wins. Rows older than 365 days are left out.
    Sorted by (diaObjectId, midpointMjdTai).
    """
    return History(
        dia_objects=_latest_objects(np.concatenate([base.dia_objects, tail.dia_objects]), visit_info),
        dia_sources=_rows_before(
            np.concatenate([base.dia_sources, tail.dia_sources]), ["diaSourceId"], visit_info
        ),
        dia_forced_sources=_rows_before(
            np.concatenate([base.dia_forced_sources, tail.dia_forced_sources]),
            ["diaObjectId", "visit", "detector"],
            visit_info,
        ),
    )


def _latest_objects(objects: Catalog, visit_info: VisitInfo) -> Catalog:
    usable = objects[objects["validityStartMjdTai"] < visit_info.exposure_end_mjd_tai + HISTORY_DAYS]
    order = np.lexsort((usable["validityStartMjdTai"], usable["diaObjectId"]))
    ordered = usable[order]
    is_last = np.ones(ordered.size, bool)
    is_last[:-1] = ordered["diaObjectId"][1:] != ordered["diaObjectId"][:-1]
    return np.ascontiguousarray(ordered[is_last])


def _rows_before(rows: Catalog, key: list[str], visit_info: VisitInfo) -> Catalog:
    midpoint = visit_info.midpoint_mjd_tai
    own = (rows["visit"] == visit_info.visit) & (rows["detector"] == visit_info.detector)
    usable = rows[(rows["midpointMjdTai"] < midpoint) & (rows["midpointMjdTai"] >= midpoint - HISTORY_DAYS) & ~own]
    order = np.lexsort((usable["midpointMjdTai"], usable["diaObjectId"]))
    ordered = usable[order]
    return np.ascontiguousarray(ordered[_first_of_each(ordered, key)])


def _first_of_each(rows: Catalog, key: list[str]) -> NDArray[np.bool_]:
    """True at the first row of each distinct key, keeping the order of the rows."""
    values = np.stack([rows[name].astype(np.int64) for name in key], axis=1)
    keep = np.zeros(rows.size, bool)
    if rows.size:
        keep[np.unique(values, axis=0, return_index=True)[1]] = True
    return keep
