"""The records of one commit: alerts, manifest, result and, where the input was refused, a dead letter."""

import hashlib
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.errors import Outcome
from service import topics
from service.answers import Delivery
from service.clock import Clock
from service.log.contract import Record
from service.records import DeadLetter, Manifest, Readout, pack
from service.roles.work_queue import Work
from service.settings import Settings

MAX_PAYLOAD_BYTES: Final = 65536
OPERATOR_HOLD: Final = "operator_hold"
"""Code of readouts whose alerts an operator holds back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Facts of one attempt at a readout."""

    work: Work
    number: int
    """How many were begun and did not end, this one included: the third that kills its child is the last."""
    started_tai_s: float
    deadline_monotonic_s: float
    is_clock_suspect: bool
    generation: int = 0
    started_monotonic_s: float = 0.0


def begin_attempt(work: Work, clock: Clock, settings: Settings) -> Attempt:
    """An attempt that begins now, not yet counted; its deadline is that of the readout."""
    now, monotonic = clock.tai_s(), clock.monotonic_s()
    t0, received = work.readout.readout_end_tai_s, work.readout.received_tai_s
    # What an operator sent back is late by intent: its clock starts anew.
    clock_starts = now if work.readout.is_late_by_intent else min(t0, received)
    return Attempt(
        work=work,
        number=0,
        started_tai_s=now,
        started_monotonic_s=monotonic,
        deadline_monotonic_s=monotonic + clock_starts + settings.deadline_s - now,
        is_clock_suspect=not work.readout.redrive and abs(received - t0) > settings.clock_suspect_s,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """An attempt that came to an outcome and waits to be committed."""

    attempt: Attempt
    outcome: Outcome
    code: str = ""
    message: str = ""
    is_dead_letter: bool = False
    delivery: Delivery | None = None

    @property
    def n_alerts(self) -> int:
        """Alerts of the commit."""
        return len(self.delivery.alerts) if self.delivery else 0


def id_digest(ids: NDArray[np.int64]) -> str:
    """sha256 of diaSourceIds, ascending, as big-endian int64."""
    return hashlib.sha256(np.sort(ids).astype(">i8").tobytes()).hexdigest()


def make_manifest(finished: Finished, worker: str, now_tai_s: float) -> Manifest:
    """The manifest of a readout, as known when its commit starts."""
    attempt, delivery = finished.attempt, finished.delivery
    readout = attempt.work.readout
    manifest = {
        "instrument": readout.instrument,
        "group": readout.group,
        "visit": readout.visit,
        "detector": readout.detector,
        "band": readout.band,
        "outcome": finished.outcome,
        "code": finished.code,
        "message": finished.message[:1000],
        "exposure_end_tai_s": readout.exposure_end_tai_s,
        "readout_end_tai_s": readout.readout_end_tai_s,
        "received_tai_s": readout.received_tai_s,
        "started_tai_s": attempt.started_tai_s,
        "commit_started_tai_s": now_tai_s,
        "is_clock_suspect": attempt.is_clock_suspect,
        "attempt": attempt.number + attempt.work.n_retries,
        "worker": worker,
        "redrive": readout.redrive,
    }
    if delivery is not None:
        manifest |= {
            "counts": delivery.counts,
            "summary": delivery.summary,
            "timings": delivery.timings,
            "wall_s": delivery.wall_s,
            "cpu_s": delivery.cpu_s,
            "bundle": delivery.bundle,
            "redis_skipped": delivery.redis_skipped,
            "n_alerts": len(delivery.alerts),
            "alert_bytes": sum(len(alert) for alert in delivery.alerts),
            "id_digest": id_digest(delivery.alert_ids) if delivery.alerts else "",
            "n_dropped": delivery.n_dropped,
        }
    return Manifest(**manifest)  # type: ignore[arg-type]


def make_records(finished: Finished, manifest: Manifest) -> list[Record]:
    """Everything one commit appends; alerts are keyed by diaSourceId."""
    work, delivery = finished.attempt.work, finished.delivery
    key = visit_key(work.readout)
    records = [Record(topics.MANIFESTS, key, pack(manifest))]
    if delivery is not None:
        pairs = zip(delivery.alert_ids.tolist(), delivery.alerts, strict=True)
        records += [Record(topics.ALERTS, b"%d" % number, bytes(alert)) for number, alert in pairs]
        if len(delivery.result):
            records.append(Record(topics.RESULTS, key, bytes(delivery.result)))
    if finished.is_dead_letter:
        records.append(Record(topics.DEAD_LETTERS, key, pack(_dead_letter(finished, manifest))))
    return records


def withhold(finished: Finished) -> Finished:
    """The same without its alerts, as an operator ordered; what is found goes to the archive all the same."""
    delivery = finished.delivery
    if delivery is None or not delivery.alerts:
        return finished
    n_withheld = len(delivery.alerts)
    counts = delivery.counts | {"n_sent": 0, "n_withheld": delivery.counts.get("n_withheld", 0) + n_withheld}
    return replace(
        finished,
        outcome=Outcome.HELD,
        code=OPERATOR_HOLD,
        message=f"{n_withheld} alerts held back by an operator's order",
        delivery=replace(delivery, alerts=(), alert_ids=delivery.alert_ids[:0], counts=counts),
    )


def visit_key(readout: Readout) -> bytes:
    """Key of a visit-detector's records."""
    return b"%d:%d" % (readout.visit, readout.detector)


def _dead_letter(finished: Finished, manifest: Manifest) -> DeadLetter:
    message = finished.attempt.work.message
    return DeadLetter(
        topic=message.topic,
        partition=message.partition,
        code=finished.code,
        message=finished.message[:1000],
        payload=message.value[:MAX_PAYLOAD_BYTES],
        at_tai_s=manifest.commit_started_tai_s,
        visit=manifest.visit,
        detector=manifest.detector,
    )
