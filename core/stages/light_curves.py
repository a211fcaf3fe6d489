"""Light curves of chosen DIAObjects: rows of the history and of this visit, gathered object after object."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.contracts.catalogs import BANDS, Catalog

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class LightCurves:
    """Rows of one table that belong to given objects, object after object, each ordered by time; ``start`` (n + 1,)."""

    start: Int64
    columns: dict[str, NDArray[np.generic]]

    def float64(self, name: str) -> Float64:
        """One column as float64."""
        return np.ascontiguousarray(self.columns[name], np.float64)

    def band(self) -> NDArray[np.int8]:
        """Index in ``BANDS`` of each row."""
        return band_index(self.columns["band"])


def gather(ids: Int64, past: Catalog, present: Catalog, names: tuple[str, ...]) -> LightCurves:
    """The rows of ``ids`` (sorted) of a history table (sorted by object) and of this visit, by object and time.

    Withdrawn rows of the history are left out.
    """
    past_ids = past["diaObjectId"]
    begin, end = np.searchsorted(past_ids, ids, "left"), np.searchsorted(past_ids, ids, "right")
    counts = end - begin
    offsets = np.repeat(begin - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts) if ids.size else begin
    old = past[np.arange(counts.sum()) + offsets]
    old = old[np.isnan(old["timeWithdrawnMjdTai"])]
    new = present[np.isin(present["diaObjectId"], ids)]
    owner = np.concatenate([old["diaObjectId"], new["diaObjectId"]])
    order = np.lexsort((np.concatenate([old["midpointMjdTai"], new["midpointMjdTai"]]), owner))
    start = np.searchsorted(owner[order], np.append(ids, ids[-1] + 1) if ids.size else np.zeros(1, np.int64))
    return LightCurves(
        start=start.astype(np.int64), columns={n: np.concatenate([old[n], new[n]])[order] for n in names}
    )


def band_index(band: NDArray[np.generic]) -> NDArray[np.int8]:
    """Index in ``BANDS`` of one-letter names, -1 unknown."""
    letters = np.ascontiguousarray(band).view(np.uint32)
    index = np.full(letters.size, -1, np.int8)
    for i, name in enumerate(BANDS):
        index[letters == ord(name)] = i
    return index
