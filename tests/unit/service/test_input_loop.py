"""Fan-out while the log does not take its work: nothing that was read is forgotten."""

import json
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from core.camera import load_camera
from service.log import LogUnavailable, Record
from service.log.contract import Message
from service.metrics import Metrics
from service.records import Readout, unpack
from service.roles.fanout import FanOut
from service.roles.run_fanout import InputLoop
from tests.support.service.builders import VISIT, readout_event
from tests.support.service.fakes import FakeClock


class Wire:
    """Reader and producer in one; each message is given once."""

    def __init__(self) -> None:
        self.arriving: deque[list[Message]] = deque()
        self.appended: list[Record] = []
        self.n_read = self.n_stored = 0
        self.failing: deque[bool] = deque()
        """Of the appends to come: whether the records arrive although the reply is lost."""

    def reader(self, topic: str, *, name: str | None = None, start: str = "earliest") -> "Wire":
        return self

    def producer(self) -> "Wire":
        return self

    def poll(self, timeout_s: float, max_messages: int = 500) -> list[Message]:
        messages = self.arriving.popleft() if self.arriving else []
        self.n_read += len(messages)
        return messages

    def append(self, records: Sequence[Record]) -> None:
        if self.failing:
            if self.failing.popleft():
                self.appended += records
            raise LogUnavailable("no answer")
        self.appended += records

    def commit(self) -> None:
        self.n_stored = self.n_read


@pytest.mark.parametrize("failing", [[], [False], [True], [False, True, False]])
def test_no_readout_is_lost_by_a_log_that_was_away(tmp_path: Path, failing: list[bool]) -> None:
    wire = Wire()
    for first in (0, 3):
        events = [readout_event(visit=VISIT + i) for i in range(first, first + 3)]
        wire.arriving.append(
            [Message("readout", 0, i, b"", json.dumps(e).encode(), {}, 0) for i, e in enumerate(events)]
        )
    wire.failing.extend(failing)
    fan_out = FanOut(load_camera("lsstcam"), 4, (tmp_path,), FakeClock(), Metrics(CollectorRegistry()))
    loop = InputLoop(wire, "readout", fan_out)  # type: ignore[arg-type]
    for _ in failing:
        with pytest.raises(LogUnavailable):
            loop.turn()
        assert wire.n_stored == 0
    for _ in range(3):
        loop.turn()
    visits = [unpack(Readout, record.value).visit - VISIT for record in wire.appended]
    assert visits == [0, 1, 2] * sum(failing) + [0, 1, 2, 3, 4, 5]
    assert wire.n_stored == 6
