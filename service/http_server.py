"""The HTTP server of a role, in a thread of its own beside the role's loop."""

import asyncio
import socket
import threading
from collections.abc import Sequence
from typing import Final

import uvicorn
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from core.errors import RejectedInputError, Sub60Error, TransientError
from service.http_guard import Guard, RateLimit
from service.http_protocol import PatientProtocol

MAX_CONNECTIONS: Final = 256
"""More at a time are answered 503."""
BACKLOG: Final = 128
KEEP_ALIVE_S: Final = 5
MAX_HEAD_BYTES: Final = 16 << 10
"""Request line and headers together."""


class NotFoundError(RejectedInputError):
    """There is no such thing."""

    code = "not_found"


def make_app(routers: Sequence[APIRouter], limit: RateLimit | None = None) -> FastAPI:
    """The application behind its guard; every error of ours and every bad parameter is answered as a ``Problem``."""
    app = FastAPI(title="sub60", docs_url=None, redoc_url=None)
    app.add_middleware(Guard, limit=limit)
    for router in routers:
        app.include_router(router)

    async def answer(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Sub60Error)
        return JSONResponse({"code": error.code, "message": str(error)}, status_code=status_of(error))

    async def answer_invalid(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        problems = (f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()[:8])
        return JSONResponse({"code": "bad_request", "message": "; ".join(problems)}, status_code=422)

    app.add_exception_handler(Sub60Error, answer)
    app.add_exception_handler(RequestValidationError, answer_invalid)
    return app


def status_of(error: Sub60Error) -> int:
    """HTTP status of an error of ours."""
    if isinstance(error, NotFoundError):
        return 404
    if error.code == "too_large":
        return 413
    if isinstance(error, RejectedInputError):
        return 422
    return 503 if isinstance(error, TransientError) else 500


class HttpServer:
    """Serves routers on a thread. The socket is bound at once, so a taken port is an error of the start.

    Parameters
    ----------
    port : 0 takes any free one; :attr:`port` tells which.
    limit : of requests a client; None: no limit.
    """

    def __init__(self, host: str, port: int, routers: Sequence[APIRouter], limit: RateLimit | None = None) -> None:
        self._socket = socket.create_server((host, port))
        self.host, self.port = host, int(self._socket.getsockname()[1])
        config = uvicorn.Config(
            make_app(routers, limit),
            http=PatientProtocol,
            ws="none",
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            proxy_headers=False,  # else whoever is on this machine names the address that is limited
            limit_concurrency=MAX_CONNECTIONS,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="http", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Finish answers under way and close."""
        self._server.should_exit = True
        self._thread.join(timeout=5)
        self._socket.close()

    def _serve(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._socket]))
