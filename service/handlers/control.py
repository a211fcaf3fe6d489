"""Operators' stop for alerts over HTTP: there only where a token is set, and only for who has it."""

import asyncio
import hmac
import threading
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from core.errors import RejectedInputError, TransientError
from service.clock import Clock
from service.control import send_order
from service.log.contract import Producer
from service.records import Verb

MAX_BODY_BYTES: Final = 4096


class TooLargeError(RejectedInputError):
    """The body is larger than any order."""

    code = "too_large"


class Order(BaseModel):
    """What the body says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: str = Field(default="", max_length=500)


class ControlDesk:
    """Takes orders from HTTP's threads to the log; it opens when the log does."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._producer: Producer | None = None
        self._lock = threading.Lock()

    def open(self, producer: Producer) -> None:
        """From now on orders are taken."""
        self._producer = producer

    def send(self, verb: Verb, reason: str, who: str) -> None:
        """Append an order; raises ``TransientError`` when the log is not there."""
        with self._lock:
            if self._producer is None:
                raise TransientError("the log is not there yet; nothing was changed", code="log_unavailable")
            send_order(self._producer, verb, self._clock.tai_s(), reason, who)


def control_routes(desk: ControlDesk, token: SecretStr) -> APIRouter:
    """``POST /control/hold`` and ``/control/release``; no routes at all without a token."""
    router = APIRouter(tags=["control"])
    secret = token.get_secret_value().encode()
    if not secret:
        return router

    async def obey(request: Request, verb: Verb) -> JSONResponse:
        if not is_allowed(request.headers.get("authorization", ""), secret):
            body = {"code": "unauthorized", "message": "give the token: Authorization: Bearer …"}
            return JSONResponse(body, 401, headers={"WWW-Authenticate": 'Bearer realm="sub60"'})
        order = parse_order(await read_body(request))
        if verb is Verb.HOLD and not order.reason:
            raise RejectedInputError('say why: {"reason": "…"}', code="no_reason")
        who = f"http {request.client.host}" if request.client else "http"
        await asyncio.to_thread(desk.send, verb, order.reason, who)
        message = "appended; /summary shows for each worker whether it has obeyed"
        return JSONResponse({"order": verb.value, "message": message}, 202)

    @router.post("/control/hold", summary="Stop sending alerts; results go on")
    async def hold(request: Request) -> JSONResponse:
        return await obey(request, Verb.HOLD)

    @router.post("/control/release", summary="Send alerts again")
    async def release(request: Request) -> JSONResponse:
        return await obey(request, Verb.RELEASE)

    return router


def is_allowed(header: str, secret: bytes) -> bool:
    """Whether an ``Authorization`` header holds the token; takes as long for a wrong one as for the right one."""
    scheme, _, given = header.partition(" ")
    is_same = hmac.compare_digest(given.strip().encode(), secret)
    return is_same and scheme.lower() == "bearer"


async def read_body(request: Request) -> bytes:
    """The body, no more of it than an order may have."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise TooLargeError(f"a body of more than {MAX_BODY_BYTES} bytes")
    return body


def parse_order(body: bytes) -> Order:
    """The order in a body; an empty one gives no reason."""
    try:
        return Order.model_validate_json(body or b"{}")
    except ValidationError as error:
        problems = "; ".join(item["msg"] for item in error.errors()[:4])
        raise RejectedInputError(f"no order: {problems}", code="bad_order") from error
