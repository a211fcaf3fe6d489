"""What a worker tells the world after a commit: metrics, one log line, the committed record, heartbeats."""

from collections import deque
from dataclasses import replace
from typing import Final

import structlog

from core.errors import Outcome
from service import topics
from service.answers import Afterwork
from service.clock import Clock
from service.log.contract import LogUnavailable, Producer, Record
from service.metrics import Metrics
from service.records import Committed, Heartbeat, Manifest, pack
from service.roles.alert_switch import AlertSwitch
from service.roles.broker_heartbeat import BrokerHeartbeat
from service.roles.commit_records import Finished, visit_key

HEARTBEAT_S: Final = 2.0
REFERENCE_WAIT_S: Final = 5.0
N_REMEMBERED: Final = 8
"""Jobs of which features may come, or wait for the commit: more than a worker has under way."""

log = structlog.get_logger()


class Reporter:
    """Nothing here may fail a readout: its alerts are out. Records that cannot be written are counted and lost.

    Parameters
    ----------
    waits_for_reference : hold a committed record back until the child has timed the reference task.
    """

    def __init__(
        self, name: str, producer: Producer, clock: Clock, metrics: Metrics, *, waits_for_reference: bool = False
    ) -> None:
        self.name = name
        self._producer = producer
        self._clock = clock
        self._metrics = metrics
        self._waits_for_reference = waits_for_reference
        self._held: dict[int, tuple[float, bytes, Committed]] = {}
        self._references: dict[int, tuple[float, float] | None] = {}
        self._sent: deque[int] = deque(maxlen=N_REMEMBERED)
        """Jobs whose alerts are out."""
        self._afterwork: dict[int, Afterwork] = {}
        self._beat_at_s = 0.0
        self._last_beat: tuple[object, ...] = ()
        self._heartbeat = BrokerHeartbeat(name, producer, clock, metrics)

    def committed(self, finished: Finished, manifest: Manifest, commit_s: float, now_tai_s: float) -> None:
        """A readout's commit has returned at ``now_tai_s``."""
        latency_s = now_tai_s - manifest.readout_end_tai_s
        self._count(finished, manifest, commit_s, now_tai_s)
        record = Committed(
            visit=manifest.visit,
            detector=manifest.detector,
            band=manifest.band,
            outcome=manifest.outcome,
            n_alerts=manifest.n_alerts,
            committed_tai_s=now_tai_s,
            commit_s=commit_s,
            latency_s=latency_s,
            shutter_latency_s=now_tai_s - manifest.exposure_end_tai_s,
            is_clock_suspect=manifest.is_clock_suspect,
            redrive=manifest.redrive,
        )
        self._heartbeat.committed(manifest.n_alerts, now_tai_s)
        log.info("detector_done", commit_s=round(commit_s, 4), latency_s=round(latency_s, 3), **_fields(manifest))
        key = visit_key(finished.attempt.work.readout)
        generation = finished.attempt.generation
        if manifest.n_alerts:
            self._sent.append(generation)
            if (work := self._afterwork.pop(generation, None)) is not None:
                self._append_features(work)
        if not self._waits_for_reference or finished.delivery is None:
            self._append(Record(topics.COMMITTED, key, pack(record)))
        elif generation in self._references:
            self._release(key, record, self._references.pop(generation))
        else:
            self._held[generation] = (self._clock.monotonic_s() + REFERENCE_WAIT_S, key, record)

    def afterwork(self, generation: int, work: Afterwork) -> None:
        """Features of a job's objects: written if its alerts are out, kept if their commit is still under way.

        Outside the commit: a worker that dies in between loses them until the objects' next visit.
        """
        self._metrics.stage.labels("wide_features").observe(work.wall_s)
        self._metrics.stage_cpu.labels("wide_features").observe(work.cpu_s)
        self._metrics.features_dropped.inc(work.n_dropped)
        if generation in self._sent:
            self._append_features(work)
            return
        self._afterwork[generation] = work
        while len(self._afterwork) > N_REMEMBERED:
            del self._afterwork[min(self._afterwork)]

    def reference(self, generation: int, cpu_wall_s: tuple[float, float] | None) -> None:
        """The child has timed the reference task after this job."""
        if (held := self._held.pop(generation, None)) is not None:
            self._release(held[1], held[2], cpu_wall_s)
        else:
            self._references = {generation: cpu_wall_s}  # its commit is still under way

    def turn(
        self,
        *,
        is_ready: bool,
        partitions: tuple[int, ...],
        n_waiting: int,
        current: tuple[int, int] | None,
        switch: AlertSwitch,
    ) -> None:
        """Called at each turn of the loop: gauges, heartbeat when something changed or two seconds passed."""
        self._heartbeat.turn(is_ready=is_ready, alerts_held=switch.is_held)
        self._metrics.waiting.set(n_waiting)
        self._metrics.partitions.set(len(partitions))
        now = self._clock.monotonic_s()
        for generation in [g for g, (until, _, _) in self._held.items() if until < now]:
            _, key, record = self._held.pop(generation)
            self._append(Record(topics.COMMITTED, key, pack(record)))
        beat = (is_ready, partitions, current, switch.obeyed)
        if beat == self._last_beat and now < self._beat_at_s:
            return
        self._beat_at_s, self._last_beat = now + HEARTBEAT_S, beat
        heartbeat = Heartbeat(
            worker=self.name,
            at_tai_s=self._clock.tai_s(),
            is_ready=is_ready,
            partitions=partitions,
            n_waiting=n_waiting,
            current=current,
            alerts_held=switch.is_held,
            control_offset=switch.obeyed,
        )
        self._append(Record(topics.STATUS, self.name.encode(), pack(heartbeat)))

    def flush(self) -> None:
        """Write what was held back."""
        for _, key, record in self._held.values():
            self._append(Record(topics.COMMITTED, key, pack(record)))
        self._held.clear()

    def _release(self, key: bytes, record: Committed, cpu_wall_s: tuple[float, float] | None) -> None:
        if cpu_wall_s is not None:
            record = replace(record, reference_cpu_s=cpu_wall_s[0], reference_wall_s=cpu_wall_s[1])
        self._append(Record(topics.COMMITTED, key, pack(record)))

    def _append_features(self, work: Afterwork) -> None:
        if work.features and self._append(*(Record(topics.FEATURES, b"%d" % n, record) for n, record in work.features)):
            self._metrics.features.inc(len(work.features))

    def _append(self, *records: Record) -> bool:
        try:
            self._producer.append(list(records))
        except LogUnavailable:
            self._metrics.log_errors.inc()
            return False
        return True

    def _count(self, finished: Finished, manifest: Manifest, commit_s: float, now_tai_s: float) -> None:
        metrics = self._metrics
        metrics.visits.labels(manifest.outcome.value).inc()
        metrics.commit.observe(commit_s)
        metrics.alerts.inc(manifest.n_alerts)
        metrics.alert_bytes.inc(manifest.alert_bytes)
        if manifest.code:
            metrics.failures.labels(manifest.code).inc()
        if finished.is_dead_letter:
            metrics.dead_letters.labels(manifest.code).inc()
        for stage, wall_s, cpu_s in manifest.timings:
            metrics.stage.labels(stage).observe(wall_s)
            metrics.stage_cpu.labels(stage).observe(cpu_s)
        for kind, source, _, _ in manifest.bundle:
            metrics.bundle_parts.labels(kind, source).inc()
        for call in manifest.redis_skipped:
            metrics.redis_skipped.labels(call).inc()
        if manifest.outcome in (Outcome.DUPLICATE, Outcome.EXPIRED) or manifest.redrive:
            return
        if manifest.is_clock_suspect:
            metrics.clock_suspect.inc()
        else:
            metrics.latency.observe(max(0.0, now_tai_s - manifest.readout_end_tai_s))
            metrics.shutter_latency.observe(max(0.0, now_tai_s - manifest.exposure_end_tai_s))
        if self._clock.monotonic_s() > finished.attempt.deadline_monotonic_s:
            metrics.deadline_missed.inc()


def _fields(manifest: Manifest) -> dict[str, object]:
    """Fields of the one line a detector gets."""
    return {
        "group": manifest.group,
        "visit": manifest.visit,
        "detector": manifest.detector,
        "band": manifest.band,
        "outcome": manifest.outcome.value,
        "code": manifest.code,
        "message": manifest.message,
        "n_alerts": manifest.n_alerts,
        "attempt": manifest.attempt,
        "redrive": manifest.redrive,
        "clock_suspect": manifest.is_clock_suspect,
        "wall_s": round(manifest.wall_s, 4),
        "cpu_s": round(manifest.cpu_s, 4),
        "queue_s": round(manifest.started_tai_s - manifest.readout_end_tai_s, 3),
        "stages": {name: round(wall, 4) for name, wall, _ in manifest.timings},
        "counts": manifest.counts,
        "redis_skipped": manifest.redis_skipped,
    }
