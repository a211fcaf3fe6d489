"""Headers and the limit of requests, before any route."""

import asyncio

import httpx
from fastapi import APIRouter

from service.http_guard import MAX_CLIENTS, RateLimit
from service.http_server import make_app
from tests.support.service.fakes import FakeClock


def routes() -> APIRouter:
    router = APIRouter()

    @router.get("/visits")
    @router.get("/healthz")
    async def answer() -> dict[str, int]:
        return {"n": 1}

    return router


def ask(limit: RateLimit | None, path: str, client: str = "10.0.0.1") -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=make_app((routes(),), limit), client=(client, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as session:
            return await session.get(path)

    return asyncio.run(send())


def test_every_answer_carries_the_headers() -> None:
    for path, status in (("/visits", 200), ("/nowhere", 404)):
        answer = ask(None, path)
        assert answer.status_code == status
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_client_above_its_limit_waits_and_others_do_not() -> None:
    clock = FakeClock()
    limit = RateLimit(2.0, 3.0, clock.monotonic_s)
    assert [ask(limit, "/visits").status_code for _ in range(4)] == [200, 200, 200, 429]
    refused = ask(limit, "/visits")
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["code"] == "too_many_requests"
    assert refused.headers["x-frame-options"] == "DENY"
    assert ask(limit, "/visits", client="10.0.0.2").status_code == 200
    clock.now += 0.5
    assert [ask(limit, "/visits").status_code for _ in range(2)] == [200, 429]


def test_a_rate_of_less_than_one_request_in_a_burst_still_lets_one_through() -> None:
    clock = FakeClock()
    limit = RateLimit(0.1, 0.4, clock.monotonic_s)
    assert [ask(limit, "/visits").status_code for _ in range(2)] == [200, 429]
    clock.now += 11
    assert ask(limit, "/visits").status_code == 200


def test_probes_are_never_turned_away() -> None:
    limit = RateLimit(1.0, 1.0, FakeClock().monotonic_s)
    assert [ask(limit, "/healthz").status_code for _ in range(5)] == [200] * 5


def test_clients_are_forgotten_longest_unseen_first() -> None:
    limit = RateLimit(1.0, 1.0, FakeClock().monotonic_s)
    assert limit.wait_s("first") == 0
    assert limit.wait_s("first") > 0
    for number in range(MAX_CLIENTS):
        limit.wait_s(str(number))
    assert limit.wait_s("first") == 0
