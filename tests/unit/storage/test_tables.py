"""Rows taken and joined as bytes are the rows."""

import numpy as np

from core.contracts.catalogs import DIA_SOURCE, join_rows, take_rows
from service.storage.tables import empty_history, join_histories, pack_history, unpack_history
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
