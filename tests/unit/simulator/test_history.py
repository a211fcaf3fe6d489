"""The simulated past, read back through the database's own interface."""

from collections import Counter
from pathlib import Path

import numpy as np
from astropy.time import Time
from lsst.dax.apdb import Apdb
from lsst.sphgeom import Angle, Circle, LonLat, UnitVector3d

from benchmarks.simulator.changes import make_variables
from benchmarks.simulator.config import SimulationConfig
from benchmarks.simulator.history import detector_history, source_id
from benchmarks.simulator.objects import dia_objects
from core.camera import load_camera
from core.ids import source_ids


def test_every_variable_has_its_year(dataset: Path, config: SimulationConfig) -> None:
    apdb = Apdb.from_uri(str(dataset / "apdb" / "config.yaml"))
    center = UnitVector3d(LonLat.fromDegrees(config.ra_deg, config.dec_deg))
    region = Circle(center, Angle.fromDegrees(0.1))
    now = Time(config.start_mjd_tai, format="mjd", scale="tai")
    objects = apdb.getDiaObjects(region)
    ids = [int(i) for i in objects["diaObjectId"]]
    sources = apdb.getDiaSources(region, ids, now)
    forced = apdb.getDiaForcedSources(region, ids, now)
    assert sources is not None
    assert forced is not None
    per_object, forced_per_object = Counter(sources["diaObjectId"]), Counter(forced["diaObjectId"])
    variables = make_variables(config, load_camera("testcam"), 1)
    for row in variables.rows:
        gap = np.hypot((objects["ra"] - row["ra"]) * np.cos(np.radians(row["dec"])), objects["dec"] - row["dec"]) * 3600
        best = int(np.argmin(gap))
        assert gap[best] < 0.05
        object_id = objects["diaObjectId"].iloc[best]
        assert per_object[object_id] >= 40
        assert forced_per_object[object_id] >= 60
        # the database counts a month as 30 days: it leaves out what is older than 360
        assert 0 <= objects["nDiaSources"].iloc[best] - per_object[object_id] <= 4
        own = sources[sources["diaObjectId"] == object_id]
        assert own["band"].nunique() >= 3
        assert object_id <= own["diaSourceId"].min()
    times = sources["midpointMjdTai"]
    assert times.max() < config.start_mjd_tai
    assert times.min() > config.start_mjd_tai - 365


def test_ids_follow_the_rule_of_the_service() -> None:
    visit = np.array([2026111900120, 2025123100007], np.int64)
    row = np.array([0, 41], np.int64)
    for v, r, ours in zip(visit, row, source_id(1, visit, 94, row), strict=True):
        assert ours == source_ids(1, int(v), 94, np.array([r]))[0]


def test_objects_summarize_their_sources(config: SimulationConfig) -> None:
    sources, forced = detector_history(config, load_camera("testcam"), 1, 1)
    objects = dia_objects(sources, forced)
    k = int(np.argmax(objects["nDiaSources"]))
    own = (sources["diaObjectId"] == objects["diaObjectId"][k]) & (sources["band_index"] == 2)
    weight = 1 / sources["psfFluxErr"][own] ** 2
    assert objects["r_psfFluxNdata"][k] == own.sum()
    np.testing.assert_allclose(objects["r_psfFluxMean"][k], np.average(sources["psfFlux"][own], weights=weight))
    np.testing.assert_allclose(objects["r_psfFluxSigma"][k], np.std(sources["psfFlux"][own], ddof=1))
    assert np.isnan(objects["u_psfFluxMean"]).all()
