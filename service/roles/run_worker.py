"""The worker process: transport, supervision and HTTP in this one, the computing in its child."""

import queue
from collections.abc import Callable
from typing import Final

import redis
import structlog

from service import topics
from service.access import cache_access
from service.child import Child, FromChild
from service.log.contract import IdentityTaken, Producer, WorkerLog
from service.redis_access import client_options
from service.roles.alert_switch import AlertSwitch
from service.roles.attempts import RedisAttempts
from service.roles.late_join import LateJoin
from service.roles.reports import Reporter
from service.roles.runner import Process, make_process, open_topics, start_http
from service.roles.worker import Parts, Worker
from service.settings import Settings, compute_environment

GROUP: Final = "workers"

log = structlog.get_logger()


def run(settings: Settings) -> int:
    """Run until the stop signal, finish what is computed, leave; the exit code."""
    process = make_process("worker", settings)
    server = start_http(process)
    opened = open_topics(process)
    switch = AlertSwitch(opened.reader(topics.CONTROL), process.metrics)
    worker = make_worker(process, opened.producer(), lambda: opened.join(GROUP, topics.WORK, settings.slot), switch)
    try:
        while not process.stopping.is_set():
            worker.turn()
        stop_at_s = process.clock.monotonic_s() + settings.drain_s
        while not worker.is_idle and process.clock.monotonic_s() < stop_at_s:
            worker.turn(is_draining=True)
    except IdentityTaken:
        log.error("identity_taken", slot=settings.slot)
        return 1
    finally:
        worker.stop()
        server.stop()
    worker.leave()
    log.info("worker_stopped", slot=settings.slot, is_idle=worker.is_idle)
    return 0


def make_worker(process: Process, producer: Producer, join: Callable[[], WorkerLog], switch: AlertSwitch) -> Worker:
    """A worker on real parts; it calls ``join`` when its child is warm."""
    settings = process.settings
    inbox: queue.SimpleQueue[FromChild] = queue.SimpleQueue()
    timeout_s = settings.redis_timeout_ms / 1000
    options = client_options(settings.cache_url, cache_access(settings))
    client = redis.Redis.from_url(
        settings.cache_url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, **options
    )
    child = Child(compute_environment(settings), inbox.put)
    skipped = process.metrics.redis_skipped.labels("attempts")
    return Worker(
        Parts(
            settings=settings,
            clock=process.clock,
            log=LateJoin(join, lambda: child.is_warm),
            child=child,
            inbox=inbox,
            attempts=RedisAttempts(client, settings.expire_s, skipped.inc),
            reporter=Reporter(
                f"worker-{settings.slot}",
                producer,
                process.clock,
                process.metrics,
                waits_for_reference=settings.measure_reference,
            ),
            switch=switch,
            metrics=process.metrics,
            health=process.health,
        )
    )
