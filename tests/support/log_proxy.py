"""A proxy in front of a Unix-socket server that loses or delays what passes through it."""

import contextlib
import socket
import threading
from pathlib import Path
from typing import Self


class LossyProxy:
    """Listens on a Unix socket and forwards to another, one thread a direction.

    It strikes at the next request that contains a marker. ``lose_reply``: the request reaches the server, its reply is
    lost with the connection. ``lose_request``: the request is lost with the connection. ``delay_request``: the
    connection is lost, and the request reaches the server when :meth:`release` is called.
    """

    def __init__(self, path: Path, server: Path) -> None:
        self.url = f"unix://{path}"
        self._server = str(server)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._mode = ""
        self._marker = b""
        self._held: list[tuple[socket.socket, bytes]] = []
        self._open: list[socket.socket] = []
        self.struck = threading.Event()
        self._server_done = threading.Event()
        self.is_down = False

    def arm(self, mode: str, marker: bytes) -> None:
        """Strike once, at the next request that contains ``marker``."""
        self._mode, self._marker = mode, marker
        self.struck.clear()

    def release(self) -> None:
        """Let delayed requests reach the server, and wait for its answers."""
        for server, data in self._held:
            self._server_done.clear()
            server.sendall(data)
            assert self._server_done.wait(5.0)
        self._held.clear()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        for connection in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.is_down:
                client.close()
                continue
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._server)
            self._open += [client, server]
            lost = threading.Event()
            threading.Thread(target=self._forward, args=(client, server, lost, True), daemon=True).start()
            threading.Thread(target=self._forward, args=(server, client, lost, False), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, lost: threading.Event, is_request: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 20):
                if is_request and self._mode and self._marker in data:
                    mode, self._mode = self._mode, ""
                    lost.set()
                    if mode == "lose_reply":
                        target.sendall(data)
                        self._server_done.wait(5.0)
                    elif mode == "delay_request":
                        self._held.append((target, data))
                    source.shutdown(socket.SHUT_RDWR)
                    self.struck.set()
                    return
                if not is_request and lost.is_set():
                    self._server_done.set()
                    return
                target.sendall(data)
        if not lost.is_set():
            for connection in (source, target):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
