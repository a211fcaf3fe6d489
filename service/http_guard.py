"""What stands before every route: headers that browsers heed, and a limit of requests a client."""

from collections import OrderedDict
from collections.abc import Callable
from ipaddress import ip_network
from typing import Final

import structlog
from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
"""The page carries its own script and style; nothing comes from elsewhere, and nobody may frame it."""
FREE: Final = frozenset({"/healthz", "/readyz", "/metrics"})
"""Never limited: an orchestrator that is turned away restarts the process."""
log = structlog.get_logger()

MAX_TARGET_BYTES: Final = 8 << 10
MAX_HEADERS_BYTES: Final = 16 << 10
MAX_CLIENTS: Final = 4096
"""Clients remembered; those longest unseen are forgotten, and begin with a full allowance."""


class RateLimit:
    """A bucket of tokens a client: ``burst`` at once and at least one, ``per_s`` in the long run.

    Parameters
    ----------
    monotonic_s : the clock.
    """

    def __init__(self, per_s: float, burst: float, monotonic_s: Callable[[], float]) -> None:
        self._per_s, self._burst, self._now = per_s, max(burst, 1.0), monotonic_s
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, client: str) -> float:
        """Take a token: 0, or the time until there is one, and none is taken."""
        now = self._now()
        tokens, seen = self._buckets.pop(client, (self._burst, now))
        tokens = min(tokens + (now - seen) * self._per_s, self._burst)
        wait = 0.0 if tokens >= 1 else (1 - tokens) / self._per_s
        self._buckets[client] = (tokens if wait else tokens - 1, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return wait


class Guard:
    """ASGI middleware with both. A client is an address, no header moves it: behind a proxy set the limit there."""

    def __init__(self, app: ASGIApp, limit: RateLimit | None = None) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 429 above the limit; else hand on, and add the headers to whatever is answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if (refusal := _too_long(scope)) is not None:
            await refusal(scope, receive, send_guarded)
            return
        wait = 0.0 if self._limit is None or scope["path"] in FREE else self._limit.wait_s(_client(scope))
        if wait == 0:
            await self._serve(scope, receive, send_guarded)
            return
        body = {"code": "too_many_requests", "message": f"more than the limit; try again in {wait:.1f} s"}
        answer = JSONResponse(body, 429, headers={"Retry-After": str(int(wait) + 1)})
        await answer(scope, receive, send_guarded)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on. A bug in a route is logged with its traceback and answered without: 500, nothing of ours in it."""
        is_begun = False

        async def send_noted(message: Message) -> None:
            nonlocal is_begun
            is_begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        except Exception:
            log.exception("http_bug", path=scope["path"][:200], method=scope["method"])
            if is_begun:
                raise  # the client sees an answer cut off
            body = {"code": "error", "message": "a bug of the service; its log has the traceback"}
            await JSONResponse(body, 500)(scope, receive, send)


def _too_long(scope: Scope) -> JSONResponse | None:
    """The refusal of a request line or of headers that no client of ours needs.

    The server's own limit holds for what has come in part only; sent in one piece, more reaches us.
    """
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MAX_TARGET_BYTES:
        return JSONResponse({"code": "too_large", "message": f"an address of over {MAX_TARGET_BYTES} bytes"}, 414)
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADERS_BYTES:
        return JSONResponse({"code": "too_large", "message": f"headers of over {MAX_HEADERS_BYTES} bytes"}, 431)
    return None


def _client(scope: Scope) -> str:
    """Whom a limit counts: the address of the connection, of IPv6 the network that one customer has."""
    host = str(scope["client"][0]) if scope.get("client") else ""
    if ":" not in host:
        return host
    try:
        return str(ip_network(f"{host.partition('%')[0]}/64", strict=False))
    except ValueError:
        return host
