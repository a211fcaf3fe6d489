"""History tables: empty, packed, joined."""

import numpy as np

from core.contracts.bundle import History
from core.contracts.catalogs import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, Catalog


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
            dia_objects=np.concatenate([h.dia_objects for h in histories]),
            dia_sources=np.concatenate([h.dia_sources for h in histories]),
            dia_forced_sources=np.concatenate([h.dia_forced_sources for h in histories]),
        )
    )


def _sorted(rows: Catalog, time: str) -> Catalog:
    return rows[np.lexsort((rows[time], rows["diaObjectId"]))]
