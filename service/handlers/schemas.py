"""A read-only schema registry with one schema: what Confluent's clients ask of one."""

from typing import Any, Final

from fastapi import APIRouter

from alerts.schema import SCHEMA_ID, schema_json
from service.handlers.models import INVALID, LIMITED, NOT_FOUND
from service.handlers.numbers import Number
from service.http_server import NotFoundError

SUBJECT: Final = "alert-packet"


def schema_routes() -> APIRouter:
    """``GET /schemas/ids/{id}`` and the routes that serializers use."""
    router = APIRouter(tags=["schemas"], responses=LIMITED)

    @router.get("/schemas/ids/{number}", summary="Schema by the id in an alert's frame", responses=NOT_FOUND | INVALID)
    async def read_schema(number: Number) -> dict[str, str]:
        if number != SCHEMA_ID:
            raise NotFoundError("no such schema", schema_id=number)
        return {"schema": schema_json()}

    @router.get("/subjects", summary="Subjects")
    async def read_subjects() -> list[str]:
        return [SUBJECT]

    @router.get("/subjects/{subject}/versions", summary="Versions of a subject", responses=NOT_FOUND | INVALID)
    async def read_versions(subject: str) -> list[int]:
        _check(subject)
        return [SCHEMA_ID]

    @router.get(
        "/subjects/{subject}/versions/{version}", summary="One version of a subject", responses=NOT_FOUND | INVALID
    )
    async def read_version(subject: str, version: str) -> dict[str, Any]:
        _check(subject)
        if version not in ("latest", str(SCHEMA_ID)):
            raise NotFoundError("no such version", version=version)
        return _described(subject)

    @router.post(
        "/subjects/{subject}", summary="Look a schema up; nothing is ever registered", responses=NOT_FOUND | INVALID
    )
    async def look_up(subject: str) -> dict[str, Any]:
        _check(subject)
        return _described(subject)

    return router


def _check(subject: str) -> None:
    if subject.removesuffix("-value") not in (SUBJECT, "alerts"):
        raise NotFoundError("no such subject", subject=subject)


def _described(subject: str) -> dict[str, Any]:
    return {"subject": subject, "id": SCHEMA_ID, "version": SCHEMA_ID, "schema": schema_json()}
