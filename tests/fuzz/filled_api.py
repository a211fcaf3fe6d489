"""The API's application over a state in which there is something of everything."""

from typing import Any

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from alerts.packet import AlertContext, build_alerts
from core.errors import Outcome
from service.api_state import ApiState
from service.handlers.alerts import alert_routes
from service.handlers.health import health_routes
from service.handlers.page import page_routes
from service.handlers.schemas import schema_routes
from service.handlers.visits import visit_routes
from service.health import Health
from service.http_server import make_app
from service.log.contract import Message
from service.metrics import Metrics
from service.records import Committed, DeadLetter, Heartbeat, Manifest, Record, pack
from tests.support.service.builders import VISIT
from tests.support.service.fakes import FakeClock
from tests.unit.alerts.test_packet import WCS, make_history, make_result, past_of

NAN = float("nan")


def filled_app() -> FastAPI:
    """All routers of all roles, ready and alive, without a limit of requests."""
    state, registry, clock = filled_state(), CollectorRegistry(), FakeClock()
    health = Health(clock)
    health.set_ready(True)
    Metrics(registry).visits.labels("alerts").inc()
    routers = health_routes(health, registry, "api"), visit_routes(state), alert_routes(state), schema_routes()
    return make_app((*routers, page_routes()))


def filled_state() -> ApiState:
    """Some of every record, with the values that JSON has no word for, and real alerts."""
    state = ApiState()
    for record in records():
        state.take_record(Message("t", 0, 0, b"", pack(record), {}, 0))
    result, history = make_result([5, 6, 0]), make_history([5, 6], per_object=4)
    for number, alert in build_alerts(result, past_of(history), AlertContext(wcs=WCS)):
        state.take_alert(Message("alerts", 0, 0, b"%d" % number, alert, {}, 0))
    state.take_alert(Message("alerts", 0, 0, b"12", b"no alert", {}, 0))
    return state


def records() -> list[Record]:
    """Manifests of every outcome and what goes with them."""
    made: list[Record] = []
    for i, outcome in enumerate(Outcome):
        visit: dict[str, Any] = {"visit": VISIT + i, "detector": i % 3, "band": "r", "outcome": outcome}
        summary = {"seeing": NAN, "zero_point": float("inf")} if i % 2 else {"seeing": 0.8}
        made.append(
            Manifest(
                instrument="TestCam", group="g", n_alerts=i, summary=summary, timings=(("isr", 0.1, NAN),),
                bundle=(("template", "redis", "d", 1),), message="m\x00\u202e", **visit,
            )
        )  # fmt: skip
        times = {"committed_tai_s": 1.0, "commit_s": 0.01, "latency_s": 2.5 if i else NAN, "shutter_latency_s": 4.5}
        made.append(Committed(n_alerts=7, is_clock_suspect=False, **visit, **times))
    letter = DeadLetter(topic="readout", partition=0, code="not_json", message="m", payload=b"\xff{\x00", at_tai_s=1.0)
    beat = Heartbeat(worker="w0", at_tai_s=NAN, is_ready=True, partitions=(0,), n_waiting=0, current=(VISIT, 0))
    return [*made, letter, beat]
