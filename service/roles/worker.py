"""The worker: takes work from its partitions, has its child compute it, commits each readout once."""

import queue
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import structlog

from core.errors import Outcome
from core.timescales import unix_tai_to_mjd_tai
from service.answers import Delivery, Job, decode_afterwork, decode_answer
from service.child import Child, FromChild
from service.clock import Clock
from service.failpoints import Failpoint, reach
from service.health import Health
from service.log.contract import Checkpoint, CommitUnknown, Fenced, IdentityTaken, LogUnavailable, Message, WorkerLog
from service.metrics import Metrics
from service.records import Prepare, Readout
from service.roles.alert_switch import AlertSwitch
from service.roles.attempts import Attempts
from service.roles.commit_records import Attempt, Finished, begin_attempt, make_manifest, make_records, withhold
from service.roles.hints import Hints
from service.roles.intake import Intake
from service.roles.outage import Outage
from service.roles.patience import is_last, pause_s
from service.roles.reports import Reporter
from service.roles.work_queue import Work, WorkQueue
from service.settings import Settings, switched_off

BUSY_POLL_S: Final = 0.005
IDLE_POLL_S: Final = 0.1
AWAY_S: Final = 0.05
RETRY_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
RESTART_S: Final = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
ATTEMPT_S: Final = (0.2, 1.0, 2.0)
"""Before an attempt that killed its child is repeated; other partitions go on meanwhile."""
MAX_UNCOMMITTED: Final = 2
"""Computed readouts that may wait for their commit before the child gets no more work."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a worker is made of."""

    settings: Settings
    clock: Clock
    log: WorkerLog
    child: Child
    inbox: "queue.SimpleQueue[FromChild]"
    attempts: Attempts
    reporter: Reporter
    switch: AlertSwitch
    metrics: Metrics
    health: Health


class Worker:
    """One loop, one thread: poll the log, hear the child, start a job, commit what is finished.

    The child already computes the next job while the last one is committed.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._settings, self._clock, self._metrics = parts.settings, parts.clock, parts.metrics
        self._switched_off = switched_off(parts.settings)
        self._log, self._child, self._switch = parts.log, parts.child, parts.switch
        self._queue = WorkQueue()
        self._intake = Intake(parts.metrics)
        self._hints = Hints(parts.settings.prepare_expire_s, parts.metrics)
        self._uncommitted: deque[Finished] = deque()
        self._job: Attempt | None = None
        self._is_child_busy = False
        self._generation = 0
        self._n_restarts = 0
        self._restart_at_s = 0.0
        self._n_retries = 0
        self._retry_at_s = 0.0
        self._has_joined = False
        self._outage = Outage(self._clock, self._metrics, loop="worker")

    @property
    def is_idle(self) -> bool:
        """Nothing is computed, nothing waits for its commit."""
        return self._job is None and not self._uncommitted

    def turn(self, *, is_draining: bool = False) -> None:
        """Go round once; returns after at most :data:`IDLE_POLL_S` when there is nothing to do."""
        self._parts.health.turn()
        self._restart_child()
        self._hear_child()
        if not is_draining:
            self._start_next()
        self._switch.turn()
        self._commit_finished()
        self._poll()
        self._watch_job()
        self._hints.expire(self._clock.tai_s())
        self._parts.reporter.turn(
            is_ready=self._is_ready(),
            partitions=tuple(self._log.assignment()),
            n_waiting=len(self._queue),
            current=(self._job.work.readout.visit, self._job.work.readout.detector) if self._job else None,
            switch=self._switch,
        )

    def stop(self) -> None:
        """Give up what is under way; it will be done again by whoever owns the partition next."""
        if self._job is not None:
            self._forgive(self._job)
        self._child.kill()
        self._parts.reporter.flush()

    def leave(self) -> None:
        """Leave the group; last of all."""
        self._log.close()

    def _forgive(self, attempt: Attempt) -> None:
        """It did not fail, it was given up: the log moved on, or was away; it must not count towards the third."""
        if attempt.number:
            self._parts.attempts.forgive(attempt.work.readout.visit, attempt.work.run)

    def _is_ready(self) -> bool:
        is_ready = self._child.is_warm and self._has_joined
        self._parts.health.set_ready(is_ready)
        return is_ready

    # from the log

    def _poll(self) -> None:
        is_busy = self._is_child_busy or bool(self._uncommitted) or not self._parts.inbox.empty()
        try:
            messages = self._log.poll(BUSY_POLL_S if is_busy else IDLE_POLL_S)
        except LogUnavailable as error:
            self._outage.failed(error)
            time.sleep(AWAY_S)  # a refused connection takes no time: not to be tried thousands of times a second
            return
        self._outage.worked()
        self._has_joined = self._has_joined or self._child.is_warm  # a cold child's worker joins nothing
        self._drop_lost()
        for message in messages:
            reach(Failpoint.WORKER_POLLED)
            if message.epoch == self._log.assignment().get(message.partition):
                self._take(message)

    def _drop_lost(self) -> None:
        """Forget work, job and results of partitions that are not ours any more."""
        assignment = self._log.assignment()
        self._queue.keep(assignment)
        self._intake.keep(assignment)
        for finished in self._uncommitted:
            if not _is_ours(finished.attempt.work, assignment):
                self._forgive(finished.attempt)
        self._uncommitted = deque(f for f in self._uncommitted if _is_ours(f.attempt.work, assignment))
        if self._job is not None and not _is_ours(self._job.work, assignment):
            log.warning("job_lost", visit=self._job.work.readout.visit, detector=self._job.work.readout.detector)
            self._forgive(self._job)
            self._job = None

    def _take(self, message: Message) -> None:
        record = self._intake.open(message)
        if isinstance(record, Prepare):
            if self._hints.take(record, self._clock.tai_s()):
                self._child.prepare(record)
        elif isinstance(record, Readout):
            self._queue.add(Work(message=message, readout=record))

    # a job

    def _start_next(self) -> None:
        while not self._is_child_busy and len(self._uncommitted) < MAX_UNCOMMITTED:
            if (work := self._queue.next(self._clock.monotonic_s())) is None:
                return
            attempt = begin_attempt(work, self._clock, self._settings)
            if (finished := self._finish_unseen(attempt)) is not None:
                self._finish(finished)
            elif not self._child.is_warm:
                return
            else:
                self._start(attempt)

    def _finish_unseen(self, attempt: Attempt) -> Finished | None:
        """The outcome of readouts whose pixels nobody needs to look at."""
        readout = attempt.work.readout
        age_s = attempt.started_tai_s - readout.readout_end_tai_s
        if age_s > self._settings.expire_s and not readout.is_late_by_intent:
            return Finished(attempt=attempt, outcome=Outcome.EXPIRED, code="expired", message="older than the limit")
        if self._is_duplicate(attempt.work):
            return Finished(attempt=attempt, outcome=Outcome.DUPLICATE)
        if readout.detector in self._switched_off:
            message = "switched off by SUB60_DETECTORS_OFF"
            return Finished(attempt=attempt, outcome=Outcome.UNSUPPORTED, code="detector_off", message=message)
        if readout.n_snaps > 1:
            message = f"{readout.n_snaps} snaps; one is supported"
            return Finished(attempt=attempt, outcome=Outcome.UNSUPPORTED, code="unsupported_snaps", message=message)
        return None

    def _is_duplicate(self, work: Work) -> bool:
        key = (work.readout.visit, work.run)
        checkpoint = self._log.checkpoint(work.partition)
        waiting = ((f.attempt.work.readout.visit, f.attempt.work.run) for f in self._uncommitted)
        return (checkpoint is not None and checkpoint.has(*key)) or key in waiting

    def _start(self, attempt: Attempt) -> None:
        readout = attempt.work.readout
        number, is_done = self._parts.attempts.start(readout.visit, attempt.work.run)
        reach(Failpoint.WORKER_COUNTED)
        attempt = replace(attempt, number=number)
        if is_done:
            self._finish(Finished(attempt=attempt, outcome=Outcome.DUPLICATE))
            return
        if number > self._settings.max_attempts:
            self._finish(_crashed(attempt, f"{number - 1} attempts failed"))
            return
        self._generation += 1
        self._job = replace(attempt, generation=self._generation)
        self._is_child_busy = True
        self._metrics.child_busy.set(1)
        self._hints.use(readout.group, readout.detector)
        self._metrics.queue.observe(max(0.0, attempt.started_tai_s - readout.readout_end_tai_s))
        self._child.process(
            Job(
                generation=self._generation,
                readout=readout,
                deadline_monotonic_s=attempt.deadline_monotonic_s,
                processed_mjd_tai=unix_tai_to_mjd_tai(attempt.started_tai_s),
                is_last_attempt=is_last(attempt),
            )
        )
        reach(Failpoint.WORKER_SENT)

    def _finish(self, finished: Finished) -> None:
        self._queue.finish(finished.attempt.work)
        self._uncommitted.append(finished)

    def _watch_job(self) -> None:
        """Replace a child that computes far too long; one whose answer waits to be heard does not."""
        if not self._parts.inbox.empty():
            return
        if self._job is None or self._clock.monotonic_s() - self._job.started_monotonic_s < self._settings.job_limit_s:
            return
        log.error("child_overrun", pid=self._child.pid, limit_s=self._settings.job_limit_s)
        self._child.kill()
        self._child_failed("overrun", f"computed longer than {self._settings.job_limit_s:g} s")

    # from the child

    def _hear_child(self) -> None:
        while not self._parts.inbox.empty():
            heard = self._parts.inbox.get()
            if heard.serial != self._child.serial:
                continue
            if heard.message is None:
                self._child.kill()
                self._child_failed("died", "the compute child died")
            elif heard.message["op"] == "ready":
                self._child.is_warm = True
                self._n_restarts = 0
                log.info("child_ready", pid=self._child.pid, warm_up_s=round(heard.message["warm_up_s"], 3))
                for hint in self._hints.current():  # a new child knows nothing of the hints its predecessor had
                    self._child.prepare(hint)
            elif heard.message["op"] == "answer":
                self._take_answer(decode_answer(heard.message, heard.blobs))
            elif heard.message["op"] == "failed":
                self._child_is_free()
                if self._job is not None and heard.message["generation"] == self._job.generation:
                    self._try_later(heard.message["code"], heard.message["message"])
            elif heard.message["op"] == "afterwork":
                work = decode_afterwork(heard.message, heard.blobs)
                self._parts.reporter.afterwork(heard.message["generation"], work)
            elif heard.message["op"] == "reference":
                self._parts.reporter.reference(heard.message["generation"], heard.message["cpu_wall_s"])
            elif heard.message["op"] == "bug":
                log.error("child_bug_reported", traceback=heard.message["traceback"])

    def _take_answer(self, delivery: Delivery) -> None:
        reach(Failpoint.WORKER_ANSWERED)
        self._child_is_free()
        if self._job is None or delivery.generation != self._job.generation:
            return  # the partition was lost meanwhile
        attempt, self._job = self._job, None
        self._finish(
            Finished(
                attempt=attempt,
                outcome=delivery.outcome,
                code=delivery.code,
                message=delivery.message,
                is_dead_letter=delivery.is_dead_letter,
                delivery=delivery,
            )
        )

    def _child_failed(self, reason: str, message: str) -> None:
        self._metrics.child_restarts.labels(reason).inc()
        self._child_is_free()
        self._restart_at_s = self._clock.monotonic_s() + RESTART_S[min(self._n_restarts, len(RESTART_S) - 1)]
        self._n_restarts += 1
        log.error("child_gone", reason=reason, n_restarts=self._n_restarts)
        if self._job is not None:
            self._attempt_failed(f"child_{reason}", message)

    def _try_later(self, code: str, message: str) -> None:
        """What may pass is tried again with growing pauses, inside the deadline; it kills nobody and counts apart."""
        assert self._job is not None
        attempt, self._job = self._job, None
        work, now = attempt.work, self._clock.monotonic_s()
        self._forgive(attempt)
        self._metrics.failures.labels(code).inc()
        log.warning("attempt_postponed", visit=work.readout.visit, code=code, n_retries=work.n_retries)
        if is_last(attempt):
            self._finish(_crashed(attempt, f"after {work.n_retries} retries: {code}: {message}"))
            return
        first_s = work.first_tried_s if work.n_retries else attempt.started_monotonic_s
        self._queue.postpone(work, first_s, now + pause_s(work.n_retries))

    def _attempt_failed(self, code: str, message: str) -> None:
        """The job stays at the head of its partition and is tried again after a while; not for ever."""
        assert self._job is not None
        attempt, self._job = self._job, None
        self._metrics.failures.labels(code).inc()
        log.warning("attempt_failed", visit=attempt.work.readout.visit, code=code, number=attempt.number)
        if attempt.number >= self._settings.max_attempts:
            self._finish(_crashed(attempt, f"attempt {attempt.number}: {code}: {message}"))
        else:
            wait = ATTEMPT_S[min(attempt.number - 1, len(ATTEMPT_S) - 1)]
            self._queue.hold(attempt.work.partition, self._clock.monotonic_s() + wait)

    def _child_is_free(self) -> None:
        self._is_child_busy = False
        self._metrics.child_busy.set(0)

    def _restart_child(self) -> None:
        if self._child.pid is None and self._clock.monotonic_s() >= self._restart_at_s:
            self._child.start()

    # commits

    def _commit_finished(self) -> None:
        # Operators' orders of before our start come first: a hold outlives every worker.
        while self._switch.is_current and self._uncommitted and self._clock.monotonic_s() >= self._retry_at_s:
            try:
                self._commit(self._uncommitted[0])
                self._uncommitted.popleft()
                self._n_retries = 0
            except IdentityTaken:
                raise
            except (Fenced, CommitUnknown) as error:
                # The partition's next owner, perhaps we ourselves, goes on from the checkpoint.
                self._metrics.fenced.inc()
                log.warning("commit_refused", code=error.code, partition=self._uncommitted[0].attempt.work.partition)
                self._forgive(self._uncommitted.popleft().attempt)
                self._drop_lost()
            except LogUnavailable as error:
                self._metrics.log_errors.inc()
                log.warning("commit_retried", code=error.code, reason=str(error))
                wait = RETRY_S[min(self._n_retries, len(RETRY_S) - 1)]
                self._n_retries += 1
                self._retry_at_s = self._clock.monotonic_s() + wait

    def _commit(self, finished: Finished) -> None:
        finished = withhold(finished) if self._switch.is_held else finished
        work = finished.attempt.work
        readout = work.readout
        before = self._log.checkpoint(work.partition) or Checkpoint()
        manifest = make_manifest(finished, self._parts.reporter.name, self._clock.tai_s())
        records = make_records(finished, manifest)
        is_new = finished.outcome is not Outcome.DUPLICATE
        after = before.advance(work.message, visit=readout.visit if is_new else None, detector=work.run)
        started = self._clock.monotonic_s()
        reach(Failpoint.COMMIT_STARTED)
        self._log.commit(work.partition, after, records, epoch=work.message.epoch)
        commit_s = self._clock.monotonic_s() - started
        reach(Failpoint.WORKER_COMMITTED)
        if is_new:
            self._parts.attempts.done(readout.visit, work.run)
        reach(Failpoint.WORKER_MARKED)
        self._parts.reporter.committed(finished, manifest, commit_s, self._clock.tai_s())
        reach(Failpoint.WORKER_REPORTED)


def _is_ours(work: Work, assignment: Mapping[int, int]) -> bool:
    return assignment.get(work.partition) == work.message.epoch


def _crashed(attempt: Attempt, message: str) -> Finished:
    return Finished(attempt=attempt, outcome=Outcome.CRASHED, code="crashed", message=message, is_dead_letter=True)
