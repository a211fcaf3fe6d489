"""What only a real Kafka can show: a dead worker's open transaction, late members, settings in the URL."""

import time
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from service.log import Fenced, IdentityTaken, LogUnavailable, open_log
from tests.support.log_harness import PARTITIONS, Harness, expected, poll_until, read_until, wait_until
from tests.support.log_worker import after, outputs

pytestmark = pytest.mark.kafka


@pytest.fixture
def harness(kafka_url: str, tmp_path: Path) -> Harness:
    return Harness(kafka_url, tmp_path)


def test_open_transaction_of_a_dead_worker_holds_nobody_up_for_long(harness: Harness) -> None:
    harness.append_jobs(2)
    reader = harness.log.reader(harness.out)
    with harness.process(0, "die_in_commit") as worker:
        assert worker.wait_exit() == -9
    died_s = time.monotonic()
    with harness.process(1) as other:  # another slot: nothing but time-outs ends the dead one's session and transaction
        for _ in range(2 * PARTITIONS):
            other.wait_for("commit")
        assert time.monotonic() - died_s < 25
        assert sorted(m.value for m in read_until(reader, len(expected(2)))) == expected(2)
    reader.close()


def test_worker_fenced_by_the_broker_alone_goes_on_with_a_new_producer(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.log.kafka_worker.RENEW_PRODUCER_S", 0.5)
    harness.append_jobs(1)
    worker: Any = harness.join()
    found = poll_until(worker, PARTITIONS)
    worker._new_producer()  # takes our transactional id, as the end of a timed-out transaction does
    first = found[0]
    with pytest.raises(Fenced) as caught:
        worker.commit(first.partition, after(worker, first), outputs(harness.out, first, 0), epoch=first.epoch)
    assert not isinstance(caught.value, IdentityTaken)
    assert first.partition not in worker.assignment()
    (again,) = [m for m in poll_until(worker, 1) if m.partition == first.partition]
    assert again.offset == first.offset
    assert again.epoch > first.epoch
    for message in [again, *found[1:]]:
        worker.commit(message.partition, after(worker, message), outputs(harness.out, message, 0), epoch=message.epoch)
    reader = harness.log.reader(harness.out)
    assert sorted(m.value for m in read_until(reader, len(expected(1)))) == expected(1)
    worker.close()
    reader.close()


def test_failed_transaction_leaves_no_half_commit_and_can_be_tried_again(harness: Harness) -> None:
    harness.append_jobs(1)
    worker: Any = harness.join()
    first = poll_until(worker, PARTITIONS)[0]
    producer = worker._producer

    class Refusing:
        def __getattr__(self, name: str) -> Any:
            return getattr(producer, name)

        def send_offsets_to_transaction(self, *_: object) -> None:
            producer.flush(5.0)  # the records are on the broker by now
            raise KafkaException(KafkaError(KafkaError.COORDINATOR_NOT_AVAILABLE))

    worker._producer = Refusing()
    commit = (first.partition, after(worker, first), outputs(harness.out, first, 0))
    with pytest.raises(LogUnavailable):
        worker.commit(*commit)
    worker.commit(*commit)
    reader = harness.log.reader(harness.out)
    assert len(read_until(reader, 3)) == 3
    worker.close()
    reader.close()


def test_unknown_broker_is_unavailable() -> None:
    with pytest.raises(LogUnavailable):
        _ping("kafka://127.0.0.1:1")


def _ping(url: str) -> None:
    log: Any = open_log(url)
    log._timeout_s = 0.5
    log.ping()


def test_two_slots_end_with_disjoint_shares(harness: Harness) -> None:
    first, second = harness.join(0), harness.join(1)

    def is_shared() -> bool:
        first.poll(0.1)
        second.poll(0.1)
        mine, theirs = set(first.assignment()), set(second.assignment())
        return bool(mine and theirs) and mine | theirs == set(range(PARTITIONS)) and not mine & theirs

    assert wait_until(is_shared) < 15
    first.close()
    second.close()
