"""A detector with as many sources, known objects and previous visits as a bench asks for."""

from dataclasses import dataclass

import numpy as np

from core.camera import Camera
from core.contracts.bundle import Bundle, History
from core.contracts.catalogs import (
    DIA_FORCED_SOURCE,
    DIA_OBJECT,
    DIA_SOURCE,
    Catalog,
    empty_catalog,
    take_rows,
)
from core.ids import pack_visit, source_ids
from core.pipeline import FirstHalf, Pipeline
from core.warm_up import made_up_visit

RELEASE = 1
MARGIN_PIX = 60
DAYS = 360.0
_BANDS = np.array(list("ugrizy"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """What a detector-visit meets."""

    alerts: int
    previous_visits: int
    """Of the field in the last twelve months."""
    known_objects: int = 500
    detected_fraction: float = 1.0
    """Of the previous visits, in which an object that is detected now was detected."""


def measured_visit(camera: Camera, pipeline: Pipeline, detector: int) -> tuple[FirstHalf, Bundle]:
    """A made-up visit taken through its pixels: full frames, PSFs, WCS."""
    raw, bundle, _ = made_up_visit(camera, detector)
    first = pipeline.measure(raw, bundle, tail=lambda: None, remaining_s=lambda: 60.0, time_processed_mjd_tai=60000.001)
    assert first.subtraction is not None
    return first, bundle


def make_sources(first: FirstHalf, depth: Depth, rng: np.random.Generator) -> Catalog:
    """DIASources at random places of the detector, rows as the pipeline measured others."""
    assert first.subtraction is not None
    info, found = first.exposure.visit_info, first.subtraction.sources
    rows = take_rows(found, rng.integers(0, found.size, depth.alerts))
    ny, nx = first.exposure.frame.shape
    rows["x"] = rng.uniform(MARGIN_PIX, nx - MARGIN_PIX, rows.size)
    rows["y"] = np.sort(rng.uniform(MARGIN_PIX, ny - MARGIN_PIX, rows.size))
    rows["ra"], rows["dec"] = first.exposure.wcs.pixel_to_sky(rows["x"].astype(float), rows["y"].astype(float))
    rows["diaSourceId"] = source_ids(RELEASE, info.visit, info.detector, np.arange(rows.size, dtype=np.int64))
    return rows


def make_history(first: FirstHalf, sources: Catalog, depth: Depth, rng: np.random.Generator) -> History:
    """Known objects: one at each source as far as they go, the rest anywhere; each with its light curve."""
    info = first.exposure.visit_info
    n = max(depth.known_objects, sources.size) if depth.previous_visits else 0
    objects = empty_catalog(DIA_OBJECT, n)
    ny, nx = first.exposure.frame.shape
    x, y = rng.uniform(0, nx - 1, n), rng.uniform(0, ny - 1, n)
    x[: sources.size], y[: sources.size] = sources["x"][:n], sources["y"][:n]
    objects["ra"], objects["dec"] = first.exposure.wcs.pixel_to_sky(x, y)
    first_visit = pack_visit(20000101, 2)
    objects["diaObjectId"] = source_ids(RELEASE, first_visit, info.detector, np.arange(n, dtype=np.int64))
    objects["nDiaSources"] = 2
    objects["raErr"] = objects["decErr"] = 2e-5
    objects["firstDiaSourceMjdTai"] = info.midpoint_mjd_tai - DAYS
    objects["validityStartMjdTai"] = info.midpoint_mjd_tai - 1
    visits = np.array([pack_visit(20000101, 10 + i) for i in range(depth.previous_visits)], np.int64)
    times = np.sort(info.midpoint_mjd_tai - rng.uniform(0.5, DAYS, visits.size))
    n_now = min(sources.size, n)
    return History(
        dia_objects=objects,
        dia_sources=_curves(DIA_SOURCE, objects[:n_now], visits, times, depth.detected_fraction, rng),
        dia_forced_sources=_curves(DIA_FORCED_SOURCE, objects, visits, times, 1.0, rng),
    )


def _curves(
    dtype: np.dtype[np.void],
    objects: Catalog,
    visits: np.ndarray,
    times: np.ndarray,
    fraction: float,
    rng: np.random.Generator,
) -> Catalog:
    """Rows sorted by object and time."""
    keep = rng.random((objects.size, visits.size)) < fraction
    owner, visit = np.nonzero(keep)
    rows = empty_catalog(dtype, owner.size)
    rows["diaObjectId"], rows["ra"], rows["dec"] = (objects[name][owner] for name in ("diaObjectId", "ra", "dec"))
    rows["visit"], rows["midpointMjdTai"] = visits[visit], times[visit]
    rows["detector"] = 1
    rows["band"] = _BANDS[visit % _BANDS.size]
    rows["psfFlux"], rows["psfFluxErr"] = rng.normal(500, 200, rows.size), rng.uniform(50, 90, rows.size)
    rows["scienceFlux"], rows["scienceFluxErr"] = rng.normal(5000, 200, rows.size), rng.uniform(50, 90, rows.size)
    key = "diaSourceId" if dtype == DIA_SOURCE else "diaForcedSourceId"
    rows[key] = 1 + np.arange(rows.size)
    if dtype == DIA_SOURCE:
        rows["raErr"] = rows["decErr"] = 3e-5
        rows["ra_dec_Cov"] = 0.0
    return rows
