"""What the compute child is asked and what it answers, and how both cross the channel."""

from dataclasses import dataclass, field
from itertools import accumulate
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from core.errors import Outcome
from service.ipc import Message
from service.records import Prepare, Readout, Result, pack


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One readout to compute. ``generation`` tells its answer from late answers to earlier jobs."""

    generation: int
    readout: Readout
    deadline_monotonic_s: float
    processed_mjd_tai: float
    """Take-up time; goes into ``timeProcessedMjdTai``."""
    is_last_attempt: bool = False
    """What still cannot be had is gone without, down to single-frame products."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one job yielded, in the child's own memory."""

    outcome: Outcome
    code: str = ""
    message: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    summary: dict[str, float] = field(default_factory=dict)
    timings: tuple[tuple[str, float, float], ...] = ()
    bundle: tuple[tuple[str, str, str, int], ...] = ()
    redis_skipped: tuple[str, ...] = ()
    alert_ids: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    alerts: tuple[bytes, ...] = ()
    """Framed alerts, in the order of ``alert_ids``."""
    result: Result | None = None
    n_dropped: int = 0
    is_dead_letter: bool = False
    """Something that may be done again was not had: keep the readout for that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Afterwork:
    """Light-curve features of the objects in a readout's alerts."""

    features: tuple[tuple[int, bytes], ...]
    """diaObjectId and framed record."""
    n_dropped: int = 0
    """Objects without, for want of time."""
    wall_s: float = 0.0
    cpu_s: float = 0.0


class Compute(Protocol):
    """What a compute child runs. ``prepare`` is called from another thread than the rest."""

    def warm_up(self) -> None:
        """Compile and touch everything a job needs."""

    def prepare(self, work: Prepare) -> None:
        """Bring a detector's bundle into memory ahead of its readout; must not raise for missing data."""

    def process(self, job: Job) -> Answer:
        """Compute one readout; raises what :mod:`core.errors` lists."""

    def after_answer(self, job: Job) -> Afterwork | None:
        """What no alert waits for: called once the answer has been sent, and after a failed attempt."""

    def cpu_s(self) -> float:
        """CPU seconds so far of the calling thread and of those that share its work."""

    def measure_reference(self) -> tuple[float, float] | None:
        """CPU and wall seconds of the reference task on the last image; None where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """An answer as the parent holds it: bulk data are views of memory the child filled."""

    generation: int
    is_dead_letter: bool
    outcome: Outcome
    code: str
    message: str
    counts: dict[str, int]
    summary: dict[str, float]
    timings: tuple[tuple[str, float, float], ...]
    bundle: tuple[tuple[str, str, str, int], ...]
    redis_skipped: tuple[str, ...]
    wall_s: float
    cpu_s: float
    n_dropped: int
    alert_ids: NDArray[np.int64]
    alerts: tuple[memoryview, ...]
    result: memoryview


def encode_job(job: Job) -> Message:
    """The message that asks for a job."""
    return {
        "op": "process",
        "generation": job.generation,
        "readout": pack(job.readout),
        "deadline_monotonic_s": job.deadline_monotonic_s,
        "processed_mjd_tai": job.processed_mjd_tai,
        "is_last_attempt": job.is_last_attempt,
    }


def encode_answer(generation: int, answer: Answer, wall_s: float, cpu_s: float) -> tuple[Message, tuple[bytes, ...]]:
    """The message with an answer and its blobs: result record, alerts end to end."""
    message = {
        "op": "answer",
        "generation": generation,
        "is_dead_letter": answer.is_dead_letter,
        "outcome": answer.outcome.value,
        "code": answer.code,
        "message": answer.message,
        "counts": {name: int(value) for name, value in answer.counts.items()},
        "summary": {name: float(value) for name, value in answer.summary.items()},
        "timings": answer.timings,
        "bundle": answer.bundle,
        "redis_skipped": answer.redis_skipped,
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "n_dropped": answer.n_dropped,
        "alert_ids": answer.alert_ids.astype("<i8").tobytes(),
        "alert_sizes": [len(alert) for alert in answer.alerts],
    }
    result = b"" if answer.result is None else pack(answer.result)
    return message, (result, b"".join(answer.alerts))


def decode_answer(message: Message, blobs: list[memoryview]) -> Delivery:
    """Inverse of :func:`encode_answer`, without copying the blobs."""
    result, alerts = blobs
    return Delivery(
        generation=message["generation"],
        is_dead_letter=message["is_dead_letter"],
        outcome=Outcome(message["outcome"]),
        code=message["code"],
        message=message["message"],
        counts=message["counts"],
        summary=message["summary"],
        timings=tuple((name, wall, cpu) for name, wall, cpu in message["timings"]),
        bundle=tuple((kind, source, digest, size) for kind, source, digest, size in message["bundle"]),
        redis_skipped=tuple(message["redis_skipped"]),
        wall_s=message["wall_s"],
        cpu_s=message["cpu_s"],
        n_dropped=message["n_dropped"],
        alert_ids=np.frombuffer(message["alert_ids"], "<i8"),
        alerts=_split(alerts, message["alert_sizes"]),
        result=result,
    )


def encode_afterwork(generation: int, work: Afterwork) -> tuple[Message, tuple[bytes, ...]]:
    """The message with what follows an answer; its blob: features end to end."""
    message = {
        "op": "afterwork",
        "generation": generation,
        "ids": [number for number, _ in work.features],
        "sizes": [len(record) for _, record in work.features],
        "n_dropped": work.n_dropped,
        "wall_s": work.wall_s,
        "cpu_s": work.cpu_s,
    }
    return message, (b"".join(record for _, record in work.features),)


def decode_afterwork(message: Message, blobs: list[memoryview]) -> Afterwork:
    """Inverse of :func:`encode_afterwork`."""
    records = (bytes(record) for record in _split(blobs[0], message["sizes"]))
    return Afterwork(
        features=tuple(zip(message["ids"], records, strict=True)),
        n_dropped=message["n_dropped"],
        wall_s=message["wall_s"],
        cpu_s=message["cpu_s"],
    )


def _split(joined: memoryview, sizes: list[int]) -> tuple[memoryview, ...]:
    """Pieces of these sizes, one behind the other."""
    return tuple(joined[end - size : end] for end, size in zip(accumulate(sizes), sizes, strict=True))
