"""Twelve months of the past: DIASources, forced sources and DIAObjects that an alert's history is read from."""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.simulator.changes import Variables, make_variables
from benchmarks.simulator.config import SimulationConfig
from benchmarks.simulator.photometry import BANDS, njy_per_electron, sky_electrons
from benchmarks.simulator.randomness import stream
from benchmarks.simulator.template_inputs import template_inputs
from core.camera import Camera

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Table = dict[str, NDArray[Any]]

HISTORY_BANDS: Final = ("g", "r", "i", "z")
_DETECTION_SNR: Final = 5.0
_NOISE_PIXELS: Final = 40.0
_POSITION_ERROR_ARCSEC: Final = 0.3
"""Error of a position at S/N 1."""
_PSF_IXX: Final = 0.115
_YOUNGEST_DAYS: Final = 2.0
_FLAGS: Final = (
    "centroid_flag", "apFlux_flag", "apFlux_flag_apertureTruncated", "psfFlux_flag", "psfFlux_flag_edge",
    "psfFlux_flag_noGoodPixels", "forced_PsfFlux_flag", "forced_PsfFlux_flag_edge", "forced_PsfFlux_flag_noGoodPixels",
    "shape_flag", "shape_flag_no_pixels", "shape_flag_not_contained", "shape_flag_parent_source", "isDipole",
    "dipoleFitAttempted", "pixelFlags", "pixelFlags_bad", "pixelFlags_cr", "pixelFlags_crCenter", "pixelFlags_edge",
    "pixelFlags_nodata", "pixelFlags_nodataCenter", "pixelFlags_interpolated", "pixelFlags_interpolatedCenter",
    "pixelFlags_offimage", "pixelFlags_saturated", "pixelFlags_saturatedCenter", "pixelFlags_suspect",
    "pixelFlags_suspectCenter", "pixelFlags_streak", "pixelFlags_streakCenter", "pixelFlags_injected",
    "pixelFlags_injectedCenter", "pixelFlags_injected_template", "pixelFlags_injected_templateCenter", "glint_trail",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PastVisits:
    """Visits of the past year, by time: (n,) MJD TAI of the middle, visit number, band index and flux error [nJy]."""

    mjd: Float64
    visit: Int64
    band: Int64
    sigma: Float64


def source_id(release: int, visit: Int64, detector: int, row: Int64) -> Int64:
    """64-bit ids: release 6 bits, days since 2000 16, sequence 17, detector 8, row + 1 16 (docs: core/ids.py)."""
    epoch = date(2000, 1, 1).toordinal()
    day_obs, sequence = np.divmod(visit, 100_000)
    day = np.array([date(d // 10_000, d // 100 % 100, d % 100).toordinal() - epoch for d in day_obs.tolist()], np.int64)
    return ((((np.int64(release) << 16 | day) << 17 | sequence) << 8 | detector) << 16) + row + 1


def day_obs_of(mjd_tai: float) -> int:
    """Observing day (it changes at noon UTC - 12 h) as YYYYMMDD."""
    day = date(1858, 11, 17) + timedelta(days=int(np.floor(mjd_tai - 37 / 86400 - 0.5)))
    return day.year * 10_000 + day.month * 100 + day.day


def past_visits(config: SimulationConfig) -> PastVisits:
    """Visits spread over the year before the first of tonight; bands mixed, errors those of a 30 s visit."""
    rng = stream(config.seed, "past visits")
    n = config.history_forced + 6
    nights = np.sort(rng.uniform(_YOUNGEST_DAYS, config.history_days - 1, n))[::-1]
    mjd = np.floor(config.start_mjd_tai - nights) + rng.uniform(0.05, 0.35, n)
    mjd = np.sort(np.clip(mjd, config.start_mjd_tai - config.history_days + 0.5, config.start_mjd_tai - 1))
    visit = np.array([day_obs_of(t) * 100_000 for t in mjd], np.int64) + 200 + np.arange(n)
    band = np.array([BANDS.index(HISTORY_BANDS[i]) for i in rng.integers(0, len(HISTORY_BANDS), n)], np.int64)
    depth = []
    for b in BANDS:
        noise = np.sqrt(_NOISE_PIXELS * (sky_electrons(b, config.exposure_s, 0.2, 0.1) + 36.0))
        depth.append(noise * njy_per_electron(b, config.exposure_s, 1.15, 0.0) * 1.1)
    sigma = np.array(depth)[band] * rng.uniform(0.85, 1.25, n)
    return PastVisits(mjd, visit, band, sigma)


def template_flux(config: SimulationConfig, camera: Camera, variables: Variables) -> Float64:
    """(n, 6) mean flux of the variables in the coadd of each band [nJy]."""
    out = np.zeros((variables.rows.size, len(BANDS)))
    for i, band in enumerate(BANDS):
        inputs = template_inputs(config, camera, band)
        weights = np.array([visit.weight for visit in inputs])
        epochs = np.array([visit.mjd_tai for visit in inputs])
        out[:, i] = variables.flux(band, epochs) @ (weights / weights.sum())
    return out


def _measure(rng: np.random.Generator, visits: PastVisits, which: Int64, flux: Float64, template: Float64) -> Table:
    """Noisy difference, science and template fluxes at rows of ``visits``."""
    sigma = visits.sigma[which]
    noise = rng.normal(size=which.size)
    return {
        "visit": visits.visit[which],
        "midpointMjdTai": visits.mjd[which],
        "band_index": visits.band[which],
        "psfFlux": flux + sigma * noise,
        "psfFluxErr": sigma,
        "scienceFlux": flux + template + sigma * (0.9 * noise + 0.3 * rng.normal(size=which.size)),
        "scienceFluxErr": 0.95 * sigma,
        "templateFlux": template + 0.4 * sigma * rng.normal(size=which.size),
        "templateFluxErr": 0.4 * sigma,
    }


def detector_history(config: SimulationConfig, camera: Camera, detector: int, release: int) -> tuple[Table, Table]:
    """DIASources and forced sources of one detector's past year; ids of objects are those of their first source."""
    rng = stream(config.seed, "history", detector)
    visits = past_visits(config)
    variables = make_variables(config, camera, detector)
    sources, forced, owner_ra, owner_dec = _past_variables(rng, config, camera, visits, variables)
    others = _past_others(rng, config, camera, detector, visits)
    n = variables.rows.size
    sources = {key: np.concatenate([values, others[key]]) for key, values in sources.items()}
    sources["owner"][-others["owner"].size :] += n
    ra = np.concatenate([owner_ra, others["ra0"][np.unique(others["owner"], return_index=True)[1]]])
    dec = np.concatenate([owner_dec, others["dec0"][np.unique(others["owner"], return_index=True)[1]]])
    order = np.lexsort((sources["owner"], sources["visit"]))
    sources = {key: values[order] for key, values in sources.items()}
    sources["diaSourceId"] = source_id(release, sources["visit"], detector, _row_in_visit(sources["visit"]))
    _, first = np.unique(sources["owner"], return_index=True)
    object_id = sources["diaSourceId"][first]
    sources["diaObjectId"] = object_id[sources["owner"]]
    _finish_sources(rng, config, camera, detector, sources, ra, dec)
    order = np.lexsort((forced["owner"], forced["visit"]))
    forced = {key: values[order] for key, values in forced.items()}
    forced["diaForcedSourceId"] = source_id(release, forced["visit"], detector, _row_in_visit(forced["visit"]))
    forced["diaObjectId"] = object_id[forced["owner"]]
    forced["ra"], forced["dec"] = ra[forced["owner"]], dec[forced["owner"]]
    forced["detector"] = np.full(forced["visit"].size, detector)
    forced["timeProcessedMjdTai"] = forced["midpointMjdTai"] + 60 / 86400
    return sources, forced


def _past_variables(
    rng: np.random.Generator, config: SimulationConfig, camera: Camera, visits: PastVisits, variables: Variables
) -> tuple[Table, Table, Float64, Float64]:
    """Forced sources of each variable in all visits, DIASources where it was detected."""
    template = template_flux(config, camera, variables)
    light = np.stack([variables.flux(b, visits.mjd) for b in BANDS])  # (6, n, m)
    m, n = visits.mjd.size, variables.rows.size
    difference = light[visits.band, :, np.arange(m)].T - template[:, visits.band]
    owner, which = np.repeat(np.arange(n), m), np.tile(np.arange(m), n)
    forced = _measure(rng, visits, which, difference.ravel(), template[owner, visits.band[which]])
    forced["owner"] = owner
    snr = np.abs(forced["psfFlux"] / forced["psfFluxErr"])
    # the strongest ones count as detected where fewer than asked for pass the threshold
    rank = np.argsort(np.argsort(-snr.reshape(n, m), axis=1), axis=1).ravel()
    detected = np.flatnonzero((snr > _DETECTION_SNR) | (rank < config.history_sources))
    sources = {key: values[detected] for key, values in forced.items()}
    return sources, forced, variables.rows["ra"], variables.rows["dec"]


def _past_others(
    rng: np.random.Generator, config: SimulationConfig, camera: Camera, detector: int, visits: PastVisits
) -> Table:
    """One to three DIASources each of objects that have gone: old transients and artifacts."""
    n = config.other_objects
    ny, nx = camera.detectors[detector].shape
    x, y = rng.uniform(20, nx - 20, n), rng.uniform(20, ny - 20, n)
    ra, dec = camera.pixel_to_sky(detector, x, y, config.ra_deg, config.dec_deg, config.rot_sky_deg)
    counts = rng.integers(1, 4, n)
    owner = np.repeat(np.arange(n), counts)
    start = rng.integers(0, visits.mjd.size - 3, n)
    which = start[owner] + np.concatenate([np.arange(c) for c in counts])
    flux = rng.uniform(6, 40, owner.size) * visits.sigma[which]
    table = _measure(rng, visits, which, flux, np.zeros(owner.size))
    return {**table, "owner": owner, "ra0": ra[owner], "dec0": dec[owner]}


def _row_in_visit(visit: Int64) -> Int64:
    """Running number inside each visit of a column sorted by visit."""
    _, start, counts = np.unique(visit, return_index=True, return_counts=True)
    return np.asarray(np.arange(visit.size) - np.repeat(start, counts), np.int64)


def _finish_sources(
    rng: np.random.Generator,
    config: SimulationConfig,
    camera: Camera,
    detector: int,
    table: Table,
    ra: Float64,
    dec: Float64,
) -> None:
    """Fill the remaining columns of DIASource rows with what a measurement of a point source would give."""
    n = table["visit"].size
    snr = table["psfFlux"] / table["psfFluxErr"]
    error = _POSITION_ERROR_ARCSEC / np.maximum(np.abs(snr), 1) / 3600
    table["dec"] = dec[table["owner"]] + error * rng.normal(size=n)
    table["ra"] = ra[table["owner"]] + error * rng.normal(size=n) / np.cos(np.radians(table["dec"]))
    x, y = camera.sky_to_pixel(detector, table["ra"], table["dec"], config.ra_deg, config.dec_deg, config.rot_sky_deg)
    constants: dict[str, Any] = {
        "detector": detector, "exposureTime": config.exposure_s, "ra_dec_Cov": 0.0, "psfNdata": 625, "trailNdata": 0,
        "dipoleNdata": 0, "ixxPSF": _PSF_IXX, "iyyPSF": _PSF_IXX, "ixyPSF": 0.0, "extendedness": 0.0, "bboxSize": 30,
        "reliabilityVersion": "simulated",
    }  # fmt: skip
    table.update({name: np.full(n, value) for name, value in constants.items()})
    table.update(
        x=x, y=y, xErr=error * 18000, yErr=error * 18000, raErr=error, decErr=error, snr=np.abs(snr),
        isNegative=snr < 0, apFlux=table["psfFlux"] + 0.5 * table["psfFluxErr"] * rng.normal(size=n),
        apFluxErr=1.2 * table["psfFluxErr"], psfChi2=625 + 35 * rng.normal(size=n),
        psfLnL=-312 + 17 * rng.normal(size=n),
        ixx=_PSF_IXX + 0.2 * _PSF_IXX * rng.normal(size=n) / np.maximum(np.abs(snr), 5),
        iyy=_PSF_IXX + 0.2 * _PSF_IXX * rng.normal(size=n) / np.maximum(np.abs(snr), 5),
        ixy=0.1 * _PSF_IXX * rng.normal(size=n) / np.maximum(np.abs(snr), 5),
        reliability=np.clip(1 - 2 / np.maximum(np.abs(snr), 2.5), 0, 1),
        timeProcessedMjdTai=table["midpointMjdTai"] + 60 / 86400,
    )  # fmt: skip
    table.update({name: np.zeros(n, bool) for name in _FLAGS})
