"""DIAObjects of the past: the summary that follows from their sources and forced sources."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.simulator.history import Table
from benchmarks.simulator.photometry import BANDS

Float64 = NDArray[np.float64]

_FEATURES: Final = (
    "psfFluxMean", "psfFluxMeanErr", "psfFluxSigma", "psfFluxMin", "psfFluxMax", "psfFluxMaxSlope", "psfFluxErrMean",
    "fpFluxMean", "fpFluxMeanErr", "scienceFluxMean", "scienceFluxMeanErr",
)  # fmt: skip


def dia_objects(sources: Table, forced: Table) -> Table:
    """One row an object, NaN where a band has too few points; counts and means are of all rows given."""
    ids, inverse = np.unique(sources["diaObjectId"], return_inverse=True)
    n = ids.size
    table: Table = {"diaObjectId": ids}
    weight = np.square(sources["snr"])
    total = np.bincount(inverse, weight)
    for name in ("ra", "dec"):
        table[name] = np.bincount(inverse, weight * sources[name]) / total
    table["raErr"] = table["decErr"] = 1 / np.sqrt(np.bincount(inverse, 1 / np.square(sources["raErr"])))
    table["ra_dec_Cov"] = np.zeros(n)
    table["nDiaSources"] = np.bincount(inverse)
    times = sources["midpointMjdTai"]
    first, last = np.full(n, np.inf), np.full(n, -np.inf)
    np.minimum.at(first, inverse, times)
    np.maximum.at(last, inverse, times)
    table["firstDiaSourceMjdTai"], table["lastDiaSourceMjdTai"] = first, last
    table["validityStartMjdTai"] = last
    for b, band in enumerate(BANDS):
        for feature in _FEATURES:
            table[f"{band}_{feature}"] = np.full(n, np.nan)
        table[f"{band}_psfFluxNdata"] = np.zeros(n, np.int64)
        _band_features(table, band, ids, _rows(sources, b), _rows(forced, b))
    return table


def _rows(table: Table, band: int) -> Table:
    keep = table["band_index"] == band
    rows = {key: table[key][keep] for key in ("diaObjectId", "midpointMjdTai", "psfFlux", "psfFluxErr")}
    rows["scienceFlux"], rows["scienceFluxErr"] = table["scienceFlux"][keep], table["scienceFluxErr"][keep]
    return rows


def _band_features(table: Table, band: str, ids: NDArray[np.int64], sources: Table, forced: Table) -> None:
    def put(row: int, name: str, value: Any) -> None:
        table[f"{band}_{name}"][row] = value

    for row, object_id in enumerate(ids):
        own = sources["diaObjectId"] == object_id
        if own.any():
            flux, error, time = (sources[k][own] for k in ("psfFlux", "psfFluxErr", "midpointMjdTai"))
            put(row, "psfFluxNdata", flux.size)
            for name, value in _summary(flux, error, time).items():
                put(row, name, value)
        seen = forced["diaObjectId"] == object_id
        if seen.any():
            for prefix, column in (("fp", "psfFlux"), ("science", "scienceFlux")):
                weight = 1 / np.square(forced[f"{column}Err"][seen])
                put(row, f"{prefix}FluxMean", (weight * forced[column][seen]).sum() / weight.sum())
                put(row, f"{prefix}FluxMeanErr", 1 / np.sqrt(weight.sum()))


def _summary(flux: Float64, error: Float64, time: Float64) -> dict[str, float]:
    weight = 1 / np.square(error)
    out = {
        "psfFluxMean": float((weight * flux).sum() / weight.sum()),
        "psfFluxMeanErr": float(1 / np.sqrt(weight.sum())),
        "psfFluxMin": float(flux.min()),
        "psfFluxMax": float(flux.max()),
        "psfFluxErrMean": float(error.mean()),
    }
    if flux.size > 1:
        order = np.argsort(time)
        out["psfFluxSigma"] = float(flux.std(ddof=1))
        out["psfFluxMaxSlope"] = float(np.abs(np.diff(flux[order]) / np.diff(time[order])).max())
    return out
