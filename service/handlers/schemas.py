"""A read-only schema registry of what goes out: what Confluent's clients ask of one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter

from alerts import features, schema
from service.handlers.models import INVALID, LIMITED, NOT_FOUND
from service.handlers.numbers import Number
from service.http_server import NotFoundError
from service.topics import ALERTS, FEATURES


@dataclass(frozen=True, slots=True)
class Published:
    """A schema under its subject; topics name it, too."""

    subject: str
    topic: str
    schema_id: int
    text: Callable[[], str]


PUBLISHED: Final = (
    Published("alert-packet", ALERTS, schema.SCHEMA_ID, schema.schema_json),
    Published("light-curve-features", FEATURES, features.SCHEMA_ID, features.features_schema_json),
)


def schema_routes() -> APIRouter:
    """``GET /schemas/ids/{id}`` and the routes that serializers use."""
    router = APIRouter(tags=["schemas"], responses=LIMITED)

    @router.get("/schemas/ids/{number}", summary="Schema by the id in a record's frame", responses=NOT_FOUND | INVALID)
    async def read_schema(number: Number) -> dict[str, str]:
        for published in PUBLISHED:
            if published.schema_id == number:
                return {"schema": published.text()}
        if number in schema.known_ids():  # alerts of before an upgrade are on the topic still
            return {"schema": schema.schema_json(number)}
        raise NotFoundError("no such schema", schema_id=number)

    @router.get("/subjects", summary="Subjects")
    async def read_subjects() -> list[str]:
        return [published.subject for published in PUBLISHED]

    @router.get("/subjects/{subject}/versions", summary="Versions of a subject", responses=NOT_FOUND | INVALID)
    async def read_versions(subject: str) -> list[int]:
        return [_find(subject).schema_id]

    @router.get(
        "/subjects/{subject}/versions/{version}", summary="One version of a subject", responses=NOT_FOUND | INVALID
    )
    async def read_version(subject: str, version: str) -> dict[str, Any]:
        published = _find(subject)
        if version not in ("latest", str(published.schema_id)):
            raise NotFoundError("no such version", version=version)
        return _described(subject, published)

    @router.post(
        "/subjects/{subject}", summary="Look a schema up; nothing is ever registered", responses=NOT_FOUND | INVALID
    )
    async def look_up(subject: str) -> dict[str, Any]:
        return _described(subject, _find(subject))

    return router


def _find(subject: str) -> Published:
    for published in PUBLISHED:
        if subject.removesuffix("-value") in (published.subject, published.topic):
            return published
    raise NotFoundError("no such subject", subject=subject)


def _described(subject: str, published: Published) -> dict[str, Any]:
    number = published.schema_id
    return {"subject": subject, "id": number, "version": number, "schema": published.text()}
