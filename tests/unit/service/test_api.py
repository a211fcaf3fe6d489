"""The HTTP API over a state filled by hand."""

import asyncio
import json
from dataclasses import fields, replace

import httpx
import pytest
from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from alerts.schema import SCHEMA_ID
from core.errors import Outcome
from service.api_state import ApiState, percentile
from service.handlers.alerts import alert_routes
from service.handlers.health import health_routes
from service.handlers.models import CommittedStatus, DetectorStatus, Letter, Summary, VisitLine, Worker
from service.handlers.page import page_routes
from service.handlers.schemas import schema_routes
from service.handlers.visits import visit_routes
from service.health import Health
from service.http_server import make_app
from service.log.contract import Message
from service.metrics import Metrics
from service.records import Committed, DeadLetter, Heartbeat, Manifest, pack
from tests.support.service.builders import VISIT
from tests.support.service.fakes import FakeClock

MANIFEST = Manifest(
    instrument="LSSTCam",
    group="g",
    visit=VISIT,
    detector=3,
    band="r",
    outcome=Outcome.ALERTS,
    n_alerts=7,
    bundle=(("template", "redis", "d", 1),),
)
COMMITTED = Committed(
    visit=VISIT,
    detector=3,
    band="r",
    outcome=Outcome.ALERTS,
    n_alerts=7,
    committed_tai_s=1.0,
    commit_s=0.01,
    latency_s=2.5,
    shutter_latency_s=4.5,
    is_clock_suspect=False,
)


class Api:
    """Requests without a socket."""

    def __init__(self) -> None:
        self.state, self.clock, registry = ApiState(), FakeClock(), CollectorRegistry()
        self.health = Health(self.clock)
        Metrics(registry).visits.labels("alerts").inc()
        routes = (
            health_routes(self.health, registry, "api"),
            visit_routes(self.state),
            alert_routes(self.state),
            schema_routes(),
            page_routes(),
        )
        self._transport = httpx.ASGITransport(app=make_app(routes))

    def take(self, *records: Manifest | Committed | DeadLetter | Heartbeat) -> None:
        for record in records:
            self.state.take_record(Message("t", 0, 0, b"", pack(record), {}, 0))

    def get(self, path: str) -> httpx.Response:
        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url="http://api") as client:
                return await client.get(path)

        return asyncio.run(ask())


@pytest.fixture
def api() -> Api:
    return Api()


def test_one_detector_of_one_visit(api: Api) -> None:
    api.take(MANIFEST, COMMITTED)
    answer = api.get(f"/visits/{VISIT}/detectors/3").json()
    assert (answer["outcome"], answer["committed"]["latency_s"]) == ("alerts", 2.5)
    missing = api.get(f"/visits/{VISIT}/detectors/4")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    assert api.get("/visits/x/detectors/4").status_code == 422


def test_summary_counts_and_a_duplicate_does_not_replace_the_first(api: Api) -> None:
    api.take(MANIFEST, replace(MANIFEST, outcome=Outcome.DUPLICATE, n_alerts=0))
    api.take(Heartbeat(worker="w0", at_tai_s=1.0, is_ready=True, partitions=(0,), n_waiting=0, current=None))
    summary = api.get("/summary").json()
    assert summary["outcomes"] == {"alerts": 1, "duplicate": 1}
    assert (summary["alerts"], summary["bundle"]) == (7, {"template": {"redis": 1}})
    assert summary["workers"][0]["worker"] == "w0"
    assert [v["outcome"] for v in api.get("/visits").json()] == ["alerts"]


def test_latency_leaves_out_what_does_not_count(api: Api) -> None:
    api.take(*(replace(COMMITTED, visit=VISIT + i, latency_s=float(i)) for i in range(1, 101)))
    api.take(replace(COMMITTED, visit=VISIT + 500, latency_s=999.0, is_clock_suspect=True))
    latency = api.get("/latency").json()
    assert latency["n"] == 100
    assert latency["latency_s"] == {"p50": 50.0, "p95": 95.0, "p99": 99.0, "max": 100.0}


def test_of_a_redriven_detector_the_last_word_counts_and_the_first_latency(api: Api) -> None:
    held = replace(MANIFEST, outcome=Outcome.HELD, n_alerts=0)
    api.take(held, replace(COMMITTED, outcome=Outcome.HELD, n_alerts=0))
    api.take(replace(MANIFEST, redrive=1), replace(COMMITTED, redrive=1, latency_s=5000.0))
    answer = api.get(f"/visits/{VISIT}/detectors/3").json()
    assert (answer["outcome"], answer["redrive"], answer["committed"]["latency_s"]) == ("alerts", 1, 5000.0)
    assert api.get("/latency").json()["latency_s"]["max"] == 2.5
    assert api.get("/summary").json()["alerts"] == 7


def test_percentiles_are_nearest_rank() -> None:
    assert percentile([], 0.5) is None
    assert percentile([3.0], 0.99) == 3.0
    assert [percentile([1.0, 2.0, 3.0, 4.0], f) for f in (0.25, 0.5, 0.51, 0.95)] == [1.0, 2.0, 3.0, 4.0]


def test_dead_letters_show_their_payload(api: Api) -> None:
    api.take(DeadLetter(topic="readout", partition=0, code="not_json", message="m", payload=b"\xff{", at_tai_s=1.0))
    (letter,) = api.get("/deadletters").json()
    assert (letter["code"], letter["payload"]) == ("not_json", "\ufffd{")


def test_alert_bytes_as_they_went_out(api: Api) -> None:
    api.state.take_alert(Message("alerts", 0, 0, b"12", b"framed", {}, 0))
    assert api.get("/alerts").json() == ["12"]
    assert api.get("/alerts/12?format=avro").content == b"framed"
    assert api.get("/alerts/13").status_code == 404
    of_another_schema = api.get("/alerts/12")
    assert (of_another_schema.status_code, "format=avro" in of_another_schema.text) == (404, True)


def test_registry_routes(api: Api) -> None:
    schema = api.get(f"/schemas/ids/{SCHEMA_ID}").json()["schema"]
    assert '"diaSourceId"' in schema
    older = json.loads(api.get(f"/schemas/ids/{SCHEMA_ID - 1}").json()["schema"])
    assert older["name"] == "lsst.v11_0.alert"  # of alerts that were on the topic before an upgrade
    assert api.get("/schemas/ids/1").status_code == 404
    assert api.get("/subjects/alerts-value/versions/latest").json()["id"] == SCHEMA_ID


def test_page_metrics_and_health(api: Api) -> None:
    page = api.get("/").text
    assert "sub60" in page
    assert "http://" not in page
    assert "https://" not in page
    assert 'sub60_visits_total{outcome="alerts"} 1.0' in api.get("/metrics").text
    assert api.get("/healthz").status_code == 200
    assert api.get("/readyz").status_code == 503
    api.health.set_ready(True)
    assert api.get("/readyz").status_code == 200
    api.clock.now += 61
    assert api.get("/healthz").status_code == 503


def test_a_bad_parameter_is_a_problem_like_any_other(api: Api) -> None:
    answer = api.get("/visits?limit=0")
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_request")
    assert "limit" in answer.json()["message"]


def test_a_number_that_is_not_finite_is_null(api: Api) -> None:
    api.take(replace(MANIFEST, summary={"seeing": float("nan")}), replace(COMMITTED, latency_s=float("inf")))
    answer = api.get(f"/visits/{VISIT}/detectors/3").json()
    assert (answer["summary"], answer["committed"]["latency_s"]) == ({"seeing": None}, None)
    assert api.get("/latency").json()["latency_s"]["max"] is None


def test_the_document_declares_every_answer(api: Api) -> None:
    paths = api.get("/openapi.json").json()["paths"]
    problem = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for path, operations in paths.items():
        for operation in operations.values():
            answers = operation["responses"]
            is_free = path in ("/healthz", "/readyz", "/metrics")
            assert ("429" in answers) is not is_free, path
            assert ("422" in answers) is bool(operation.get("parameters")), path
            assert ("404" in answers) is ("{" in path), path
            declared = [answers[code]["content"] for code in ("404", "422", "429") if code in answers]
            assert all(set(content) == {"application/json"} for content in declared), path
            assert path == "/" or all(content == problem for content in declared), path
    assert set(paths["/healthz"]["get"]["responses"]) == {"200", "503"}
    assert set(paths["/alerts/{dia_source_id}"]["get"]["responses"]["200"]["content"]) == {
        "application/json",
        "application/avro",
    }


@pytest.mark.parametrize(
    ("model", "record", "more"),
    [
        (DetectorStatus, Manifest, {"committed"}),
        (CommittedStatus, Committed, set()),
        (Letter, DeadLetter, set()),
        (Worker, Heartbeat, set()),
    ],
)
def test_no_field_of_a_record_is_missing_in_its_answer(model: type[BaseModel], record: type, more: set[str]) -> None:
    assert set(model.model_fields) == {field.name for field in fields(record)} | more


def test_no_field_of_the_state_is_missing_in_the_answers(api: Api) -> None:
    api.take(MANIFEST, COMMITTED)
    assert set(VisitLine.model_fields) == set(api.state.recent(1)[0])
    assert set(Summary.model_fields) == set(api.state.summary())
