"""Light curves of chosen DIAObjects: rows of the history and of this visit, gathered object after object."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.contracts.catalogs import BANDS, Catalog
from core.stages.past import PastRows

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


def gather(ids: Int64, past: PastRows, present: Catalog, names: tuple[str, ...]) -> LightCurves:
    """The rows of ``ids`` (ascending), those of before and those of this visit behind them, object after object."""
    new = present[np.isin(present["diaObjectId"], ids)]
    owner = np.concatenate(
        [np.repeat(np.arange(ids.size), np.diff(past.start)), np.searchsorted(ids, new["diaObjectId"])]
    )
    order = np.argsort(owner, kind="stable")
    start = np.searchsorted(owner[order], np.arange(ids.size + 1))
    columns = {name: np.concatenate([past.column(name), new[name]])[order] for name in names}
    return LightCurves(start=start.astype(np.int64), columns=columns)


def band_index(band: NDArray[np.generic]) -> NDArray[np.int8]:
    """Index in ``BANDS`` of one-letter names, -1 unknown."""
    letters = np.ascontiguousarray(band).view(np.uint32)
    index = np.full(letters.size, -1, np.int8)
    for i, name in enumerate(BANDS):
        index[letters == ord(name)] = i
    return index
