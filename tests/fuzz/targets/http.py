"""Requests to the HTTP API, in process: by its OpenAPI document and against it.

An input is JSON: ``{"case": …}`` a request that schemathesis made of one operation, ``{"raw": …}`` one that no client
would send.
"""

import asyncio
import contextlib
import json
from pathlib import Path
from random import Random
from typing import Any, Final
from urllib.parse import unquote

import hypothesis
import schemathesis
from hypothesis import strategies as st
from schemathesis.core import NOT_SET
from schemathesis.core.failures import FailureGroup

from service.http_guard import HEADERS
from tests.fuzz.filled_api import filled_app
from tests.fuzz.mutate import TEXTS, spoil_bytes
from tests.fuzz.target import Session, Target

PER_OPERATION: Final = 40
"""Requests of an operation in a round: by the document, and against it; raw ones follow."""
VARIANTS: Final = 4
PARTS: Final = (
    "alerts", "visits", "detectors", "schemas", "ids", "subjects", "versions", "latest", "1101", "12", "1000",
    "summary", "latency", "deadletters", "healthz", "readyz", "metrics", "openapi.json", "docs", "..", ".", "",
    "%2e%2e", "%00", "%ff", "alert-packet", "alerts-value", "2026052800001", "0", "-1", "9" * 30, "1" * 5000, "+1",
    "1_0", "0x10", "1e3", " 1", "\u0661", "nan", "x" * 3000,
)  # fmt: skip
NAMES: Final = ("limit", "format", "page", "", "limit[]", "__proto__")
VALUES: Final = (
    "1",
    "0",
    "-1",
    "2000",
    "2001",
    "avro",
    "json",
    "Avro",
    "nan",
    "1.0",
    "9" * 5000,
    "%00",
    "%ff",
    "a&b",
    "=",
    "",
)
METHODS: Final = (
    "GET",
    "GET",
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "OPTIONS",
    "PATCH",
    "TRACE",
    "CONNECT",
    "get",
    "X" * 99,
    "",
)

texts = st.one_of(st.sampled_from(PARTS), st.sampled_from([t for t in TEXTS if t.isprintable()]), st.text(max_size=20))
free_paths = st.lists(texts, max_size=6).map(lambda parts: "/" + "/".join(parts))
ROUTES: Final = (
    "/", "/alerts", "/alerts/{}", "/visits", "/visits/{}/detectors/{}", "/deadletters", "/summary", "/latency",
    "/metrics", "/schemas/ids/{}", "/subjects", "/subjects/{}/versions", "/subjects/{}/versions/{}", "/subjects/{}",
    "/healthz",
)  # fmt: skip
route_paths = st.builds(lambda route, a, b: route.format(a, b), st.sampled_from(ROUTES), texts, texts)
paths = st.one_of(route_paths, route_paths, free_paths)
pairs = st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES) | st.text(max_size=20)).map("=".join)
header_values = st.binary(max_size=40) | st.sampled_from(
    (b"*/*", b"application/json", b"-1", b"chunked", b"a" * 20_000)
)
header_names = st.sampled_from(
    (
        "accept",
        "content-type",
        "content-length",
        "host",
        "x-forwarded-for",
        "range",
        "origin",
        "cookie",
        "expect",
        "x" * 500,
    )
)
raw_requests = st.fixed_dictionaries(
    {
        "method": st.sampled_from(METHODS),
        "path": paths,
        "query": st.lists(pairs, max_size=4).map("&".join),
        "headers": st.lists(st.tuples(header_names, header_values.map(lambda v: v.decode("latin-1"))), max_size=4),
        "body": st.sampled_from(("", "{}", '{"schema": "x"}', "[" * 2000, "\x00\xff" * 100)),
    }
)


class OverError(BaseException):
    """The time is up; no ``Exception``, so that hypothesis lets it pass."""


class Http(Target):
    """No answer of 500 or more; what is answered is what the document says, with the guard's headers."""

    def __init__(self, scratch: Path) -> None:
        self._app = filled_app()
        self._schema = schemathesis.openapi.from_asgi("/openapi.json", self._app)
        self._operations = [found.ok() for found in self._schema.get_all_operations()]
        self._made: dict[bytes, schemathesis.Case] = {}
        self._loop = asyncio.new_event_loop()

    def drive(self, session: Session) -> None:
        """Rounds of requests, each with another seed."""
        modes = schemathesis.GenerationMode
        strategies = {
            operation.label: [operation.as_strategy(generation_mode=mode) for mode in (modes.POSITIVE, modes.NEGATIVE)]
            for operation in self._operations
        }
        with contextlib.suppress(OverError):
            self._rounds_of(session, strategies)

    def _rounds_of(self, session: Session, strategies: dict[str, list[Any]]) -> None:
        while True:
            for operation in self._operations:
                for strategy in strategies[operation.label]:
                    self._round(session, strategy, self._case_bytes, PER_OPERATION)
                self._round(session, raw_requests, lambda made: raw_inputs(made, session.random), 2 * PER_OPERATION)

    def check(self, data: bytes) -> str:
        """See the module."""
        content = json.loads(data)
        if "raw" in content:
            return self._check_raw(content["raw"])
        case = self._made.pop(data, None) or self._rebuilt(content["case"])
        response = case.call()
        try:
            case.validate_response(response)
        except FailureGroup as group:
            failures = "; ".join(f"{type(e).__name__} {getattr(e, 'title', '')}" for e in group.exceptions)
            raise AssertionError(f"{failures}: {response.status_code} {case.method} {case.path}") from group
        return f"status_{response.status_code}" if response.status_code >= 300 else "accepted"

    def _round(self, session: Session, strategy: Any, to_bytes: Any, n: int) -> None:
        """``n`` examples of a strategy; hypothesis only makes them, it neither keeps nor shrinks any."""

        @hypothesis.seed(session.random.getrandbits(64))
        @hypothesis.settings(
            max_examples=n, database=None, deadline=None, suppress_health_check=list(hypothesis.HealthCheck),
            phases=[hypothesis.Phase.generate],
        )  # fmt: skip
        @hypothesis.given(strategy)
        def tried(made: Any) -> None:
            if session.is_over():
                raise OverError
            for data in to_bytes(made):
                session.attempt(data)

        # nothing breaks the rules of an operation without parameters
        with contextlib.suppress(hypothesis.errors.Unsatisfiable):
            tried()

    def _case_bytes(self, case: schemathesis.Case) -> list[bytes]:
        content = {
            "method": case.method, "path": case.path, "path_parameters": case.path_parameters, "query": case.query,
            "headers": dict(case.headers or {}), "cookies": case.cookies, "media_type": case.media_type,
        }  # fmt: skip
        if case.body is not NOT_SET:
            content["body"] = case.body
        data = json.dumps({"case": content}, default=str).encode()
        self._made[data] = case
        return [data]

    def _rebuilt(self, content: dict[str, Any]) -> schemathesis.Case:
        operation = next(o for o in self._operations if o.path == content["path"])
        arguments = {name: content[name] for name in ("path_parameters", "query", "headers", "cookies", "media_type")}
        return operation.Case(method=content["method"], body=content.get("body", NOT_SET), **arguments)

    def _check_raw(self, request: dict[str, Any]) -> str:
        status, headers, body = self._loop.run_until_complete(ask(self._app, request))
        assert status < 500, f"answered {status}"
        for name, value in HEADERS.items():
            assert headers.get(name.lower()) == value, f"without the header {name}"
        if headers.get("content-type", "").startswith("application/json") and body:
            json.loads(body, parse_constant=no_constant)
        if status == 405:
            assert headers.get("allow"), "405 without Allow"
        return f"status_{status}" if status >= 300 else "accepted"


def raw_inputs(request: dict[str, Any], random: Random) -> list[bytes]:
    """A raw request as an input, and the same with its texts broken: hypothesis takes ten times as long for one."""
    requests = [request]
    for _ in range(VARIANTS):
        name = random.choice(("path", "query", "body", "method"))
        broken = spoil_bytes(request[name].encode("utf-8", "surrogatepass"), random).decode("latin-1")
        requests.append(request | {name: broken})
    return [json.dumps({"raw": made}).encode() for made in requests]


def no_constant(name: str) -> None:
    """NaN and infinity are no JSON."""
    raise AssertionError(f"an answer holds {name}")


async def ask(app: Any, request: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
    """What an ASGI server would make of a request's bytes, and the application's answer."""
    raw_path = request["path"].encode("utf-8", "surrogatepass")
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": request["method"],
        "scheme": "http",
        "path": unquote(raw_path.decode("latin-1")), "raw_path": raw_path, "root_path": "",
        "query_string": request["query"].encode("utf-8", "surrogatepass"),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in request["headers"]],
        "client": ("10.0.0.1", 1), "server": ("api", 80),
    }  # fmt: skip
    said: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": request["body"].encode("latin-1"), "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    await app(scope, receive, send)
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in said[0]["headers"]}
    return said[0]["status"], headers, b"".join(message.get("body", b"") for message in said[1:])
