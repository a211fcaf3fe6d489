"""Recent alerts, as JSON or as the Avro bytes that went out."""

import base64
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse

from alerts.codec import decode_alert
from core.errors import RejectedInputError
from service.api_state import ApiState
from service.handlers.models import INVALID, LIMITED, NOT_FOUND, Answers
from service.handlers.numbers import Number
from service.http_server import NotFoundError

BINARY: Final = {"schema": {"type": "string", "format": "binary"}}
ALERT: Final[Answers] = {
    200: {
        "description": "The record as JSON, or its framed Avro bytes",
        "content": {"application/json": {"schema": {"type": "object"}}, "application/avro": BINARY},
    }
}


def alert_routes(state: ApiState) -> APIRouter:
    """Routes over one state."""
    router = APIRouter(tags=["alerts"], responses=LIMITED)

    @router.get("/alerts", summary="Ids of the most recent alerts, newest first", responses=INVALID)
    async def read_alerts(limit: Annotated[int, Query(ge=1, le=2000)] = 100) -> list[str]:
        return [str(number) for number in state.alert_ids(limit)]  # texts: JavaScript rounds 64-bit integers

    @router.get("/alerts/{dia_source_id}", summary="One recent alert", responses=ALERT | NOT_FOUND | INVALID)
    async def read_alert(
        dia_source_id: Number, encoding: Annotated[Literal["json", "avro"], Query(alias="format")] = "json"
    ) -> Response:
        if (alert := state.alert(dia_source_id)) is None:
            raise NotFoundError("no such alert among the recent ones", dia_source_id=dia_source_id)
        if encoding == "avro":
            return Response(alert, media_type="application/avro")
        try:
            record = decode_alert(alert)
        except RejectedInputError as error:  # one of an older service, or not ours at all
            message = "this alert is of another schema: there is no JSON of it, format=avro gives its bytes"
            raise NotFoundError(message, dia_source_id=dia_source_id) from error
        return JSONResponse(jsonable(record))

    return router


def jsonable(value: Any) -> Any:
    """Avro's values as JSON's: bytes as base64, times as ISO-8601."""
    if isinstance(value, dict):
        return {name: jsonable(item) for name, item in value.items()}
    if isinstance(value, list):
        return [jsonable(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        return value.isoformat()
    return value
