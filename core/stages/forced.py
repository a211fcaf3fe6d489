"""Forced photometry: fluxes at the places of known DIAObjects, whether or not anything was detected there."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.contracts.catalogs import DIA_FORCED_SOURCE, NULL_LONG, Catalog, empty_catalog
from core.contracts.exposure import DifferenceImage, Exposure
from core.ids import source_ids
from core.stages.measure import ProcessingStamp
from core.stages.point_source import PsfOnFrame

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForcedConfig:
    """Which known objects are measured."""

    min_dia_sources: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ForcedTargets:
    """Objects to measure: id, ICRS position [deg] (n,), ordered by id."""

    dia_object_id: NDArray[np.int64]
    ra: Float64
    dec: Float64


def forced_targets(
    sources: Catalog, dia_objects: Catalog, exposure: Exposure, config: ForcedConfig | None = None
) -> ForcedTargets:
    """Objects of the history inside the image with enough DIASources, and every object detected now.

    ``sources`` carry their final ids. Known objects are measured at the position they had before this visit, new ones
    at that of their DIASource.
    """
    config = config or ForcedConfig()
    detected = sources[sources["diaObjectId"] != NULL_LONG]
    wanted = (dia_objects["nDiaSources"] >= config.min_dia_sources) | np.isin(
        dia_objects["diaObjectId"], detected["diaObjectId"]
    )
    known = dia_objects[wanted]
    x, y = exposure.wcs.sky_to_pixel(known["ra"], known["dec"])
    ny, nx = exposure.frame.shape
    known = known[(x > -0.5) & (y > -0.5) & (x < nx - 0.5) & (y < ny - 0.5)]
    first = np.unique(detected["diaObjectId"], return_index=True)[1]
    new = detected[first]
    new = new[~np.isin(new["diaObjectId"], known["diaObjectId"])]
    ids = np.concatenate([known["diaObjectId"], new["diaObjectId"]])
    order = np.argsort(ids, kind="stable")
    return ForcedTargets(
        dia_object_id=ids[order],
        ra=np.concatenate([known["ra"], new["ra"]])[order],
        dec=np.concatenate([known["dec"], new["dec"]])[order],
    )


def force_photometry(
    difference: DifferenceImage, exposure: Exposure, targets: ForcedTargets, stamp: ProcessingStamp
) -> Catalog:
    """PSF fluxes on the difference and on the science image at the targets, one DIAForcedSource row each.

    Ids count the rows of this list. Fluxes are null where no pixel was usable.
    """
    rows = empty_catalog(DIA_FORCED_SOURCE, targets.ra.size)
    visit_info = exposure.visit_info
    numbers = np.arange(rows.size, dtype=np.int64)
    rows["diaForcedSourceId"] = source_ids(stamp.release, visit_info.visit, visit_info.detector, numbers)
    rows["diaObjectId"] = targets.dia_object_id
    rows["ra"], rows["dec"] = targets.ra, targets.dec
    rows["visit"], rows["detector"], rows["band"] = visit_info.visit, visit_info.detector, visit_info.band
    rows["midpointMjdTai"] = visit_info.midpoint_mjd_tai
    rows["timeProcessedMjdTai"] = stamp.time_processed_mjd_tai
    x, y = exposure.wcs.sky_to_pixel(targets.ra, targets.dec)
    on_difference = PsfOnFrame.of(difference.frame, difference.psf).forced(x, y)
    rows["psfFlux"], rows["psfFluxErr"] = on_difference.flux, on_difference.flux_err
    on_science = PsfOnFrame.of(exposure.frame, exposure.psf).forced(x, y)
    rows["scienceFlux"], rows["scienceFluxErr"] = on_science.flux, on_science.flux_err
    return rows
