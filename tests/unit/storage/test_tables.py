"""Rows taken and joined as bytes are the rows."""

import numpy as np

from core.contracts.bundle import History
from core.contracts.catalogs import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, empty_catalog, join_rows, take_rows
from service.storage.tables import empty_history, join_histories, pack_history, unpack_history, with_latest_objects
from tests.unit.alerts.records import random_catalog


def test_rows_are_taken_and_joined_as_numpy_does() -> None:
    rows = random_catalog("diaSource", DIA_SOURCE, n=12, seed=6)
    index = np.array([3, 3, 0, 11])
    mask = np.arange(12) % 3 == 0
    assert take_rows(rows, index).tobytes() == rows[index].tobytes()
    assert take_rows(rows, mask).tobytes() == rows[mask].tobytes()
    assert join_rows([rows[:5], rows[5:], rows[:0]]).tobytes() == rows.tobytes()
    assert join_rows([rows[::2], rows[1::2]]).dtype == DIA_SOURCE


def test_an_empty_history_survives_packing() -> None:
    unpacked = unpack_history(tuple((m, tuple(p)) for m, p in pack_history(empty_history())))
    assert unpacked is not None
    assert join_histories([unpacked, empty_history()]).dia_sources.size == 0
    assert join_histories([]).dia_objects.size == 0


def test_of_two_versions_of_an_object_the_latest_is_kept() -> None:
    objects = empty_catalog(DIA_OBJECT, 5)
    objects["diaObjectId"], objects["validityStartMjdTai"] = [7, 3, 7, 9, 3], [5.0, 1.0, 6.0, 2.0, 0.5]
    parts = [
        History(
            dia_objects=part,
            dia_sources=empty_catalog(DIA_SOURCE, 0),
            dia_forced_sources=empty_catalog(DIA_FORCED_SOURCE, 0),
        )
        for part in (objects[:2], objects[2:])
    ]
    kept = with_latest_objects(join_histories(parts)).dia_objects
    assert kept[["diaObjectId", "validityStartMjdTai"]].tolist() == [(3, 1.0), (7, 6.0), (9, 2.0)]
