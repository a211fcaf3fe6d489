"""The alerts of one visit committed by several workers on a real Kafka, beside a bare producer sending the same bytes.

Every worker is a process of its own. Each commits its detectors one after another, as production does: alerts, manifest
and result in one transaction with the checkpoint. The bare producer has no transactions, no idempotence and no
checkpoint; it waits for each detector's records to be acknowledged before the next detector's.
"""

import multiprocessing
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from statistics import median
from typing import Any, Final

from core.errors import ConfigurationError
from service.connections import connect_log
from service.log import Checkpoint, Log, Record
from service.log.kafka import KafkaLog
from service.settings import read_settings

WORKERS: Final = 8
ALERTS: Final = 10_000
DETECTORS: Final = 189
ALERT_BYTES: Final = 40_000
RESULT_BYTES_AN_ALERT: Final = 1_500
MANIFEST_BYTES: Final = 3_000
ROUNDS: Final = 5
JOIN_S: Final = 60.0
ROUND_S: Final = 300.0
_COPIES: Final = 16
"""Different values that are sent in turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitTimes:
    """Seconds from the common start until the last worker was done, one a round."""

    transactional_s: tuple[float, ...]
    bare_s: tuple[float, ...]
    n_bytes: int
    """Of a round."""

    @property
    def ratio(self) -> float:
        """Median over the rounds of a commit's time over that of the bare producer before it."""
        return median(ours / bare for ours, bare in zip(self.transactional_s, self.bare_s, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Names:
    work: str
    alerts: str
    results: str


def commit_times(bootstrap: str, *, alerts: int = ALERTS, workers: int = WORKERS, rounds: int = ROUNDS) -> CommitTimes:
    """Run all rounds on topics of their own, which are deleted after."""
    names = _Names(**{name: f"bench-{name}-{secrets.token_hex(4)}" for name in ("work", "alerts", "results")})
    url = f"kafka://{bootstrap}"
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(workers + 1)
    answers: Any = context.Queue()
    with connect_log(read_settings(), url) as log:
        # a partition each, so that every worker owns one
        log.ensure_topics({names.work: workers, names.alerts: DETECTORS, names.results: 1})
        processes = [
            context.Process(
                target=_work, args=(url, names, slot, workers, alerts, rounds, barrier, answers), daemon=True
            )
            for slot in range(workers)
        ]
        try:
            for process in processes:
                process.start()
            times = _conduct(barrier, rounds)
            n_bytes = sum(answers.get(timeout=ROUND_S) for _ in processes)
        finally:
            for process in processes:
                process.join(JOIN_S) if process.pid is not None else None
                process.kill()
            _delete(log, names)
    return CommitTimes(transactional_s=tuple(times[1]), bare_s=tuple(times[0]), n_bytes=n_bytes)


def _conduct(barrier: Barrier, rounds: int) -> tuple[list[float], list[float]]:
    """Start each half of a round for all at once; time until all are done."""
    barrier.wait(JOIN_S + ROUND_S)
    bare: list[float] = []
    ours: list[float] = []
    for _ in range(rounds):
        for seconds in (bare, ours):
            barrier.wait(ROUND_S)
            began = time.monotonic()
            barrier.wait(ROUND_S)
            seconds.append(time.monotonic() - began)
    return bare, ours


def _delete(log: Log, names: _Names) -> None:
    assert isinstance(log, KafkaLog)
    for done in log.admin.delete_topics([names.work, names.alerts, names.results]).values():
        done.result()


def _work(
    url: str, names: _Names, slot: int, workers: int, alerts: int, rounds: int, barrier: Barrier, answers: Any
) -> None:
    """One worker: a member of the group with its own partition, and a bare producer."""
    from confluent_kafka import Producer

    batches = [_batch(names, n, detector) for detector, n in _share(slot, workers, alerts)]
    with connect_log(read_settings(), url) as log:
        assert isinstance(log, KafkaLog)
        settings = {k: v for k, v in log.producer_settings().items() if k not in ("enable.idempotence",)}
        bare = Producer(settings | {"enable.idempotence": False})
        member = log.join("bench", names.work, slot)
        partition = _own(member)
        barrier.wait(JOIN_S + ROUND_S)
        offset = 0
        for _ in range(rounds):
            barrier.wait(ROUND_S)
            for batch in batches:
                for record in batch:
                    bare.produce(record.topic, key=record.key, value=record.value)
                    bare.poll(0)
                if bare.flush(ROUND_S):
                    raise ConfigurationError("the broker did not take a record", code="not_delivered")
            barrier.wait(ROUND_S)
            barrier.wait(ROUND_S)
            for batch in batches:
                offset += 1
                member.commit(partition, Checkpoint(offset=offset), batch)
            barrier.wait(ROUND_S)
        answers.put(sum(len(record.value) for batch in batches for record in batch))
        member.close()


def _own(member: Any) -> int:
    """The one partition that is ours once all have joined."""
    give_up_s = time.monotonic() + JOIN_S
    while time.monotonic() < give_up_s:
        member.poll(0.2)
        if len(member.assignment()) == 1:
            settled_s = time.monotonic() + 3.0
            while time.monotonic() < settled_s:
                member.poll(0.2)
            if len(member.assignment()) == 1:
                return int(next(iter(member.assignment())))
    raise ConfigurationError("the group did not settle", code="not_joined")


def _share(slot: int, workers: int, alerts: int) -> list[tuple[int, int]]:
    """(detector, alerts) of a worker: detector mod workers."""
    each, more = divmod(alerts, DETECTORS)
    return [(detector, each + (detector < more)) for detector in range(slot, DETECTORS, workers)]


def _batch(names: _Names, n: int, detector: int) -> Sequence[Record]:
    """Incompressible values, as cutouts are."""
    values = [os.urandom(ALERT_BYTES) for _ in range(min(n, _COPIES))]
    records = [Record(names.alerts, f"{detector}-{i}".encode(), values[i % len(values)]) for i in range(n)]
    others = (os.urandom(MANIFEST_BYTES), os.urandom(RESULT_BYTES_AN_ALERT * n))
    return [*records, *(Record(names.results, str(detector).encode(), value) for value in others)]
