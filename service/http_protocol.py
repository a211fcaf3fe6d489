"""The HTTP/1.1 connection: a client that sends its request too slowly, or not as HTTP, is let go."""

import asyncio
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.http_guard import HEADERS

REQUEST_S: Final = 10.0
"""Time for a whole request line and headers, from the connection or the request before."""


class PatientProtocol(H11Protocol):
    """uvicorn's connection with a limit of time for the head of each request: it has none of its own.

    uvicorn's idle time-out begins only after an answer, and every byte received puts it off.
    """

    request_s = REQUEST_S

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._be_patient()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Part of a request; while its head is not whole the time runs on."""
        super().data_received(data)
        if self._is_waiting():
            self._be_patient()
        else:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """The next request has its own time."""
        super().on_response_complete()
        if self._is_waiting() and not self.transport.is_closing():
            self._be_patient()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP, or too long: the same headers as any answer."""
        names = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
        head = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close"), *names]
        for event in (
            h11.Response(status_code=400, headers=head, reason=b"Bad Request"),
            h11.Data(data=msg.encode("ascii")),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _is_waiting(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _be_patient(self) -> None:
        if self._patience is None:
            self._patience = self.loop.call_later(self.request_s, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
