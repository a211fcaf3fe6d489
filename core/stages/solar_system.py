"""Known moving objects: where they are at the middle of the exposure, and what the alert says of a match."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.contracts.catalogs import NULL_LONG, SS_SOURCE, Catalog, empty_catalog
from core.contracts.exposure import VisitInfo
from core.contracts.results import Association

Float64 = NDArray[np.float64]

_AU_PER_DAY_KM_S: Final = 149597870.7 / 86400.0
_OBLIQUITY_J2000_DEG: Final = 23.4392911
_J2000_MJD: Final = 51544.5
# rows: galactic axes in ICRS (Hipparcos catalogue, ESA SP-1200, vol. 1, section 1.5.3)
_GALACTIC: Final = np.array(
    [
        [-0.0548755604162154, -0.8734370902348850, -0.4838350155487132],
        [0.4941094278755837, -0.4448296299600112, 0.7469822444972189],
        [-0.8676661490190047, -0.1980763734312015, 0.4559837761750669],
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Objects at one time, all (n, …): ICRS direction [deg], topocentric vector [AU] and its rate [AU/d], observer's.

    ``is_valid`` where the time lies in the ephemeris' span; other rows are NaN.
    """

    ra: Float64
    dec: Float64
    topo: Float64
    topo_rate: Float64
    observer: Float64
    observer_rate: Float64
    is_valid: NDArray[np.bool_]


def predict(ephemerides: Catalog, mjd_tai: float) -> Prediction:
    """Evaluate the Chebyshev series at one time.

    Coordinates carry light time but no aberration, as does a frame calibrated against a star catalog. Times are TAI.
    """
    span = ephemerides["endMjdTai"] - ephemerides["startMjdTai"]
    is_valid = (mjd_tai >= ephemerides["startMjdTai"]) & (mjd_tai <= ephemerides["endMjdTai"]) & (span > 0)
    safe = np.where(is_valid, span, 1.0)
    u = np.where(is_valid, 2 * (mjd_tai - ephemerides["startMjdTai"]) / safe - 1, np.nan)
    target, target_rate = _chebyshev(ephemerides["object"], u, 2 / safe)
    observer, observer_rate = _chebyshev(ephemerides["observer"], u, 2 / safe)
    topo, topo_rate = target - observer, target_rate - observer_rate
    ra, dec = _direction(topo)
    return Prediction(
        ra=ra, dec=dec, topo=topo, topo_rate=topo_rate, observer=observer, observer_rate=observer_rate,
        is_valid=is_valid,
    )  # fmt: skip


def describe(sources: Catalog, association: Association, ephemerides: Catalog, visit_info: VisitInfo) -> Catalog:
    """SSSource rows of the sources matched to an ephemeris, in the order of the sources.

    The Sun's place is that of :func:`sun_vector`, good to about 2e-4 AU, and with it the heliocentric columns and the
    angles (0.01 deg).
    """
    rows = np.flatnonzero(association.ephemeris_index >= 0)
    chosen = ephemerides[association.ephemeris_index[rows]]
    matched = sources[rows]
    out = empty_catalog(SS_SOURCE, rows.size)
    if rows.size == 0:
        return out
    prediction = predict(chosen, visit_info.midpoint_mjd_tai)
    out["diaSourceId"], out["ssObjectId"] = matched["diaSourceId"], chosen["ssObjectId"]
    out["designation"], out["ephVmag"] = chosen["designation"], chosen["ephVmag"]
    direction = _unit(matched["ra"], matched["dec"])
    out["eclLambda"], out["eclBeta"] = _direction(_to_ecliptic(direction))
    out["galLon"], out["galLat"] = _direction(direction @ _GALACTIC.T)
    _fill_offsets(out, matched, prediction)
    _fill_vectors(out, prediction, visit_info.midpoint_mjd_tai)
    out["diaDistanceRank"] = 1
    return out


def sun_vector(mjd_tai: float) -> tuple[Float64, Float64]:
    """Geocentric Sun in ICRS axes [AU] and its rate [AU/d], by the low-precision series of the Astronomical Almanac.

    Good to 0.01 deg. Seen from the ground this is the observer's Sun to 4e-5 AU; the barycenter need not be known.
    """
    times = np.array([mjd_tai - 0.5, mjd_tai, mjd_tai + 0.5])
    n = times - _J2000_MJD
    g = np.radians(357.528 + 0.9856003 * n)
    of_date = 280.460 + 0.9856474 * n + 1.915 * np.sin(g) + 0.020 * np.sin(2 * g)
    # general precession takes the mean equinox of date to J2000
    longitude = np.radians(of_date - 3.82394e-5 * n)
    distance = 1.00014 - 0.01671 * np.cos(g) - 0.00014 * np.cos(2 * g)
    tilt = np.radians(_OBLIQUITY_J2000_DEG)
    x, y = distance * np.cos(longitude), distance * np.sin(longitude)
    vectors = np.stack([x, y * np.cos(tilt), y * np.sin(tilt)], axis=1)
    return vectors[1], vectors[2] - vectors[0]


def _chebyshev(coefficients: Float64, u: Float64, scale: Float64) -> tuple[Float64, Float64]:
    """Values (n, 3) and time derivatives (n, 3) of (n, 3, m) coefficients at scaled times ``u`` (n,)."""
    degrees = coefficients.shape[-1]
    t, d = np.ones((degrees, u.size)), np.zeros((degrees, u.size))
    t[1], d[1] = u, 1.0
    for k in range(2, degrees):
        t[k] = 2 * u * t[k - 1] - t[k - 2]
        d[k] = 2 * t[k - 1] + 2 * u * d[k - 1] - d[k - 2]
    t[0] = np.where(np.isfinite(u), 1.0, np.nan)
    values = np.einsum("nik,kn->ni", coefficients, t)
    return values, np.einsum("nik,kn->ni", coefficients, d) * scale[:, None]


def _direction(vectors: Float64) -> tuple[Float64, Float64]:
    """Longitude in [0, 360) and latitude [deg] of (n, 3) vectors."""
    x, y, z = vectors.T
    return np.degrees(np.arctan2(y, x)) % 360.0, np.degrees(np.arctan2(z, np.hypot(x, y)))


def _unit(ra_deg: Float64, dec_deg: Float64) -> Float64:
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)


def _to_ecliptic(vectors: Float64) -> Float64:
    tilt = np.radians(_OBLIQUITY_J2000_DEG)
    x, y, z = vectors.T
    return np.stack([x, y * np.cos(tilt) + z * np.sin(tilt), z * np.cos(tilt) - y * np.sin(tilt)], axis=1)


def _fill_offsets(out: Catalog, matched: Catalog, prediction: Prediction) -> None:
    """Predicted place, its rates, and observed minus predicted."""
    out["ephRa"], out["ephDec"] = prediction.ra, prediction.dec
    distance = np.linalg.norm(prediction.topo, axis=1)
    ra, dec = np.radians(prediction.ra), np.radians(prediction.dec)
    east = np.stack([-np.sin(ra), np.cos(ra), np.zeros_like(ra)], axis=1)
    north = np.stack([-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)], axis=1)
    rate_east = np.degrees(np.einsum("ni,ni->n", prediction.topo_rate, east) / distance)
    rate_north = np.degrees(np.einsum("ni,ni->n", prediction.topo_rate, north) / distance)
    rate = np.hypot(rate_east, rate_north)
    out["ephRateRa"], out["ephRateDec"], out["ephRate"] = rate_east, rate_north, rate
    difference = _unit(matched["ra"], matched["dec"])
    offset_east = 3600 * np.degrees(np.einsum("ni,ni->n", difference, east))
    offset_north = 3600 * np.degrees(np.einsum("ni,ni->n", difference, north))
    out["ephOffsetRa"], out["ephOffsetDec"] = offset_east, offset_north
    out["ephOffset"] = np.hypot(offset_east, offset_north)
    along = np.where(rate > 0, rate, np.nan)
    out["ephOffsetAlongTrack"] = (offset_east * rate_east + offset_north * rate_north) / along
    out["ephOffsetCrossTrack"] = (offset_east * rate_north - offset_north * rate_east) / along


def _fill_vectors(out: Catalog, prediction: Prediction, mjd_tai: float) -> None:
    """Distances, velocities and angles from the topocentric vector and the Sun."""
    sun, sun_rate = sun_vector(mjd_tai)
    topo, topo_rate = prediction.topo, prediction.topo_rate
    helio, helio_rate = topo - sun, topo_rate - sun_rate
    topo_range, helio_range = np.linalg.norm(topo, axis=1), np.linalg.norm(helio, axis=1)
    out["topoRange"], out["helioRange"] = topo_range, helio_range
    out["topoRangeRate"] = np.einsum("ni,ni->n", topo, topo_rate) / topo_range * _AU_PER_DAY_KM_S
    out["helioRangeRate"] = np.einsum("ni,ni->n", helio, helio_rate) / helio_range * _AU_PER_DAY_KM_S
    for prefix, position, rate in (("topo", topo, topo_rate), ("helio", helio, helio_rate)):
        for axis, name in enumerate("xyz"):
            out[f"{prefix}_{name}"] = position[:, axis]
            out[f"{prefix}_v{name}"] = rate[:, axis] * _AU_PER_DAY_KM_S
        out[f"{prefix}_vtot"] = np.linalg.norm(rate, axis=1) * _AU_PER_DAY_KM_S
    sun_range = float(np.linalg.norm(sun))
    out["elongation"] = np.degrees(np.arccos(np.clip(topo @ sun / (topo_range * sun_range), -1, 1)))
    cosine = np.einsum("ni,ni->n", topo, helio) / (topo_range * helio_range)
    out["phaseAngle"] = np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def ids_of(ephemerides: Catalog, index: NDArray[np.int64]) -> NDArray[np.int64]:
    """ssObjectId of matched rows, null where the index is -1."""
    ids = np.full(index.size, NULL_LONG, np.int64)
    ids[index >= 0] = ephemerides["ssObjectId"][index[index >= 0]]
    return ids
