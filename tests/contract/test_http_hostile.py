"""The HTTP server against clients that do not behave, over real sockets of the loopback."""

import http.client
import json
import socket
import time
from collections.abc import Iterator

import pytest
from fastapi import APIRouter

from alerts.schema import SCHEMA_ID
from service import http_server
from service.api_state import ApiState
from service.handlers.alerts import alert_routes
from service.handlers.page import page_routes
from service.handlers.schemas import schema_routes
from service.handlers.visits import visit_routes
from service.http_guard import HEADERS, RateLimit
from service.http_protocol import PatientProtocol
from service.http_server import MAX_HEAD_BYTES, HttpServer


def broken_routes() -> APIRouter:
    router = APIRouter()

    @router.get("/broken")
    async def fail() -> None:
        raise RuntimeError("secret of the inside")

    return router


def serve(limit: RateLimit | None = None) -> HttpServer:
    state = ApiState()
    routes = (visit_routes(state), alert_routes(state), schema_routes(), page_routes(), broken_routes())
    server = HttpServer("127.0.0.1", 0, routes, limit)
    server.start()
    return server


@pytest.fixture(scope="module")
def server() -> Iterator[HttpServer]:
    running = serve()
    yield running
    running.stop()


def ask(server: HttpServer, method: str, path: str, **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def raw(server: HttpServer, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(data)
        received = b""
        try:
            while piece := client.recv(65536):
                received += piece
        except ConnectionResetError:
            pass
        return received


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/summary", 200),
        ("GET", f"/schemas/ids/{SCHEMA_ID}", 200),
        ("GET", "/nowhere", 404),
        ("GET", "/visits/1/detectors/2", 404),
        ("GET", "/%00", 404),
        ("GET", "/..%2f..%2fetc/passwd", 404),
        ("GET", "//host/share", 404),
        ("HEAD", "/summary", 405),
        ("OPTIONS", "/summary", 405),
        ("TRACE", "/summary", 405),
        ("DELETE", "/visits/1/detectors/2", 405),
        ("PUT", "/alerts/1", 405),
        ("GET", "/visits/x/detectors/2", 422),
        ("GET", "/visits/-1/detectors/2", 422),
        ("GET", "/visits/9223372036854775808/detectors/2", 422),
        ("GET", f"/alerts/{'9' * 5000}", 422),
        ("GET", "/alerts/1e3", 422),
        ("GET", "/schemas/ids/99999999999999999999", 422),
        ("GET", "/visits?limit=99999999999999999999", 422),
        ("GET", "/visits?limit=0", 422),
        ("GET", "/alerts/1?format=pickle", 422),
        ("GET", "/broken", 500),
    ],
)
def test_every_answer_has_the_headers_and_nothing_of_the_inside(
    server: HttpServer, method: str, path: str, status: int
) -> None:
    found, headers, body = ask(server, method, path)
    assert found == status
    for name, value in HEADERS.items():
        assert headers.get_all(name) == [value]
    assert headers.get("server") is None
    for word in (b"Traceback", b"secret of the inside", b".py", b"uvicorn", b"RuntimeError"):
        assert word not in body


def test_the_largest_number_is_a_number(server: HttpServer) -> None:
    assert ask(server, "GET", f"/alerts/{2**63 - 1}")[0] == 404


@pytest.mark.parametrize(
    "data",
    [
        b"GET /" + b"a" * (32 * MAX_HEAD_BYTES) + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * MAX_HEAD_BYTES + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0" * 100 + b"\r\n\r\n",
    ],
)
def test_what_is_too_long_or_no_http_is_400_with_the_headers_and_the_end(server: HttpServer, data: bytes) -> None:
    answer = raw(server, data)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"x-frame-options: DENY" in answer
    assert ask(server, "GET", "/summary")[0] == 200


@pytest.mark.parametrize(
    ("target", "header", "status"), [("/" + "a" * 9000, "", 414), ("/?" + "a" * 9000, "", 414), ("/", "a" * 17000, 431)]
)
def test_long_requests_in_one_piece_are_refused_too(server: HttpServer, target: str, header: str, status: int) -> None:
    found, headers, _ = ask(server, "GET", target, Cookie=header)
    assert (found, headers["X-Frame-Options"]) == (status, "DENY")


def test_a_slow_client_is_let_go_and_others_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PatientProtocol, "request_s", 0.5)
    server = serve()
    address = ("127.0.0.1", server.port)
    with socket.create_connection(address, timeout=10) as silent, socket.create_connection(address, timeout=10) as slow:
        begin = time.monotonic()
        slow.sendall(b"GET / HTTP/1.1\r\n")
        is_open = True
        while is_open and time.monotonic() - begin < 8:
            try:
                slow.sendall(b"X: y\r\n")
                time.sleep(0.05)
            except OSError:
                is_open = False
        assert not is_open
        assert silent.recv(1) == b""
        assert time.monotonic() - begin < 5
        assert ask(server, "GET", "/summary")[0] == 200
    server.stop()


def test_a_connection_that_is_kept_serves_again_and_ends_when_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "KEEP_ALIVE_S", 1)
    monkeypatch.setattr(PatientProtocol, "request_s", 1.0)
    server = serve()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    for _ in range(3):
        connection.request("GET", "/summary")
        assert connection.getresponse().read()
        time.sleep(0.4)  # three requests outlast the time of one
    assert connection.sock.recv(1) == b""
    connection.close()
    server.stop()


def test_too_many_connections_are_turned_away_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 3)
    server = serve()
    idle = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(3)]
    time.sleep(0.1)
    assert ask(server, "GET", "/summary")[0] == 503
    for connection in idle:
        connection.close()
    time.sleep(0.1)
    assert ask(server, "GET", "/summary")[0] == 200
    server.stop()


def test_no_header_moves_a_client_from_its_limit() -> None:
    server = serve(RateLimit(0.001, 3.0, time.monotonic))
    spoofs = [
        {},
        {"X-Forwarded-For": "10.0.0.1"},
        {"X-Forwarded-For": "10.0.0.2, 127.0.0.1", "X-Real-IP": "10.0.0.2"},
        {"X-Forwarded-For": "10.0.0.3", "X-Forwarded-Proto": "https"},
        {"Forwarded": "for=10.0.0.4"},
        {"X-Client-IP": "10.0.0.5", "True-Client-IP": "10.0.0.5"},
    ]
    answers = [ask(server, "GET", "/summary", **headers) for headers in spoofs]
    assert [status for status, _, _ in answers] == [200, 200, 200, 429, 429, 429]
    refused = answers[-1]
    assert json.loads(refused[2])["code"] == "too_many_requests"
    assert refused[1].get_all("X-Frame-Options") == ["DENY"]
    server.stop()
