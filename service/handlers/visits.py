"""Visits, latencies and dead letters, from what the log says."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from service.api_state import ApiState, percentile
from service.handlers.models import INVALID, LIMITED, NOT_FOUND, DetectorStatus, Latency, Letter, Summary, VisitLine
from service.handlers.numbers import Number
from service.http_server import NotFoundError
from service.records import Committed

Limit = Annotated[int, Query(ge=1, le=1000)]


def visit_routes(state: ApiState) -> APIRouter:
    """Routes over one state."""
    router = APIRouter(tags=["visits"], responses=LIMITED)

    @router.get("/summary", summary="Totals by outcome, and what the workers are doing", response_model=Summary)
    async def read_summary() -> dict[str, Any]:
        return state.summary()

    @router.get("/latency", summary="Percentiles of the alert latency [s], by nearest rank", response_model=Latency)
    async def read_latency() -> dict[str, Any]:
        return _latency(state.commits())

    @router.get(
        "/visits", summary="The last detector-visits, newest first", response_model=list[VisitLine], responses=INVALID
    )
    async def read_visits(limit: Limit = 100) -> list[dict[str, Any]]:
        return state.recent(limit)

    @router.get(
        "/visits/{visit}/detectors/{detector}",
        summary="What became of one detector of one visit",
        response_model=DetectorStatus,
        responses=NOT_FOUND | INVALID,
    )
    async def read_detector(visit: Number, detector: Number) -> dict[str, Any]:
        if (status := state.detector(visit, detector)) is None:
            raise NotFoundError("no such visit and detector", visit=visit, detector=detector)
        return status

    @router.get(
        "/deadletters", summary="Messages given up lately, newest first", response_model=list[Letter], responses=INVALID
    )
    async def read_dead_letters(limit: Limit = 100) -> list[dict[str, Any]]:
        return state.letters(limit)

    return router


def _latency(commits: list[Committed]) -> dict[str, Any]:
    series = {
        "latency_s": [c.latency_s for c in commits],
        "shutter_latency_s": [c.shutter_latency_s for c in commits],
        "commit_s": [c.commit_s for c in commits],
    }
    return {"n": len(commits)} | {name: _percentiles(values) for name, values in series.items()}


def _percentiles(values: list[float]) -> dict[str, float | None]:
    return {
        "p50": percentile(values, 0.50),
        "p95": percentile(values, 0.95),
        "p99": percentile(values, 0.99),
        "max": max(values, default=None),
    }
