"""The log's contract, over both adapters: what a worker, a reader and a crash may rely on."""

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from confluent_kafka import TopicPartition

from core.errors import ConfigurationError
from service.log import Checkpoint, Fenced, IdentityTaken, LogUnavailable, Message, Record
from service.log.contract import CHECKPOINT_FORMAT, MAX_STATE_BYTES, RECENT_KEPT
from service.log.kafka import KafkaLog
from service.log.redis_streams import RedisLog
from tests.support.log_harness import PARTITIONS, Harness, WorkerProcess, expected, poll_until, read_until, wait_until
from tests.support.log_worker import RECORDS, after, outputs


class Frozen(NamedTuple):
    """A worker stopped (SIGSTOP) just before its first commit."""

    harness: Harness
    worker: WorkerProcess
    since_s: float


@pytest.fixture(scope="module", autouse=True)
def frozen(log_url: str, short_folder: Path) -> Iterator[Frozen]:
    """Frozen while the other tests run: its own test comes last."""
    harness = Harness(log_url, short_folder)
    harness.append_jobs(2)
    with harness.process(0, "freeze") as worker:
        worker.wait_for("frozen")
        yield Frozen(harness, worker, time.monotonic())
    harness.log.close()


def test_messages_of_a_partition_come_in_order_once_and_ahead_of_the_checkpoint(harness: Harness) -> None:
    harness.append_jobs(40)
    worker = harness.join()
    found = poll_until(worker, 40 * PARTITIONS)
    for partition in range(PARTITIONS):
        mine = [m for m in found if m.partition == partition]
        assert [m.value for m in mine] == [b"%d:%d" % (partition, n) for n in range(40)]
        assert all(a.offset < b.offset for a, b in pairwise(mine))
        assert {m.epoch for m in mine} == {worker.assignment()[partition]}
    assert worker.poll(0.2) == []
    worker.close()


def test_a_checkpoint_of_another_release_is_left_to_it(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    later = CHECKPOINT_FORMAT + 1
    harness.append_jobs(3)
    worker = harness.join()
    first = next(m for m in poll_until(worker, 3 * PARTITIONS) if m.partition == 0)
    with monkeypatch.context() as release:
        release.setattr("service.log.contract.CHECKPOINT_FORMAT", later)
        worker.commit(0, after(worker, first), outputs(harness.out, first, 0), epoch=first.epoch)
    worker.close()
    worker = harness.join()
    others = {m.partition for m in poll_until(worker, 3 * (PARTITIONS - 1))}
    assert others == set(range(1, PARTITIONS))
    assert [m for _ in range(5) for m in worker.poll(0.2)] == []
    assert 0 not in worker.assignment()
    worker.close()
    with monkeypatch.context() as release:
        release.setattr("service.log.contract.CHECKPOINT_FORMATS_READ", (CHECKPOINT_FORMAT, later))
        worker = harness.join()
        found = [m.value for m in poll_until(worker, 3 * PARTITIONS - 1) if m.partition == 0]
        assert found == [b"0:1", b"0:2"]
        worker.close()


def test_records_keep_key_headers_and_bytes_and_keys_choose_partitions_alike(harness: Harness) -> None:
    value = bytes(range(256)) * 60_000  # as large as a record may be, nearly
    producer = harness.log.producer()
    producer.append([Record(harness.out, key=b"\x00%d" % i, value=value, headers={"trace": b"\xff"}) for i in range(2)])
    reader = harness.log.reader(harness.out)
    found = read_until(reader, 2)
    assert all(m.value == value and m.headers == {"trace": b"\xff"} for m in found)
    # CRC-32 modulo 2, worked out apart from this code: both transports must agree for ever
    assert {m.key: m.partition for m in found}[b"\x000"] == 1
    assert abs(found[0].timestamp_ms / 1000 - time.time()) < 60
    assert sorted(m.key for m in found) == sorted(b"\x00%d" % i for i in range(2))
    reader.close()
    producer.close()


def test_topics_are_explicit_and_keep_their_number_of_partitions(harness: Harness) -> None:
    harness.log.ensure_topics({harness.work: PARTITIONS})
    assert harness.log.partitions(harness.work) == PARTITIONS
    with pytest.raises(ConfigurationError):
        harness.log.ensure_topics({harness.work: PARTITIONS + 1})
    with pytest.raises(ConfigurationError):
        harness.log.partitions("no-such-topic")


def test_commit_stores_checkpoint_and_records_together(harness: Harness) -> None:
    harness.append_jobs(2)
    worker = harness.join()
    found = poll_until(worker, 2 * PARTITIONS)
    first = next(m for m in found if m.partition == 1)
    assert worker.checkpoint(1) is None
    noted = Checkpoint(offset=first.offset, state=b"attempt 1")
    worker.commit(1, noted, [], epoch=first.epoch)  # a note only: nothing is done yet
    done = noted.advance(first, visit=2025_0101_00007, detector=94)
    worker.commit(1, done, outputs(harness.out, first, 0), epoch=first.epoch)
    assert worker.checkpoint(1) == done
    reader = harness.log.reader(harness.out)
    assert sorted(m.value for m in read_until(reader, RECORDS)) == [b"1:0/%d" % i for i in range(RECORDS)]
    with pytest.raises(Fenced):  # the same job once more, by a caller who lost track
        worker.commit(1, done, outputs(harness.out, first, 0), epoch=first.epoch)
    with pytest.raises(Fenced):  # a message of a former tenure
        worker.commit(1, done.advance(found[-1]), [], epoch=first.epoch - 1)
    assert reader.poll(0.3) == []
    worker.close()
    again = harness.join()
    # what was not committed comes again, what was committed does not
    values = {m.value for m in poll_until(again, 2 * PARTITIONS - 1)}
    assert values == {b"%d:%d" % (p, n) for p in range(PARTITIONS) for n in range(2)} - {b"1:0"}
    kept = again.checkpoint(1)
    assert kept == done
    assert kept is not None
    assert kept.has(2025_0101_00007, 94)
    assert not kept.has(2025_0101_00007, 95)
    again.close()
    reader.close()


def test_largest_checkpoint_survives_in_every_log(harness: Harness) -> None:
    harness.append_jobs(1)
    worker = harness.join()
    first = poll_until(worker, PARTITIONS)[0]
    recent = tuple((2099_1231_99999, 250) for _ in range(RECENT_KEPT))
    largest = Checkpoint(recent=recent, state=bytes(range(250)) * (MAX_STATE_BYTES // 250)).advance(first)
    worker.commit(first.partition, largest, [])
    worker.close()
    again = harness.join()
    wait_until(lambda: again.poll(0.1) is not None and first.partition in again.assignment())
    assert again.checkpoint(first.partition) == largest
    again.close()


@pytest.mark.parametrize("mode", ["die_in_commit", "die_after_commit"])
def test_kill_9_in_a_commit_leaves_all_or_nothing_and_the_rest_is_done_by_the_next_process(
    harness: Harness, mode: str
) -> None:
    harness.append_jobs(3)
    reader = harness.log.reader(harness.out)
    with harness.process(0, mode) as worker:
        assert worker.wait_exit() == -9
    halfway = read_until(reader, RECORDS if mode == "die_after_commit" else 0)
    assert len(halfway) == (RECORDS if mode == "die_after_commit" else 0)
    with harness.process(0) as worker:  # the pod comes back under its slot
        for _ in range(3 * PARTITIONS - len(halfway) // RECORDS):
            worker.wait_for("commit")
    found = [m.value for m in halfway] + [m.value for m in read_until(reader, len(expected(3)) - len(halfway))]
    assert sorted(found) == expected(3)
    reader.close()


def test_kill_9_of_a_worker_moves_its_partitions_to_another_slot(harness: Harness) -> None:
    harness.append_jobs(2)
    with harness.process(0) as worker:
        for _ in range(2 * PARTITIONS):
            worker.wait_for("commit")
    harness.append_jobs(2, start=2)
    other = harness.join(slot=1)
    seconds = wait_until(lambda: other.poll(0.1) is not None and len(other.assignment()) == PARTITIONS)
    assert seconds < 15
    kept = other.checkpoint(0)
    assert kept is not None
    assert len(kept.recent) == 2
    other.close()


def test_second_process_of_a_slot_takes_it_and_the_first_one_must_go(harness: Harness) -> None:
    harness.append_jobs(2)
    first = harness.join(slot=0)
    mine = poll_until(first, 2 * PARTITIONS)
    second = harness.join(slot=0)
    theirs = poll_until(second, 2 * PARTITIONS)
    with pytest.raises(Fenced):
        first.commit(mine[0].partition, after(first, mine[0]), outputs(harness.out, mine[0], 0), epoch=mine[0].epoch)

    def is_told() -> bool:
        try:
            first.poll(0.1)
        except IdentityTaken:
            return True
        return False

    assert wait_until(is_told) < 10
    for message in theirs:
        second.commit(message.partition, after(second, message), outputs(harness.out, message, 0), epoch=message.epoch)
    reader = harness.log.reader(harness.out)
    assert sorted(m.value for m in read_until(reader, len(expected(2)))) == expected(2)
    for closable in (first, second, reader):
        closable.close()


@pytest.mark.parametrize("before", [False, True], ids=["done", "not-done"])
def test_unknown_outcome_of_a_commit_is_resolved_by_the_checkpoint(harness: Harness, before: bool) -> None:
    harness.append_jobs(2)
    reader = harness.log.reader(harness.out)
    with harness.breakable() as (worker, lose):
        first, *rest = poll_until(worker, 2 * PARTITIONS)
        lose(before)
        commit = (first.partition, after(worker, first), outputs(harness.out, first, 0))
        if before:
            with pytest.raises(LogUnavailable):  # and nothing was changed: the caller may try again
                worker.commit(*commit, epoch=first.epoch)
        else:
            worker.commit(*commit, epoch=first.epoch)
            with pytest.raises(Fenced):
                worker.commit(*commit, epoch=first.epoch)
        for message in [first, *rest] if before else rest:
            worker.commit(
                message.partition, after(worker, message), outputs(harness.out, message, 0), epoch=message.epoch
            )
        found = read_until(reader, len(expected(2)))
    assert sorted(m.value for m in found) == expected(2)
    reader.close()


def test_partitions_are_shared_out_while_work_goes_on_and_nothing_is_done_twice(harness: Harness) -> None:
    harness.append_jobs(20)
    reader = harness.log.reader(harness.out)
    with harness.process(0) as first:
        first.wait_for("commit")
        with harness.process(1) as second:
            second.wait_for("joined")
            for start in range(20, 40, 5):
                harness.append_jobs(5, start=start)
                time.sleep(0.5)
            second.wait_for("commit") if not harness.is_kafka else None
            found = [m.value for m in read_until(reader, len(expected(40)))]
    assert sorted(found) == expected(40)
    reader.close()


def test_reader_keeps_its_place_by_name_and_can_go_back(harness: Harness) -> None:
    producer = harness.log.producer()
    producer.append([Record(harness.out, key=b"", value=b"%d" % i, partition=i % 2) for i in range(10)])
    reader = harness.log.reader(harness.out, name="sink")
    assert reader.committed() == {}
    assert len(read_until(reader, 10)) == 10
    reader.commit()
    assert reader.committed() == {0: 5, 1: 5}
    reader.commit({1: 3})
    reader.close()
    again = harness.log.reader(harness.out, name="sink", start="latest")
    assert sorted(m.value for m in read_until(again, 2)) == [b"7", b"9"]
    again.seek({0: 4})
    assert [m.value for m in read_until(again, 1)] == [b"8"]
    assert {p: bounds[0] for p, bounds in again.bounds().items()} == {0: 0, 1: 0}
    again.close()
    worker = harness.join()
    wait_until(lambda: worker.poll(0.1) == [] and 0 in worker.assignment())
    worker.commit(0, Checkpoint(offset=1), [Record(harness.out, key=b"", value=b"in a transaction", partition=0)])
    worker.close()
    lagging = harness.log.reader(harness.out, name="sink")
    read_until(lagging, 1)

    def has_no_lag() -> bool:
        lagging.poll(0.05)  # the transaction's marker may come in a fetch of its own
        lagging.commit()
        return dict(lagging.committed()) == {p: end for p, (_, end) in lagging.bounds().items()}

    wait_until(has_no_lag)
    lagging.close()
    tail = harness.log.reader(harness.out, start="latest")
    assert tail.poll(0.3) == []
    producer.append([Record(harness.out, key=b"", value=b"new", partition=0)])
    assert [m.value for m in read_until(tail, 1)] == [b"new"]
    with pytest.raises(ConfigurationError):
        tail.commit()
    tail.close()
    producer.close()


def has_leaders(harness: Harness) -> bool:
    """Whether the topic can be read: on Kafka one just made cannot for a moment."""
    try:
        harness.log.reader(harness.out).close()
    except LogUnavailable:
        return False
    return True


def first_at(found: list[Message], end: dict[int, int], timestamp_ms: int) -> dict[int, int]:
    """By looking at each message."""
    late = [m for m in found if m.timestamp_ms >= timestamp_ms]
    return {p: min((m.offset for m in late if m.partition == p), default=end[p]) for p in end}


def drop_below(harness: Harness, offsets: dict[int, int]) -> None:
    """As retention does."""
    if isinstance(harness.log, RedisLog):
        harness.log.reader(harness.out, name="sink").commit(offsets)
        harness.log.trim(harness.out, 0, ["sink"])
        return
    assert isinstance(harness.log, KafkaLog)
    parts = [TopicPartition(harness.out, partition, offset) for partition, offset in offsets.items()]
    for done in harness.log.admin.delete_records(parts).values():
        done.result()


def test_reader_finds_the_first_record_at_or_after_a_time(harness: Harness) -> None:
    wait_until(lambda: has_leaders(harness))
    reader = harness.log.reader(harness.out)
    assert reader.offsets_at(0) == reader.offsets_at(int(time.time() * 1000)) == {0: 0, 1: 0}
    producer = harness.log.producer()
    for i in range(12):
        partition = 1 if i in {4, 5} else 0
        producer.append([Record(harness.out, key=b"", value=b"%d" % n, partition=partition) for n in range(1 + i % 3)])
        time.sleep(0.005)
    found = read_until(reader, 24)
    end = {0: 19, 1: 5}
    times = {m.timestamp_ms for m in found}
    assert len(times) > 8
    asked = sorted({0} | {t + d for t in times for d in (-1, 0, 1)} | {max(times) + 3_600_000})
    for at_ms in asked:
        assert reader.offsets_at(at_ms) == first_at(found, end, at_ms)
    assert reader.offsets_at(asked[0]) == {0: 0, 1: 0}
    assert reader.offsets_at(asked[-1]) == end
    drop_below(harness, {0: 7, 1: 5})  # of the second nothing is left
    held = [m for m in found if m.partition == 0 and m.offset >= 7]
    assert {p: bounds[0] for p, bounds in reader.bounds().items()} == {0: 7, 1: 5}
    for at_ms in asked:
        assert reader.offsets_at(at_ms) == first_at(held, end, at_ms)
    reader.close()
    producer.close()


def test_records_of_commits_are_found_by_time(harness: Harness) -> None:
    harness.append_jobs(3)
    worker = harness.join()
    for message in poll_until(worker, 3 * PARTITIONS):
        out = [Record(harness.out, key=b"", value=b"%d:%d" % (message.partition, i), partition=0) for i in range(2)]
        worker.commit(message.partition, after(worker, message), out, epoch=message.epoch)
        time.sleep(0.005)
    reader = harness.log.reader(harness.out)
    found = read_until(reader, 6 * PARTITIONS)
    times = sorted({m.timestamp_ms for m in found})
    for at_ms in (times[0], times[len(times) // 2], times[-1], times[-1] + 3_600_000):
        late = [m.value for m in found if m.timestamp_ms >= at_ms]
        reader.seek(reader.offsets_at(at_ms))
        assert [m.value for m in read_until(reader, len(late))] == late
    worker.close()
    reader.close()


def test_worker_frozen_for_15_s_is_fenced_when_it_wakes(frozen: Frozen) -> None:
    harness = frozen.harness
    reader = harness.log.reader(harness.out)
    with harness.process(1) as other:
        for _ in range(2 * PARTITIONS):
            other.wait_for("commit")
        time.sleep(max(0.0, frozen.since_s + 15.0 - time.monotonic()))
        frozen.worker.resume()
        frozen.worker.wait_for("fenced")
        harness.append_jobs(2, start=2)  # both go on, sharing the partitions
        found = [m.value for m in read_until(reader, len(expected(4)), settle_s=1.0)]
    assert sorted(found) == expected(4)
    reader.close()
