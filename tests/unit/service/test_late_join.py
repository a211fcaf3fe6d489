"""A worker's group is joined when its child can compute, not before."""

import pytest

from service.log.contract import Checkpoint, LogUnavailable
from service.roles.late_join import LateJoin
from tests.support.service.builders import readout
from tests.support.service.fakes import FakeLog


def test_nothing_is_owned_or_read_before_the_child_is_warm() -> None:
    log, is_warm = FakeLog(), False
    late = LateJoin(lambda: log, lambda: is_warm)
    log.put(readout())
    assert (late.poll(0.0), late.assignment(), late.has_joined) == ([], {}, False)
    late.close()
    is_warm = True
    (message,) = late.poll(0.0)
    assert late.assignment() == {0: 1, 1: 1}
    late.commit(0, Checkpoint().advance(message), [], epoch=1)
    assert late.checkpoint(0) == log.checkpoints[0]


def test_a_log_that_is_away_is_joined_when_it_is_back() -> None:
    log = FakeLog()
    answers = [LogUnavailable("away"), log]

    def join() -> FakeLog:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    late = LateJoin(join, lambda: True)
    with pytest.raises(LogUnavailable):
        late.poll(0.0)
    assert not late.has_joined
    assert late.poll(0.0) == []
    assert late.has_joined
