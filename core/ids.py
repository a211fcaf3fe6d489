"""Identifiers as pure functions of (release, visit, detector, row)."""

from datetime import date
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.errors import RejectedInputError

_EPOCH: Final = date(2000, 1, 1)
_SEQUENCE_DIGITS: Final = 100_000
_BITS: Final = {"release": 6, "day": 16, "sequence": 17, "detector": 8, "row": 16}


def pack_visit(day_obs: int, sequence: int) -> int:
    """Visit number ``YYYYMMDDsssss`` of one exposure of an observing day."""
    if not 0 <= sequence < _SEQUENCE_DIGITS:
        raise RejectedInputError("sequence number out of range", code="bad_visit", sequence=sequence)
    return day_obs * _SEQUENCE_DIGITS + sequence


def unpack_visit(visit: int) -> tuple[int, int]:
    """Inverse of :func:`pack_visit`: ``(day_obs, sequence)``."""
    return divmod(visit, _SEQUENCE_DIGITS)


def source_ids(release: int, visit: int, detector: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """64-bit ids for ``rows`` of one visit-detector, ``rows`` counted in the detection list before any filter.

    Layout from the top: sign 0, release 6 bits, days since 2000-01-01 16, sequence 17, detector 8, row + 1 16; never 0.
    Used for diaSourceId and, counted in their own list, for diaForcedSourceId. Positive int64.
    """
    day_obs, sequence = unpack_visit(visit)
    day = date(day_obs // 10_000, day_obs // 100 % 100, day_obs % 100).toordinal() - _EPOCH.toordinal()
    for name, value in (("release", release), ("day", day), ("sequence", sequence), ("detector", detector)):
        if not 0 <= value < 1 << _BITS[name]:
            raise RejectedInputError(f"{name} does not fit its bits of an id", code="bad_visit", **{name: value})
    if rows.size and not (rows.min() >= 0 and rows.max() < (1 << _BITS["row"]) - 1):
        raise RejectedInputError("row does not fit its bits of an id", code="bad_visit", rows=int(rows.max()))
    base = release
    for name, value in (("day", day), ("sequence", sequence), ("detector", detector), ("row", 0)):
        base = base << _BITS[name] | value
    return rows.astype(np.int64) + np.int64(base + 1)


def visits_of(ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Visit and detector of ids made by :func:`source_ids`, (n,) each."""
    rest = ids >> _BITS["row"]
    detector = rest & ((1 << _BITS["detector"]) - 1)
    rest = rest >> _BITS["detector"]
    sequence = rest & ((1 << _BITS["sequence"]) - 1)
    day = (rest >> _BITS["sequence"]) & ((1 << _BITS["day"]) - 1)
    date_ = np.datetime64(_EPOCH, "D") + day.astype("timedelta64[D]")
    month = date_.astype("datetime64[M]")
    months = month.astype(np.int64) + 1970 * 12
    day_obs = (months // 12) * 10_000 + (months % 12 + 1) * 100 + (date_ - month).astype(np.int64) + 1
    return day_obs * _SEQUENCE_DIGITS + sequence, detector
