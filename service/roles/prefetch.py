"""Prefetch: brings the bundles of next-visit events into Redis before the readouts come."""

import time
from collections import deque
from typing import Final

import structlog

from core.errors import RejectedInputError, Sub60Error
from service.bundle_keys import prepare_key
from service.bundle_loader import BundleLoader
from service.clock import Clock
from service.failpoints import Failpoint, reach
from service.log.contract import Checkpoint, CommitUnknown, Fenced, Message, WorkerLog
from service.metrics import Metrics
from service.records import Prepare, unpack_any
from service.roles.hints import is_expired

GROUP: Final = "prefetch"
POLL_S: Final = 0.2

log = structlog.get_logger()


class Prefetch:
    """Loads and publishes one bundle after another; a hint that fails is a cold path later, nothing worse."""

    def __init__(
        self, worker_log: WorkerLog, loader: BundleLoader, clock: Clock, metrics: Metrics, expire_s: float
    ) -> None:
        self._log = worker_log
        self._loader = loader
        self._clock = clock
        self._metrics = metrics
        self._expire_s = expire_s

        self._pending: deque[Message] = deque()

    def turn(self) -> None:
        """One round: one bundle at most, so that the log is asked between two."""
        self._pending += self._log.poll(0 if self._pending else POLL_S)
        if not self._pending:
            return
        message = self._pending.popleft()
        if self._log.assignment().get(message.partition) != message.epoch:
            return  # somebody else's by now
        self._take(message)
        before = self._log.checkpoint(message.partition) or Checkpoint()
        try:
            self._log.commit(message.partition, before.advance(message), [], epoch=message.epoch)
        except (Fenced, CommitUnknown) as error:
            self._metrics.fenced.inc()
            log.warning("commit_refused", code=error.code, partition=message.partition)

    def _take(self, message: Message) -> None:
        try:
            record = unpack_any(message.value)
        except RejectedInputError as error:
            self._metrics.failures.labels(error.code).inc()
            return
        if isinstance(record, Prepare):
            reach(Failpoint.PREFETCH_POLLED)
            self._load(record)
            reach(Failpoint.PREFETCH_PUBLISHED)

    def _load(self, work: Prepare) -> None:
        if is_expired(work, self._expire_s, self._clock.tai_s()):
            self._metrics.prepares.labels("expired").inc()
            return
        wall, cpu = self._clock.monotonic_s(), time.thread_time()
        try:
            bundle = self._loader.load(prepare_key(work), publish=True)
        except Sub60Error as error:
            self._metrics.prepares.labels("failed").inc()
            self._metrics.failures.labels(error.code).inc()
            log.warning("prefetch_failed", group=work.group, detector=work.detector, code=error.code, reason=str(error))
            return
        self._metrics.prepares.labels("prefetched").inc()
        for part in bundle.parts.values():
            self._metrics.bundle_parts.labels(part.kind.value, part.source.value).inc()
            if part.error is not None:
                self._metrics.failures.labels(part.error.code).inc()
        wall, cpu = self._clock.monotonic_s() - wall, time.thread_time() - cpu
        self._metrics.prefetch.observe(wall)
        self._metrics.prefetch_cpu.observe(cpu)
        log.info(
            "prefetched",
            group=work.group,
            detector=work.detector,
            band=work.band,
            wall_s=round(wall, 3),
            cpu_s=round(cpu, 3),
        )
