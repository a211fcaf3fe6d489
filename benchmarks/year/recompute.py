"""DIAObject columns and light-curve features computed again, plainly, from the rows of a packet."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from core.contracts.catalogs import BANDS

Float64 = NDArray[np.float64]
Row = Mapping[str, Any]

FEATURES: Final = (
    "nData", "mean", "weightedMean", "weightedMeanErr", "standardDeviation", "skew", "kurtosis", "amplitude",
    "medianAbsoluteDeviation", "beyond1Std", "reducedChi2", "excessVariance", "stetsonK", "eta", "cusum",
    "maximumSlope", "linearSlope", "linearSlopeErr", "linearReducedChi2",
    "percentile05", "percentile25", "median", "percentile75", "percentile95",
)  # fmt: skip
"""Of each band; Stetson's J and the periods are left to the unit tests."""
ABOUT_ZERO: Final = ("skew", "kurtosis", "linearSlope")
"""Differences of large numbers: what remains is compared with one, or with its error."""


def dia_object(sources: Sequence[Row], forced: Sequence[Row]) -> dict[str, float]:
    """Columns of the schema's diaObject from its DIASources and forced sources, this visit's included."""
    sources = sorted(sources, key=lambda row: float(row["midpointMjdTai"]))
    out = _position(sources) | {
        "nDiaSources": len(sources),
        "lastDiaSourceMjdTai": sources[-1]["midpointMjdTai"],
    }
    for band in BANDS:
        mine = [row for row in sources if row["band"] == band]
        out |= {f"{band}_psfFlux{name}": value for name, value in _statistics(mine, "psfFlux").items()}
        for prefix, rows, flux in (
            ("scienceFlux", mine, "scienceFlux"),
            ("fpFlux", [row for row in forced if row["band"] == band], "psfFlux"),
        ):
            found = _statistics(rows, flux)
            out |= {f"{band}_{prefix}{name}": found[name] for name in ("Mean", "MeanErr")}
    return out


def light_curve(forced: Sequence[Row], band: str) -> dict[str, float]:
    """:data:`FEATURES` of one band from forced sources, this visit's included."""
    rows = sorted((row for row in forced if row["band"] == band), key=lambda row: float(row["midpointMjdTai"]))
    t, f, e = _curve(rows, "psfFlux")
    out: dict[str, float] = {"nData": f.size}
    if f.size == 0:
        return out
    weight = 1 / e**2
    mean = float((weight * f).sum() / weight.sum())
    for name, fraction in (("05", 5), ("25", 25), ("75", 75), ("95", 95)):
        out[f"percentile{name}"] = float(np.percentile(f, fraction))
    out |= {"median": float(np.percentile(f, 50)), "weightedMeanErr": float(weight.sum() ** -0.5)}
    if f.size > 1:
        out |= _spread(t, f, e, mean)
    if f.size > 2:
        out |= {"skew": float(stats.skew(f, bias=False))} | _line(t, f, weight)
    if f.size > 3:
        out["kurtosis"] = float(stats.kurtosis(f, bias=False))
    return out


def _spread(t: Float64, f: Float64, e: Float64, mean: float) -> dict[str, float]:
    n, deviation, pull = f.size, float(f.std(ddof=1)), (f - mean) / e
    walk = np.cumsum(f - f.mean()) / (n * deviation)
    steps = np.diff(t) > 0
    slopes = np.abs(np.diff(f)[steps] / np.diff(t)[steps])
    return {
        "mean": float(f.mean()),
        "weightedMean": mean,
        "standardDeviation": deviation,
        "amplitude": float(np.ptp(f)) / 2,
        "medianAbsoluteDeviation": float(np.median(np.abs(f - np.median(f)))),
        "beyond1Std": float((np.abs(f - f.mean()) > deviation).mean()),
        "reducedChi2": float((pull**2).sum() / (n - 1)),
        "excessVariance": float((deviation**2 - (e**2).mean()) / f.mean() ** 2),
        "stetsonK": float(np.abs(pull).sum() / np.sqrt(n * (pull**2).sum())),
        "eta": float((np.diff(f) ** 2).sum() / ((n - 1) * deviation**2)),
        "cusum": float(walk.max() - walk.min()),
        "maximumSlope": float(slopes.max()) if slopes.size else np.nan,
    }


def _line(t: Float64, f: Float64, weight: Float64) -> dict[str, float]:
    x = t - (weight * t).sum() / weight.sum()
    inertia = (weight * x**2).sum()
    slope = float((weight * x * f).sum() / inertia)
    rest = f - (weight * f).sum() / weight.sum() - slope * x
    return {
        "linearSlope": slope,
        "linearSlopeErr": float(inertia**-0.5),
        "linearReducedChi2": float((weight * rest**2).sum() / (f.size - 2)),
    }


def worst(found: Row, expected: Mapping[str, float], names: Iterable[str]) -> tuple[str, float]:
    """The column that differs most, and by how much of its size."""
    name, size = "", 0.0
    for column in names:
        value = found[column]
        wanted = expected.get(column, np.nan)
        if value is None or not np.isfinite(wanted):
            difference = 0.0 if (value is None) == (not np.isfinite(wanted)) else np.inf
        else:
            kind = column.partition("_")[2]
            floor = expected.get(f"{column}Err", 1.0) if kind in ABOUT_ZERO else 1e-30
            difference = abs(value - wanted) / max(abs(wanted), floor)
        if difference > size:
            name, size = column, float(difference)
    return name, size


def _curve(rows: Sequence[Row], flux: str) -> tuple[Float64, Float64, Float64]:
    usable = [row for row in rows if row[flux] is not None and row[f"{flux}Err"] is not None]
    t, f, e = (np.array([row[name] for row in usable], float) for name in ("midpointMjdTai", flux, f"{flux}Err"))
    return t, f, e


def _statistics(rows: Sequence[Row], flux: str) -> dict[str, float]:
    t, f, e = _curve(rows, flux)
    out: dict[str, float] = {"Ndata": f.size}
    if f.size:
        weight = 1 / e**2
        out |= {"Mean": float((weight * f).sum() / weight.sum()), "MeanErr": float(weight.sum() ** -0.5)}
        out |= {"Min": float(f.min()), "Max": float(f.max()), "ErrMean": float(e.mean())}
    if f.size > 1:
        out["Sigma"] = float(f.std(ddof=1))
        steps = np.diff(t) > 0
        if steps.any():
            out["MaxSlope"] = float((np.diff(f)[steps] / np.diff(t)[steps]).max())
    return {name: out.get(name, np.nan) for name in (*out, "Mean", "MeanErr", "Min", "Max", "ErrMean", "Sigma")}


def _position(sources: Sequence[Row]) -> dict[str, float]:
    ra0, dec0 = sources[0]["ra"], sources[0]["dec"]
    total, weighted = np.zeros((2, 2)), np.zeros(2)
    for row in sources:
        cov = row["ra_dec_Cov"] or 0.0
        inverse = np.linalg.inv(np.array([[row["raErr"] ** 2, cov], [cov, row["decErr"] ** 2]]))
        place = np.array([(row["ra"] - ra0) * np.cos(np.radians(dec0)), row["dec"] - dec0])
        total, weighted = total + inverse, weighted + inverse @ place
    variance = np.linalg.inv(total)
    east, north = variance @ weighted
    return {
        "ra": float(ra0 + east / np.cos(np.radians(dec0))),
        "dec": float(dec0 + north),
        "raErr": float(np.sqrt(variance[0, 0])),
        "decErr": float(np.sqrt(variance[1, 1])),
    }
