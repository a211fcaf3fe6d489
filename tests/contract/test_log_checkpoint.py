"""The checkpoint record and the factory: what needs no server."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigurationError, RejectedInputError
from service.log import Checkpoint, Fenced, IdentityTaken, LogUnavailable, Message, Record, open_log
from service.log.contract import MAX_STATE_BYTES, MAX_VALUE_BYTES, RECENT_KEPT
from service.log.kafka_wire import pack_offset, unpack_offset

MESSAGE = Message("work", 3, 41, b"", b"", {}, 0)


@given(
    offset=st.integers(0, 2**53),
    recent=st.lists(st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 65535)), max_size=RECENT_KEPT).map(tuple),
    state=st.binary(max_size=MAX_STATE_BYTES),
)
def test_any_checkpoint_survives_packing_and_fits_kafkas_metadata(
    offset: int, recent: tuple[tuple[int, int], ...], state: bytes
) -> None:
    checkpoint = Checkpoint(offset=offset, recent=recent, state=state)
    assert Checkpoint.unpack(checkpoint.pack()) == checkpoint
    stored = pack_offset("work", 0, checkpoint)
    assert len(stored.metadata) <= 4096
    assert unpack_offset(stored) == checkpoint


def test_advance_remembers_the_last_visits_and_keeps_the_state() -> None:
    checkpoint = Checkpoint(state=b"s")
    for visit in range(RECENT_KEPT + 5):
        checkpoint = checkpoint.advance(MESSAGE, visit=visit, detector=7)
    assert checkpoint.offset == 42
    assert checkpoint.state == b"s"
    assert checkpoint.recent == tuple((visit, 7) for visit in range(5, RECENT_KEPT + 5))
    assert checkpoint.has(68, 7)
    assert not checkpoint.has(4, 7)
    assert checkpoint.advance(MESSAGE).recent == checkpoint.recent  # a hint is passed over, no visit is done


def test_offset_moved_by_hand_in_kafka_wins_over_the_metadata() -> None:
    stored = pack_offset("work", 0, Checkpoint(offset=10, recent=((1, 2),)))
    stored.offset = 5
    assert unpack_offset(stored) == Checkpoint(offset=5, recent=((1, 2),))
    stored.offset = -1001
    assert unpack_offset(stored) is None


def test_oversized_or_foreign_records_are_refused() -> None:
    with pytest.raises(ValueError, match="too large"):
        Checkpoint(state=bytes(MAX_STATE_BYTES + 1)).pack()
    with pytest.raises(ValueError, match="too large"):
        Record("out", key=b"", value=bytes(MAX_VALUE_BYTES + 1))
    with pytest.raises(RejectedInputError):
        Checkpoint.unpack(msgpack.packb([99, 0, [], b""]))


def test_factory_knows_three_schemes_and_errors_say_what_to_do() -> None:
    with pytest.raises(ConfigurationError):
        open_log("amqp://localhost")
    assert issubclass(IdentityTaken, Fenced)
    assert issubclass(LogUnavailable, Exception)
    assert LogUnavailable("away").code == "log_unavailable"
