"""Light-curve features against pandas, row by row."""

import numpy as np
import pandas as pd
import pytest

from core.contracts.bundle import History
from core.contracts.catalogs import BANDS, DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, Catalog, empty_catalog
from core.stages.features import update_objects
from core.stages.light_curves import band_index
from core.stages.past import Past
from tests.support.sky_scene import VISIT

N_OBJECTS = 25


def light_curves(seed: int, dtype: np.dtype, per_object: int) -> Catalog:
    random = np.random.default_rng(seed)
    n = N_OBJECTS * per_object
    rows = empty_catalog(dtype, n)
    rows["diaObjectId"] = np.sort(np.tile(100 + np.arange(N_OBJECTS), per_object))
    rows["visit"] = 1
    rows["midpointMjdTai"] = VISIT.midpoint_mjd_tai - random.uniform(1, 360, n)
    rows["band"] = random.choice(list("ugriz"), n)
    rows["psfFlux"], rows["psfFluxErr"] = random.normal(500, 300, n), random.uniform(20, 80, n)
    rows["scienceFlux"], rows["scienceFluxErr"] = random.normal(5000, 300, n), random.uniform(20, 80, n)
    rows["psfFlux"][random.random(n) < 0.05] = np.nan
    if dtype == DIA_SOURCE:
        rows["diaSourceId"] = np.arange(n)
        rows["ra"] = 150 + rows["diaObjectId"] * 1e-3 + random.normal(0, 1e-5, n)
        rows["dec"] = -30 + random.normal(0, 1e-5, n)
        rows["raErr"], rows["decErr"] = random.uniform(0.5, 2, (2, n)) * 1e-5
        rows["ra_dec_Cov"] = rows["raErr"] * rows["decErr"] * random.uniform(-0.8, 0.8, n)
    return rows[np.lexsort((rows["midpointMjdTai"], rows["diaObjectId"]))]


def scene() -> tuple[Catalog, Catalog, History]:
    past = light_curves(1, DIA_SOURCE, 40)
    past["timeWithdrawnMjdTai"][3] = 60990.0
    known = empty_catalog(DIA_OBJECT, N_OBJECTS)
    known["diaObjectId"] = 100 + np.arange(N_OBJECTS)
    known["firstDiaSourceMjdTai"] = 59000.0
    history = History(dia_objects=known, dia_sources=past, dia_forced_sources=light_curves(2, DIA_FORCED_SOURCE, 60))
    now = light_curves(3, DIA_SOURCE, 1)
    now["midpointMjdTai"] = VISIT.midpoint_mjd_tai
    now["band"] = "r"
    now["diaObjectId"][7] = 9999
    forced = light_curves(4, DIA_FORCED_SOURCE, 1)
    forced["midpointMjdTai"] = VISIT.midpoint_mjd_tai
    return now, forced, history


def merged(past: Catalog, present: Catalog, names: list[str]) -> pd.DataFrame:
    rows = np.concatenate([past, present])
    rows = rows[np.isnan(rows["timeWithdrawnMjdTai"])]
    return pd.DataFrame({name: rows[name] for name in names}).sort_values("midpointMjdTai", kind="stable")


def test_every_feature_equals_pandas() -> None:
    now, forced, history = scene()
    objects, index = update_objects(now, forced, Past.of(history, VISIT), VISIT)
    assert (objects["diaObjectId"][index] == now["diaObjectId"]).all()
    names = ["diaObjectId", "band", "midpointMjdTai", "psfFlux", "psfFluxErr", "scienceFlux", "scienceFluxErr"]
    sources = merged(history.dia_sources, now, names)
    forced_rows = merged(history.dia_forced_sources, forced, names[:5])
    for row in objects:
        mine = sources[sources.diaObjectId == row["diaObjectId"]]
        fp = forced_rows[forced_rows.diaObjectId == row["diaObjectId"]]
        assert row["nDiaSources"] == len(mine)
        for band in BANDS:
            curve = mine[(mine.band == band) & mine.psfFlux.notna()]
            expected = statistics(curve.psfFlux.astype(float), curve.psfFluxErr.astype(float), curve.midpointMjdTai)
            for name, value in expected.items():
                assert row[f"{band}_psfFlux{name}"] == pytest.approx(value, rel=2e-5, nan_ok=True), (band, name)
            science = mine[mine.band == band]
            expected = statistics(
                science.scienceFlux.astype(float), science.scienceFluxErr.astype(float), science.midpointMjdTai
            )
            points = fp[(fp.band == band) & fp.psfFlux.notna()]
            expected_fp = statistics(
                points.psfFlux.astype(float), points.psfFluxErr.astype(float), points.midpointMjdTai
            )
            for name in ("Mean", "MeanErr"):
                assert row[f"{band}_scienceFlux{name}"] == pytest.approx(expected[name], rel=2e-5, nan_ok=True)
                assert row[f"{band}_fpFlux{name}"] == pytest.approx(expected_fp[name], rel=2e-5, nan_ok=True)


def statistics(flux: pd.Series, error: pd.Series, mjd: pd.Series) -> dict[str, float]:
    weight = 1 / error**2
    slopes = flux.diff() / mjd.diff()
    is_empty = flux.empty
    return {
        "Mean": np.nan if is_empty else float((flux * weight).sum() / weight.sum()),
        "MeanErr": np.nan if is_empty else float(weight.sum() ** -0.5),
        "Sigma": float(flux.std(ddof=1)),
        "Ndata": len(flux),
        "Min": float(flux.min()),
        "Max": float(flux.max()),
        "MaxSlope": float(slopes.max()),
        "ErrMean": float(error.mean()),
    }


def test_position_is_the_inverse_covariance_mean() -> None:
    now, forced, history = scene()
    objects, _ = update_objects(now, forced, Past.of(history, VISIT), VISIT)
    rows = np.concatenate([history.dia_sources, now])
    rows = rows[(rows["diaObjectId"] == 105) & np.isnan(rows["timeWithdrawnMjdTai"])]
    scale = np.array([np.cos(np.radians(-30)), 1.0])
    total, weighted = np.zeros((2, 2)), np.zeros(2)
    for row in rows.astype(rows.dtype):
        cov = np.array(
            [[row["raErr"] ** 2.0, row["ra_dec_Cov"]], [row["ra_dec_Cov"], row["decErr"] ** 2.0]], np.float64
        )
        inverse = np.linalg.inv(cov)
        total += inverse
        weighted += inverse @ (np.array([row["ra"] - 150.105, row["dec"] + 30]) * scale)
    mean = np.linalg.solve(total, weighted) / scale
    found = objects[objects["diaObjectId"] == 105][0]
    assert (found["ra"] - 150.105 - mean[0]) * 3.6e6 == pytest.approx(0, abs=0.05)
    assert (found["dec"] + 30 - mean[1]) * 3.6e6 == pytest.approx(0, abs=0.05)
    errors = np.linalg.inv(total)
    assert found["raErr"] == pytest.approx(np.sqrt(errors[0, 0]), rel=1e-4)
    assert found["ra_dec_Cov"] == pytest.approx(errors[0, 1], rel=1e-3)


def test_span_and_new_objects() -> None:
    now, forced, history = scene()
    objects, index = update_objects(now, forced, Past.of(history, VISIT), VISIT)
    new = objects[objects["diaObjectId"] == 9999][0]
    assert new["nDiaSources"] == 1
    assert new["firstDiaSourceMjdTai"] == VISIT.midpoint_mjd_tai
    assert new["ra"] == pytest.approx(now["ra"][7], abs=1e-12)
    assert new["raErr"] == pytest.approx(now["raErr"][7])
    assert np.isnan(new["r_psfFluxSigma"])
    old = objects[objects["diaObjectId"] == 101][0]
    assert old["firstDiaSourceMjdTai"] == 59000.0
    assert old["lastDiaSourceMjdTai"] == VISIT.midpoint_mjd_tai
    assert old["validityStartMjdTai"] == VISIT.midpoint_mjd_tai
    assert index.min() >= 0


def test_sources_without_object_are_left_out() -> None:
    now, forced, history = scene()
    now["diaObjectId"] = np.iinfo(np.int64).min
    objects, index = update_objects(now, forced, Past.of(history, VISIT), VISIT)
    assert objects.size == 0
    assert (index == -1).all()


def test_band_names() -> None:
    assert band_index(np.array(["u", "y", "x", "r", ""])).tolist() == [0, 5, -1, 2, -1]
