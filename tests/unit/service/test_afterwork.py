"""Light-curve features follow the alerts they belong to, and only those."""

import socket

import pytest

from service.answers import Afterwork, decode_afterwork, encode_afterwork
from service.ipc import Channel
from service.log.contract import Fenced, LogUnavailable
from tests.support.service.builders import readout
from tests.unit.service.test_worker import Bench

FEATURES = Afterwork(features=((41, b"one"), (42, b"three")), n_dropped=0, wall_s=0.2, cpu_s=0.1)


def say(bench: Bench, work: Afterwork = FEATURES) -> None:
    message, blobs = encode_afterwork(bench.child.jobs[-1].generation, work)
    bench.child.say(message, [memoryview(blob) for blob in blobs])


def written(bench: Bench) -> list[tuple[bytes, bytes]]:
    return [(r.key, r.value) for r in bench.log.appended if r.topic == "features"]


def test_they_cross_the_channel() -> None:
    ours, theirs = map(Channel, socket.socketpair())
    ours.send(*encode_afterwork(9, FEATURES))
    message, blobs = theirs.receive()
    ours.close()
    theirs.close()
    assert (message["op"], message["generation"]) == ("afterwork", 9)
    assert decode_afterwork(message, blobs) == FEATURES


def test_they_are_written_after_the_commit_and_keyed_by_object() -> None:
    bench = Bench()
    bench.run_job()
    assert written(bench) == []
    say(bench)
    bench.turn()
    assert written(bench) == [(b"41", b"one"), (b"42", b"three")]
    assert bench.sample("sub60_features_total") == 2
    assert bench.sample("sub60_stage_seconds_count", stage="wide_features") == 1


def test_they_wait_for_a_commit_that_is_retried() -> None:
    bench = Bench()
    bench.log.put(readout())
    bench.turn(2)
    bench.log.errors.append(LogUnavailable("away"))
    bench.child.answer()
    say(bench)
    bench.turn(2)
    assert written(bench) == []
    bench.clock.now += 1
    bench.turn(2)
    assert len(written(bench)) == 2


def test_of_a_fenced_commit_nothing_is_written() -> None:
    bench = Bench()
    bench.log.put(readout())
    bench.turn(2)
    bench.log.errors.append(Fenced("gone"))
    bench.child.answer()
    say(bench)
    bench.turn(3)
    assert written(bench) == []


@pytest.mark.parametrize("n_alerts", [0, 2])
def test_without_alerts_there_are_none(n_alerts: int) -> None:
    bench = Bench()
    bench.log.put(readout())
    bench.turn(2)
    bench.child.answer(n_alerts)
    say(bench)
    bench.turn(2)
    assert len(written(bench)) == n_alerts


def test_dropped_ones_are_counted() -> None:
    bench = Bench()
    bench.run_job()
    say(bench, Afterwork(features=(), n_dropped=7))
    bench.turn()
    assert (written(bench), bench.sample("sub60_features_dropped_total")) == ([], 7)


def test_what_never_got_out_is_not_kept_for_ever() -> None:
    bench = Bench()
    for visit in range(20):
        bench.log.put(readout(visit=visit + 1))
        bench.turn(2)
        bench.log.errors.append(Fenced("gone"))
        bench.child.answer()
        say(bench)
        bench.turn(2)
    assert len(bench.worker._parts.reporter._afterwork) <= 8
