"""Ids are injective, deterministic and fit 64 bits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import RejectedInputError
from core.ids import pack_visit, source_ids, unpack_visit, visits_of

visits = st.builds(pack_visit, st.sampled_from([20000101, 20261123, 20991231]), st.integers(0, 99_999))


@given(visit=visits, detector=st.integers(0, 255), row=st.integers(0, 65_534), release=st.integers(0, 63))
def test_bits_can_be_read_back(visit: int, detector: int, row: int, release: int) -> None:
    (value,) = source_ids(release, visit, detector, np.array([row], np.int64)).tolist()
    assert 0 < value < 2**63
    assert value % 2**16 == row + 1
    assert value >> 16 & 0xFF == detector
    assert value >> 24 & 0x1FFFF == unpack_visit(visit)[1]
    assert value >> 57 == release
    found_visit, found_detector = visits_of(np.array([value], np.int64))
    assert (found_visit.tolist(), found_detector.tolist()) == ([visit], [detector])


def test_equal_inputs_give_equal_ids_and_different_days_differ() -> None:
    rows = np.arange(10)
    first = source_ids(1, pack_visit(20261123, 7), 94, rows)
    np.testing.assert_array_equal(first, source_ids(1, pack_visit(20261123, 7), 94, rows))
    assert not np.intersect1d(first, source_ids(1, pack_visit(20261124, 7), 94, rows)).size


@pytest.mark.parametrize("arguments", [(64, 1, 0), (0, 1, 256), (0, 1, -1)])
def test_out_of_range_is_rejected(arguments: tuple[int, int, int]) -> None:
    release, sequence, detector = arguments
    with pytest.raises(RejectedInputError):
        source_ids(release, pack_visit(20261123, sequence), detector, np.arange(1))
    with pytest.raises(RejectedInputError):
        pack_visit(20261123, 100_000)
