"""What history a visit may use."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from core.contracts.bundle import History, HistoryIndex
from core.contracts.catalogs import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, Catalog, empty_catalog
from core.contracts.exposure import VisitInfo
from core.stages.past import IN_TAIL, Past

VISIT = VisitInfo(
    instrument="t", group="g", visit=100, detector=1, band="r", exposure_start_mjd_tai=999.9998,
    exposure_end_mjd_tai=1000.0002, exposure_time_s=30, ra_deg=0, dec_deg=0, rot_sky_deg=0,
)  # fmt: skip


def sources(*rows: tuple[int, int, float, int]) -> Catalog:
    """Rows of (diaSourceId, diaObjectId, midpoint, visit)."""
    table = empty_catalog(DIA_SOURCE, len(rows))
    if not rows:
        return table
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


def past(base: History, tail: History) -> Past:
    return Past(base, HistoryIndex.of(base), tail, VISIT)


def test_each_row_once_sorted_by_object_and_time() -> None:
    base = history(sources((1, 5, 900.0, 10), (2, 7, 950.0, 11)))
    tail = history(sources((4, 5, 999.0, 13), (3, 5, 990.0, 12), (3, 5, 990.0, 12), (2, 7, 950.0, 11)))
    rows = past(base, tail).dia_sources(np.array([5, 6, 7]))
    assert rows.column("diaSourceId").tolist() == [1, 3, 4, 2]
    assert rows.start.tolist() == [0, 3, 3, 4]
    assert rows.base_row.tolist() == [0, IN_TAIL, IN_TAIL, 1]


def test_only_the_objects_asked_for() -> None:
    base = history(sources((1, 5, 900.0, 10), (2, 7, 950.0, 11)))
    tail = history(sources((3, 8, 990.0, 12), (4, 7, 991.0, 13)))
    assert past(base, tail).dia_sources(np.array([7])).column("diaSourceId").tolist() == [2, 4]
    assert past(base, tail).dia_sources(np.array([], np.int64)).column("diaSourceId").size == 0


def test_later_rows_own_rows_old_and_withdrawn_rows_are_left_out() -> None:
    rows = sources((1, 5, 600.0, 10), (5, 5, 998.0, 9), (2, 5, 999.0, 11), (3, 5, 999.99, 100), (4, 5, 1000.5, 101))
    rows["timeWithdrawnMjdTai"][1] = 999.5
    for base, tail in ((rows, rows[:0]), (rows[:0], rows)):
        found = past(history(base), history(tail)).dia_sources(np.array([5]))
        assert found.column("diaSourceId").tolist() == [2]


def test_latest_version_of_an_object_wins() -> None:
    objects = empty_catalog(DIA_OBJECT, 3)
    objects["diaObjectId"] = [5, 5, 4]
    objects["validityStartMjdTai"] = [990.0, 995.0, 10.0]
    objects["nDiaSources"] = [1, 2, 9]
    merged = past(history(objects=objects[[0, 2]][::-1].copy()), history(objects=objects[1:2])).dia_objects
    assert merged["nDiaSources"].tolist() == [9, 2]
    assert np.all(np.diff(merged["diaObjectId"]) > 0)


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 40), st.booleans(), st.booleans()), max_size=60))
def test_any_split_of_the_rows_gives_what_plain_loops_give(drawn: list[tuple[int, int, bool, bool]]) -> None:
    """Rows of (object, day, in the base, in the tail), one an object and day."""
    unique = {(owner, day): (in_base, in_tail) for owner, day, in_base, in_tail in drawn}
    keys = sorted(key for key, (in_base, in_tail) in unique.items() if in_base or in_tail)
    rows = sources(*((100 * owner + day, owner, 980.0 + day, 10 + day) for owner, day in keys)) if keys else sources()
    in_base = np.array([unique[key][0] for key in keys], bool)
    in_tail = np.array([unique[key][1] for key in keys], bool)
    tail = rows[in_tail][::-1].copy()
    found = past(history(rows[in_base]), history(tail)).dia_sources(np.arange(7))
    expected = [[100 * owner + day for owner, day in keys if owner == i and day < 20] for i in range(7)]
    ids = found.column("diaSourceId")
    assert [ids[a:b].tolist() for a, b in pairwise(found.start)] == expected
    assert ((found.base_row == IN_TAIL) <= ~in_base[np.searchsorted(rows["diaSourceId"], ids)]).all()
