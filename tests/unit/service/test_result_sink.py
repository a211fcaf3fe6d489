"""A sink of results: how far it is, is stored even if the log was away just then."""

from collections import deque
from collections.abc import Mapping

import msgpack
import pytest
from prometheus_client import CollectorRegistry

from core.errors import TransientError
from service.log import LogUnavailable
from service.log.contract import Message
from service.metrics import Metrics
from service.records import FORMAT, Result
from service.roles.archive import ResultSink


class Results:
    """Three results, and stores that fail as told."""

    def __init__(self, failing: int) -> None:
        self.failing = failing
        self.arriving = deque([[Message("results", 0, i, b"", b"%d" % i, {}, 0) for i in range(3)]])
        self.stored: dict[int, int] = {}

    def poll(self, timeout_s: float, max_messages: int = 500) -> list[Message]:
        return self.arriving.popleft() if self.arriving else []

    def commit(self, offsets: Mapping[int, int]) -> None:
        if self.failing:
            self.failing -= 1
            raise LogUnavailable("no answer")
        self.stored |= offsets

    def committed(self) -> dict[int, int]:
        return self.stored

    def bounds(self) -> dict[int, tuple[int, int]]:
        return {0: (0, 3)}


@pytest.mark.parametrize("is_away_at", [None, 1])
def test_a_store_that_failed_is_made_up_for(monkeypatch: pytest.MonkeyPatch, is_away_at: int | None) -> None:
    monkeypatch.setattr("service.roles.archive.unpack", lambda kind, value: value)
    written: list[bytes] = []
    is_away = [is_away_at]

    def write(result: Result | bytes) -> None:
        assert isinstance(result, bytes)
        if is_away[0] is not None and len(written) == is_away[0]:
            is_away[0] = None
            raise TransientError("away", code="apdb_unavailable")
        written.append(result)

    results = Results(failing=2)
    sink = ResultSink("sink-apdb", results, write, Metrics(CollectorRegistry()))  # type: ignore[arg-type]
    for _ in range(2):
        with pytest.raises(TransientError):
            sink.turn()
    for _ in range(2):
        sink.turn()
    assert (written, results.stored) == ([b"0", b"1", b"2"], {0: 3})


def test_a_result_of_another_release_waits_and_garbage_does_not() -> None:
    written: list[Result] = []
    results = Results(failing=0)
    newer = msgpack.packb({"format": FORMAT + 1, "record": "Result", "fields": {}})
    results.arriving = deque([[Message("results", 0, i, b"", v, {}, 0) for i, v in enumerate((b"junk", newer, b"x"))]])
    sink = ResultSink("sink-apdb", results, written.append, Metrics(CollectorRegistry()))  # type: ignore[arg-type]
    for _ in range(3):
        with pytest.raises(TransientError, match="format"):
            sink.turn()
    assert (written, results.stored) == ([], {0: 1})
