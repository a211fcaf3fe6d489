"""Ephemerides against astropy, which shares no code with them."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import BarycentricMeanEcliptic, SkyCoord, get_sun
from astropy.time import Time

from core.contracts.catalogs import DIA_SOURCE, EPHEMERIS, Catalog, empty_catalog
from core.contracts.results import Association
from core.stages.solar_system import describe, predict, sun_vector
from tests.support.sky_scene import VISIT

MJD = VISIT.midpoint_mjd_tai


def circular(n: int, seed: int = 5) -> Catalog:
    """Objects moving evenly on straight lines, seen from an observer doing the same."""
    random = np.random.default_rng(seed)
    rows = np.zeros(n, EPHEMERIS)
    rows["ssObjectId"] = 1 + np.arange(n)
    rows["startMjdTai"], rows["endMjdTai"] = MJD - 0.3, MJD + 0.7
    rows["object"][:, :, 0] = random.normal(0, 2, (n, 3))
    rows["object"][:, :, 1] = random.normal(0, 5e-3, (n, 3))
    rows["object"][:, :, 2] = random.normal(0, 1e-5, (n, 3))
    rows["observer"][:, :, 0] = [0.5, 0.8, 0.35]
    rows["observer"][:, :, 1] = [-8e-3, 4e-3, 2e-3]
    return rows


def test_prediction_is_the_chebyshev_series() -> None:
    rows = circular(3)
    found = predict(rows, MJD)
    scaled = 2 * 0.3 / 1.0 - 1
    for i in range(3):
        topo = [
            np.polynomial.chebyshev.chebval(scaled, rows["object"][i, k])
            - np.polynomial.chebyshev.chebval(scaled, rows["observer"][i, k])
            for k in range(3)
        ]
        np.testing.assert_allclose(found.topo[i], topo, rtol=1e-12)
        expected = SkyCoord(*topo, representation_type="cartesian")
        expected.representation_type = "unitspherical"
        assert found.ra[i] == pytest.approx(expected.ra.deg, abs=1e-9)
        assert found.dec[i] == pytest.approx(expected.dec.deg, abs=1e-9)
    later = predict(rows, MJD + 1e-3)
    np.testing.assert_allclose((later.topo - found.topo) / 1e-3, found.topo_rate, rtol=1e-3)
    assert np.isnan(predict(rows, MJD + 5).ra).all()


@pytest.mark.parametrize("mjd", [58000.0, 60000.7, 61000.3])
def test_sun_is_good_to_a_hundredth_of_a_degree(mjd: float) -> None:
    vector, rate = sun_vector(mjd)
    truth = get_sun(Time(mjd, format="mjd", scale="tai"))
    # astropy gives the apparent place: aberration is 20.5 arcsec
    direction = SkyCoord(*vector, representation_type="cartesian", unit="AU")
    assert direction.separation(SkyCoord(truth.ra, truth.dec)).deg < 0.02
    assert np.linalg.norm(vector) == pytest.approx(truth.distance.au, abs=2e-4)
    assert np.linalg.norm(rate) * 149597870.7 / 86400 == pytest.approx(29.8, abs=0.6)


def test_description_of_a_match() -> None:
    rows = circular(2)
    prediction = predict(rows, MJD)
    sources = empty_catalog(DIA_SOURCE, 3)
    sources["diaSourceId"] = [11, 12, 13]
    sources["ra"][1] = prediction.ra[1] + 0.4 / 3600 / np.cos(np.radians(prediction.dec[1]))
    sources["dec"][1] = prediction.dec[1] - 0.3 / 3600
    association = Association(
        history_index=np.full(3, -1), ephemeris_index=np.array([-1, 1, -1]), is_new=np.zeros(3, bool)
    )
    found = describe(sources, association, rows, VISIT)
    assert found.size == 1
    row = found[0]
    assert (row["diaSourceId"], row["ssObjectId"]) == (12, 2)
    place = SkyCoord(sources["ra"][1] * u.deg, sources["dec"][1] * u.deg)
    assert row["galLon"] == pytest.approx(place.galactic.l.deg, abs=2e-5)
    assert row["galLat"] == pytest.approx(place.galactic.b.deg, abs=2e-5)
    ecliptic = place.transform_to(BarycentricMeanEcliptic(equinox="J2000"))
    assert row["eclLambda"] == pytest.approx(ecliptic.lon.deg, abs=1e-4)
    assert row["eclBeta"] == pytest.approx(ecliptic.lat.deg, abs=1e-4)
    assert row["ephOffset"] == pytest.approx(0.5, abs=1e-4)
    assert row["ephOffsetRa"] == pytest.approx(0.4, abs=1e-4)
    assert row["ephOffsetDec"] == pytest.approx(-0.3, abs=1e-4)
    assert np.hypot(row["ephOffsetAlongTrack"], row["ephOffsetCrossTrack"]) == pytest.approx(0.5, abs=1e-4)
    later = predict(rows, MJD + 0.01)
    moved = SkyCoord(later.ra[1] * u.deg, later.dec[1] * u.deg).separation(
        SkyCoord(prediction.ra[1] * u.deg, prediction.dec[1] * u.deg)
    )
    assert row["ephRate"] == pytest.approx(moved.deg / 0.01, rel=0.01)
    assert row["topoRange"] == pytest.approx(np.linalg.norm(prediction.topo[1]), rel=1e-6)
    sun, _ = sun_vector(MJD)
    assert row["helioRange"] == pytest.approx(np.linalg.norm(prediction.topo[1] - sun), rel=1e-6)
    # Sun, observer and object: the angles of the triangle are 180 degrees together
    assert 0 <= row["phaseAngle"] <= 180
    side = np.degrees(np.arcsin(np.sin(np.radians(row["elongation"])) * np.linalg.norm(sun) / row["helioRange"]))
    assert min(abs(row["phaseAngle"] - side), abs(180 - row["phaseAngle"] - side)) < 1e-3


def test_no_match_no_rows() -> None:
    sources = empty_catalog(DIA_SOURCE, 2)
    association = Association(history_index=np.full(2, -1), ephemeris_index=np.full(2, -1), is_new=np.ones(2, bool))
    assert describe(sources, association, circular(1), VISIT).size == 0
