"""What every role answers: liveness, readiness, metrics."""

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from service.health import Health


def health_routes(health: Health, registry: CollectorRegistry, role: str) -> APIRouter:
    """``/healthz`` and ``/readyz`` (200 or 503) and ``/metrics``; none asks a server."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="Whether the role's loop turns", responses={503: {"model": dict[str, str | float]}})
    async def healthz(response: Response) -> dict[str, str | float]:
        response.status_code = 200 if health.is_alive else 503
        return {"role": role, "turned_s_ago": round(health.age_s, 3)}

    @router.get("/readyz", summary="Whether the role takes work", responses={503: {"model": dict[str, str | bool]}})
    async def readyz(response: Response) -> dict[str, str | bool]:
        response.status_code = 200 if health.is_ready else 503
        return {"role": role, "ready": health.is_ready}

    @router.get("/metrics", summary="Prometheus metrics of this process", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return router
