"""What is not believed is held: too many sources, or too many that match nothing."""

from types import SimpleNamespace

import numpy as np
import pytest

from service.compute import STORM, TOO_MANY_NEW, DetectorCompute
from service.settings import read_settings


@pytest.mark.parametrize(
    ("n_sources", "n_new", "code"),
    [(10, 10, ""), (50, 20, ""), (51, 0, STORM), (50, 21, TOO_MANY_NEW), (60, 60, STORM)],
)
def test_counts_beyond_belief_are_named(n_sources: int, n_new: int, code: str) -> None:
    settings = read_settings({}, max_dia_sources=50, max_new_objects=20)
    result = SimpleNamespace(dia_sources=np.zeros(n_sources), counts={"n_new_objects": n_new})
    found = DetectorCompute._breaker(SimpleNamespace(_settings=settings), result)  # type: ignore[arg-type]
    assert found == code
