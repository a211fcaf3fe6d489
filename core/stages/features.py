"""New versions of the DIAObjects that a visit touched: mean position and light-curve features over twelve months."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.contracts.catalogs import BANDS, DIA_OBJECT, NULL_LONG, Catalog, empty_catalog
from core.contracts.exposure import VisitInfo
from core.kernels import features as kernels
from core.stages.light_curves import LightCurves, gather
from core.stages.past import Past

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_PSF_COLUMNS: Final = {
    "psfFluxMean": kernels.MEAN,
    "psfFluxMeanErr": kernels.MEAN_ERR,
    "psfFluxSigma": kernels.SIGMA,
    "psfFluxMin": kernels.MINIMUM,
    "psfFluxMax": kernels.MAXIMUM,
    "psfFluxMaxSlope": kernels.MAX_SLOPE,
    "psfFluxErrMean": kernels.ERR_MEAN,
}


def update_objects(sources: Catalog, forced: Catalog, past: Past, visit_info: VisitInfo) -> tuple[Catalog, Int64]:
    """New versions of all objects that have a source in this visit, and each source's row among them (-1: none).

    Features run over the past and this visit's rows; ``forced`` are this visit's forced sources. The mean position
    weighs each source by its inverse covariance. ``firstDiaSourceMjdTai`` of the known version is kept where older.
    Rows are ordered by id.
    """
    mine = sources[sources["diaObjectId"] != NULL_LONG]
    ids = np.unique(mine["diaObjectId"])
    object_index = np.full(sources.size, -1, np.int64)
    has_object = sources["diaObjectId"] != NULL_LONG
    object_index[has_object] = np.searchsorted(ids, sources["diaObjectId"][has_object])

    detected = gather(
        ids, past.dia_sources(ids), mine,
        ("band", "midpointMjdTai", "psfFlux", "psfFluxErr", "scienceFlux", "scienceFluxErr",
         "ra", "dec", "raErr", "decErr", "ra_dec_Cov"),
    )  # fmt: skip
    measured = gather(ids, past.dia_forced_sources(ids), forced, ("band", "midpointMjdTai", "psfFlux", "psfFluxErr"))
    objects = empty_catalog(DIA_OBJECT, ids.size)
    objects["diaObjectId"] = ids
    objects["validityStartMjdTai"] = visit_info.midpoint_mjd_tai
    if ids.size:
        _fill_position(objects, detected)
        _fill_bands(objects, detected, measured)
        _fill_span(objects, detected, past.dia_objects)
    return objects, object_index


def _fill_position(objects: Catalog, detected: LightCurves) -> None:
    first = detected.start[:-1]
    lengths = np.diff(detected.start)
    ra, dec = detected.float64("ra"), detected.float64("dec")
    ra0, dec0 = ra[first], dec[first]
    cosine = np.cos(np.radians(dec0))
    east = ((ra - np.repeat(ra0, lengths) + 180) % 360 - 180) * np.repeat(cosine, lengths)
    north = dec - np.repeat(dec0, lengths)
    var_east, var_north = detected.float64("raErr") ** 2, detected.float64("decErr") ** 2
    out = np.empty((objects.size, 5))
    kernels.mean_positions(detected.start, east, north, var_east, var_north, detected.float64("ra_dec_Cov"), out)
    objects["ra"], objects["dec"] = (ra0 + out[:, 0] / cosine) % 360, dec0 + out[:, 1]
    objects["raErr"], objects["decErr"] = np.sqrt(out[:, 2]), np.sqrt(out[:, 3])
    objects["ra_dec_Cov"] = out[:, 4]


def _fill_bands(objects: Catalog, detected: LightCurves, measured: LightCurves) -> None:
    difference = _statistics(detected, "psfFlux", "psfFluxErr")
    science = _statistics(detected, "scienceFlux", "scienceFluxErr")
    forced = _statistics(measured, "psfFlux", "psfFluxErr")
    for i, band in enumerate(BANDS):
        for name, column in _PSF_COLUMNS.items():
            objects[f"{band}_{name}"] = difference[:, i, column]
        objects[f"{band}_psfFluxNdata"] = difference[:, i, kernels.N_DATA]
        for name, statistics in (("scienceFlux", science), ("fpFlux", forced)):
            objects[f"{band}_{name}Mean"] = statistics[:, i, kernels.MEAN]
            objects[f"{band}_{name}MeanErr"] = statistics[:, i, kernels.MEAN_ERR]


def _statistics(curves: LightCurves, flux: str, error: str) -> Float64:
    """(n, 6, N_STATISTICS) of :func:`core.kernels.features.light_curve_statistics`."""
    out = np.empty((curves.start.size - 1, kernels.N_BANDS, kernels.N_STATISTICS))
    kernels.light_curve_statistics(
        curves.start, curves.band(), curves.float64("midpointMjdTai"), curves.float64(flux), curves.float64(error), out
    )
    return out


def _fill_span(objects: Catalog, detected: LightCurves, known: Catalog) -> None:
    mjd = detected.float64("midpointMjdTai")
    objects["nDiaSources"] = np.diff(detected.start)
    objects["firstDiaSourceMjdTai"] = mjd[detected.start[:-1]]
    objects["lastDiaSourceMjdTai"] = mjd[detected.start[1:] - 1]
    is_known = np.isin(objects["diaObjectId"], known["diaObjectId"])
    order = np.argsort(known["diaObjectId"], kind="stable")
    rows = order[np.searchsorted(known["diaObjectId"][order], objects["diaObjectId"][is_known])]
    objects["firstDiaSourceMjdTai"][is_known] = np.fmin(
        objects["firstDiaSourceMjdTai"][is_known], known["firstDiaSourceMjdTai"][rows]
    )
