"""What all roles share: a process with settings, clocks, metrics, health, an HTTP server and a stop signal."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog
from fastapi import APIRouter
from prometheus_client import CollectorRegistry

from core.errors import TransientError
from service import topics
from service.app import stop_on_signal
from service.clock import Clock, SystemClock
from service.connections import connect_log
from service.handlers.health import health_routes
from service.health import Health
from service.http_guard import RateLimit
from service.http_server import HttpServer
from service.log import Log, LogUnavailable
from service.metrics import Metrics
from service.roles.outage import Outage
from service.settings import Settings

RETRY_S: Final = 0.5

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """The surroundings of one role."""

    role: str
    settings: Settings
    clock: Clock
    registry: CollectorRegistry
    metrics: Metrics
    health: Health
    stopping: threading.Event


def make_process(role: str, settings: Settings) -> Process:
    """Surroundings for a role run from the main thread."""
    clock = SystemClock()
    registry = CollectorRegistry()
    return Process(
        role=role,
        settings=settings,
        clock=clock,
        registry=registry,
        metrics=Metrics(registry),
        health=Health(clock),
        stopping=stop_on_signal(),
    )


def start_http(process: Process, *routers: APIRouter) -> HttpServer:
    """The process's HTTP server, with the routes every role has."""
    routes = health_routes(process.health, process.registry, process.role)
    settings = process.settings
    limit = None
    if settings.http_rate_per_s:
        limit = RateLimit(settings.http_rate_per_s, 4 * settings.http_rate_per_s, process.clock.monotonic_s)
    server = HttpServer(settings.http_host, settings.http_port, (routes, *routers), limit)
    server.start()
    return server


def open_topics(process: Process) -> Log:
    """The log with all topics made; waits for a server that is not there yet."""
    settings = process.settings
    counts = topics.partition_counts(settings.log_url, settings.partitions)
    outage = Outage(process.clock, process.metrics)
    while True:
        process.health.turn()
        try:
            opened = connect_log(settings)
            opened.ensure_topics(counts, topics.retention(settings))
        except LogUnavailable as error:
            outage.failed(error)
            if process.stopping.wait(RETRY_S):
                raise
        else:
            outage.worked()
            return opened


def run_loops(process: Process, loops: Mapping[str, Callable[[], None]]) -> int:
    """Call each loop's turn, in a thread each, until the stop signal; the exit code.

    A log that is away is waited for. Anything else that a turn raises is a bug: all loops stop and the exit is nonzero.
    """
    failed = threading.Event()

    def run(name: str, turn: Callable[[], None]) -> None:
        try:
            turn_until_stopped(process, turn, name)
        except BaseException:
            log.exception("loop_failed", loop=name)
            failed.set()
            process.stopping.set()
            raise

    threads = [threading.Thread(target=run, args=item, name=item[0], daemon=True) for item in loops.items()]
    for thread in threads:
        thread.start()
    process.stopping.wait()
    for thread in threads:
        thread.join(timeout=process.settings.drain_s)
    return 1 if failed.is_set() else 0


def turn_until_stopped(process: Process, turn: Callable[[], None], name: str = "") -> None:
    """Call ``turn`` until the stop signal; what may pass is waited for."""
    outage = Outage(process.clock, process.metrics, loop=name)
    while not process.stopping.is_set():
        process.health.turn(name)
        try:
            turn()
        except TransientError as error:
            outage.failed(error)
            process.stopping.wait(RETRY_S)
        else:
            outage.worked()
