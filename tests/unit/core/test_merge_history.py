"""What history a visit may use."""

import numpy as np

from core.contracts.bundle import History
from core.contracts.catalogs import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, Catalog, empty_catalog
from core.contracts.exposure import VisitInfo
from core.stages.merge_history import merge_history

VISIT = VisitInfo(
    instrument="t", group="g", visit=100, detector=1, band="r", exposure_start_mjd_tai=999.9998,
    exposure_end_mjd_tai=1000.0002, exposure_time_s=30, ra_deg=0, dec_deg=0, rot_sky_deg=0,
)  # fmt: skip


def sources(*rows: tuple[int, int, float, int]) -> Catalog:
    """Rows of (diaSourceId, diaObjectId, midpoint, visit)."""
    table = empty_catalog(DIA_SOURCE, len(rows))
    for name, values in zip(
        ("diaSourceId", "diaObjectId", "midpointMjdTai", "visit"), zip(*rows, strict=True), strict=True
    ):
        table[name] = values
    table["detector"] = 1
    return table


def history(dia_sources: Catalog | None = None, objects: Catalog | None = None) -> History:
    return History(
        dia_objects=empty_catalog(DIA_OBJECT, 0) if objects is None else objects,
        dia_sources=empty_catalog(DIA_SOURCE, 0) if dia_sources is None else dia_sources,
        dia_forced_sources=empty_catalog(DIA_FORCED_SOURCE, 0),
    )


def test_each_row_once_sorted_by_object_and_time() -> None:
    base = history(sources((1, 5, 900.0, 10), (2, 7, 950.0, 11)))
    tail = history(sources((4, 5, 999.0, 13), (3, 5, 990.0, 12), (3, 5, 990.0, 12), (2, 7, 950.0, 11)))
    merged = merge_history(base, tail, VISIT).dia_sources
    assert merged["diaSourceId"].tolist() == [1, 3, 4, 2]


def test_later_rows_own_rows_and_old_rows_are_left_out() -> None:
    base = history(sources((1, 5, 600.0, 10), (2, 5, 999.0, 11), (3, 5, 999.99, 100), (4, 5, 1000.5, 101)))
    assert merge_history(base, history(), VISIT).dia_sources["diaSourceId"].tolist() == [2]


def test_latest_version_of_an_object_wins() -> None:
    objects = empty_catalog(DIA_OBJECT, 3)
    objects["diaObjectId"] = [5, 5, 4]
    objects["validityStartMjdTai"] = [990.0, 995.0, 10.0]
    objects["nDiaSources"] = [1, 2, 9]
    merged = merge_history(history(objects=objects[[0, 2]][::-1].copy()), history(objects=objects[1:2]), VISIT)
    assert merged.dia_objects["nDiaSources"].tolist() == [9, 2]
    assert np.all(np.diff(merged.dia_objects["diaObjectId"]) > 0)
