"""Wide features against NumPy, SciPy and astropy, object by object."""

import numpy as np
import pytest
from astropy.timeseries import LombScargle
from numpy.typing import NDArray
from scipy import stats

from core.contracts.bundle import History
from core.contracts.catalogs import BANDS, DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, Catalog, empty_catalog
from core.stages.past import Past
from core.stages.periodogram import FrequencyGrid, Transform, highest_peaks, power
from core.stages.wide_features import WideFeatures, WideFeaturesConfig
from tests.support.sky_scene import VISIT

Float64 = NDArray[np.float64]

CONFIG = WideFeaturesConfig(n_frequencies=1024, shortest_period_days=1.0)
COUNTS = [0, 1, 2, 5, 13, 120]
"""Earlier points of each object."""


def make_forced(counts: list[int], seed: int) -> Catalog:
    """Light curves of objects 10, 11, …, every one with a pair an hour apart here and there, some points spoiled."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(10 + np.arange(len(counts)), counts)
    rows = empty_catalog(DIA_FORCED_SOURCE, owner.size)
    rows["diaObjectId"], rows["diaForcedSourceId"] = owner, 1 + np.arange(owner.size)
    days = np.round(rng.uniform(1, 360, owner.size))
    rows["midpointMjdTai"] = VISIT.midpoint_mjd_tai - days + rng.choice([0.0, 0.02, 0.3], owner.size)
    rows["band"] = rng.choice(list("ugri"), owner.size)
    rows["psfFlux"] = 500 + 200 * np.sin(2 * np.pi * rows["midpointMjdTai"] / 7.3) + rng.normal(0, 60, owner.size)
    rows["psfFluxErr"] = rng.uniform(40, 80, owner.size)
    rows["psfFlux"][::17] = np.nan
    rows["psfFluxErr"][5::19] = 0.0
    return rows[np.lexsort((rows["midpointMjdTai"], rows["diaObjectId"]))]


@pytest.fixture(scope="module")
def scene() -> tuple[Catalog, Catalog]:
    """Features, and the points they are of."""
    past = make_forced(COUNTS, seed=1)
    n = len(COUNTS)
    sources, objects = empty_catalog(DIA_SOURCE, n), empty_catalog(DIA_OBJECT, n)
    sources["diaObjectId"] = objects["diaObjectId"] = 10 + np.arange(n)
    sources["diaSourceId"] = 900 + np.arange(n)
    forced = make_forced([1] * n, seed=2)
    forced["midpointMjdTai"], forced["band"] = VISIT.midpoint_mjd_tai, VISIT.band
    forced["psfFlux"] = 480.0
    forced["psfFluxErr"] = 50.0
    history = History(dia_objects=objects, dia_sources=sources[:0], dia_forced_sources=past)
    found = WideFeatures(CONFIG).of(objects, sources, forced, Past.of(history, VISIT), VISIT)
    points = np.concatenate([past, forced])
    return found, points[np.isfinite(points["psfFlux"]) & (points["psfFluxErr"] > 0)]


def curve(points: Catalog, owner: int, band: str = "") -> tuple[Float64, Float64, Float64]:
    mine = points[(points["diaObjectId"] == owner) & ((points["band"] == band) | (band == ""))]
    mine = np.sort(mine, order="midpointMjdTai")
    return mine["midpointMjdTai"], mine["psfFlux"].astype(float), mine["psfFluxErr"].astype(float)


def expected(t: Float64, m: Float64, e: Float64) -> dict[str, float]:
    """One band's features by other people's code and plain sums."""
    n = m.size
    out: dict[str, float] = {"nData": n}
    if n == 0:
        return out
    w = e**-2
    out |= {f"percentile{q:02d}": float(np.percentile(m, q)) for q in (5, 25, 75, 95)}
    out |= {"median": float(np.median(m)), "weightedMeanErr": float(w.sum() ** -0.5)}
    if n < 2:
        return out
    mean, sd = float(np.average(m, weights=w)), float(m.std(ddof=1))
    walk = np.cumsum(m - m.mean()) / (n * sd)
    out |= {
        "mean": float(m.mean()),
        "weightedMean": mean,
        "standardDeviation": sd,
        "amplitude": float(np.ptp(m)) / 2,
        "medianAbsoluteDeviation": float(stats.median_abs_deviation(m)),
        "beyond1Std": float((abs(m - m.mean()) > sd).mean()),
        "reducedChi2": float((((m - mean) / e) ** 2).sum() / (n - 1)),
        "excessVariance": float((sd**2 - (e**2).mean()) / m.mean() ** 2),
        "stetsonK": float(abs((m - mean) / e).sum() / np.sqrt(n * (((m - mean) / e) ** 2).sum())),
        "eta": float((np.diff(m) ** 2).sum() / ((n - 1) * sd**2)),
        "cusum": float(walk.max() - walk.min()),
        "stetsonJ": stetson_j([(t, m, e)]),
    }
    if n > 2:
        out["skew"] = float(stats.skew(m, bias=False))
        (slope, _), covariance = np.polyfit(t - t.mean(), m, 1, w=1 / e, cov="unscaled")
        fitted = np.polyval(np.polyfit(t - t.mean(), m, 1, w=1 / e), t - t.mean())
        out |= {"linearSlope": slope, "linearSlopeErr": float(np.sqrt(covariance[0, 0]))}
        out["linearReducedChi2"] = float((((m - fitted) / e) ** 2).sum() / (n - 2))
    if n > 3:
        out["kurtosis"] = float(stats.kurtosis(m, bias=False))
    return out


def stetson_j(curves: list[tuple[Float64, Float64, Float64]]) -> float:
    """By loops over one list of points, each band about its own mean."""
    points: list[tuple[float, float]] = []
    for t, m, e in curves:
        if m.size:
            scale = np.sqrt(m.size / (m.size - 1)) if m.size > 1 else 0.0
            points += list(zip(t, scale * (m - np.average(m, weights=e**-2)) / e, strict=True))
    points.sort(key=lambda point: point[0])
    terms = []
    while points:
        at, first = points.pop(0)
        product = first * points.pop(0)[1] if points and points[0][0] - at <= 1 / 24 else first**2 - 1
        terms.append(np.sign(product) * np.sqrt(abs(product)) if product else -0.0)
    return float(np.mean(terms))


@pytest.mark.parametrize("i", range(len(COUNTS)))
def test_features_of_each_band_by_other_code(scene: tuple[Catalog, Catalog], i: int) -> None:
    found, points = scene
    for band in BANDS:
        wanted = expected(*curve(points, 10 + i, band))
        names = [name.removeprefix(f"{band}_") for name in found.dtype.names or () if name.startswith(f"{band}_")]
        assert set(wanted) <= set(names)
        for name in set(names) - {"maximumSlope"}:
            value = found[f"{band}_{name}"][i]
            assert value == pytest.approx(wanted.get(name, np.nan), rel=1e-5, abs=1e-6, nan_ok=True), (band, name)


def test_steepest_slope_between_neighbors(scene: tuple[Catalog, Catalog]) -> None:
    found, points = scene
    t, m, _ = curve(points, 15, "r")
    keep = np.diff(t) > 0
    assert found["r_maximumSlope"][5] == pytest.approx(abs(np.diff(m)[keep] / np.diff(t)[keep]).max(), rel=1e-5)


def test_features_over_all_bands(scene: tuple[Catalog, Catalog]) -> None:
    found, points = scene
    assert found["diaSourceId"].tolist() == [900 + i for i in range(len(COUNTS))]
    for i in range(len(COUNTS)):
        t, m, _ = curve(points, 10 + i)
        assert found["nData"][i] == m.size
        assert found["duration"][i] == pytest.approx(np.ptp(t) if m.size > 1 else np.nan, rel=1e-6, nan_ok=True)
        assert np.isfinite(found["period1"][i]) == (m.size >= CONFIG.min_points_period)
    assert found["stetsonJ"][5] == pytest.approx(stetson_j([curve(points, 15, band) for band in BANDS]), rel=1e-5)
    assert found["period1"][5] == pytest.approx(7.3, rel=0.02)


def test_the_period_search_is_a_least_squares_fit_at_every_frequency(scene: tuple[Catalog, Catalog]) -> None:
    """Astropy's floating-mean periodogram of the points about their bands' means."""
    found, points = scene
    grid = FrequencyGrid(step_per_day=1 / 1024, n=1024)
    t, _, _ = curve(points, 15)
    mine = np.sort(points[points["diaObjectId"] == 15], order="midpointMjdTai")
    band = np.array([BANDS.index(b) for b in mine["band"]], np.int8)
    flux, error = mine["psfFlux"].astype(float), mine["psfFluxErr"].astype(float)
    centered = flux.copy()
    for b in set(band):
        centered[band == b] -= np.average(flux[band == b], weights=error[band == b] ** -2)
    wanted = LombScargle(t, centered, error, center_data=False).power(
        grid.per_day, method="slow", assume_regular_frequency=True
    )
    spectrum = power(Transform(grid), t, flux, error, band)
    np.testing.assert_allclose(spectrum, wanted, rtol=1e-5, atol=1e-7)
    places, excess = highest_peaks(wanted, 3)
    for k in range(3):
        assert found[f"period{k + 1}"][5] == pytest.approx(1 / grid.per_day[places[k]], rel=1e-5)
        assert found[f"periodSnr{k + 1}"][5] == pytest.approx(excess[k], rel=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_degenerate_light_curves_have_features_or_none(seed: int) -> None:
    """Points at one time, of one flux, pairs of them, absurd sizes: nothing may end the process."""
    rng = np.random.default_rng(seed)
    n = 60
    counts = rng.integers(1, 15, n)
    rows = make_forced(counts.tolist(), seed)
    place = rows["diaObjectId"] - 10
    same_time, same_flux, few_times, huge, sharp = (rng.random(n) < p for p in (0.3, 0.3, 0.3, 0.1, 0.1))
    rows["midpointMjdTai"] = np.where(same_time[place], VISIT.midpoint_mjd_tai - 3.0, rows["midpointMjdTai"])
    rows["midpointMjdTai"] = np.where(
        few_times[place], np.floor(rows["midpointMjdTai"] / 200) * 200, rows["midpointMjdTai"]
    )
    rows["psfFlux"] = np.where(same_flux[place], 0.0 if seed % 2 else 7.0, rows["psfFlux"])
    rows["psfFlux"] = np.where(huge[place], 3e38 * rng.choice([-1, 1], rows.size), rows["psfFlux"])
    rows["psfFluxErr"] = np.where(sharp[place], 1e-38, rows["psfFluxErr"])
    rows["band"] = np.where(seed % 3 == 0, "r", rows["band"])
    rows = rows[np.lexsort((rows["midpointMjdTai"], rows["diaObjectId"]))]
    sources, objects = empty_catalog(DIA_SOURCE, n), empty_catalog(DIA_OBJECT, n)
    sources["diaObjectId"] = objects["diaObjectId"] = 10 + np.arange(n)
    history = History(dia_objects=objects, dia_sources=sources[:0], dia_forced_sources=rows)
    with np.errstate(all="ignore"):
        found = WideFeatures(CONFIG).of(objects, sources, rows[:0], Past.of(history, VISIT), VISIT)
    assert found.size == n
    at_once = np.flatnonzero(same_time & ~huge & ~sharp)
    for band in BANDS:
        assert np.isnan(found[f"{band}_linearSlope"][at_once]).all()
        several = at_once[found[f"{band}_nData"][at_once] > 1]
        assert np.isfinite(found[f"{band}_mean"][several]).all()


def test_nothing_to_fill() -> None:
    empty = empty_catalog(DIA_OBJECT, 0), empty_catalog(DIA_SOURCE, 0), empty_catalog(DIA_FORCED_SOURCE, 0)
    history = History(dia_objects=empty[0], dia_sources=empty[1], dia_forced_sources=empty[2])
    assert WideFeatures(CONFIG).of(*empty, Past.of(history, VISIT), VISIT).size == 0
