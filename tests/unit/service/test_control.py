"""Orders: what they amount to, who may give them over HTTP, and waiting for them to be obeyed."""

import asyncio
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from service import topics
from service.api_state import ApiState
from service.control import ControlState, read_control, send_order, wait_until_obeyed
from service.handlers.control import ControlDesk, control_routes
from service.http_server import make_app
from service.log.contract import Record
from service.records import Control, Heartbeat, Verb, pack
from service.settings import read_settings, to_environment
from service.supervisor import Supervisor
from tests.support.service.builders import T0
from tests.support.service.fakes import FakeClock
from tests.support.service.memory_log import MemoryLog

TOKEN = "a long secret"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def post(log: MemoryLog, path: str, token: str = TOKEN, *, is_open: bool = True, **request: Any) -> httpx.Response:
    desk = ControlDesk(FakeClock())
    if is_open:
        desk.open(log)

    async def send() -> httpx.Response:
        app = make_app((control_routes(desk, SecretStr(token)),))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://api") as session:
            return await session.post(path, **request)

    return asyncio.run(send())


def test_the_last_order_counts() -> None:
    log = MemoryLog()
    assert read_control(log) == (ControlState(), 0)
    send_order(log, Verb.HOLD, T0, "clouds", "me")
    send_order(log, Verb.HOLD, T0 + 1, "rain", "you")
    state, offset = read_control(log)
    assert (state.is_held, state.reason, state.who, state.since_tai_s, offset) == (True, "rain", "you", T0 + 1, 2)
    send_order(log, Verb.RELEASE, T0 + 2, "", "me")
    assert not read_control(log)[0].is_held


def test_an_order_of_another_version_changes_nothing() -> None:
    log = MemoryLog()
    send_order(log, Verb.HOLD, T0, "clouds", "me")
    log.append([Record(topics.CONTROL, b"alerts", b"from the future")])
    assert read_control(log)[0].is_held


def test_who_has_the_token_holds_and_releases() -> None:
    log = MemoryLog()
    held = post(log, "/control/hold", headers=BEARER, json={"reason": "clouds"})
    assert (held.status_code, held.json()["order"]) == (202, "hold")
    state, _ = read_control(log)
    assert (state.is_held, state.reason, state.who) == (True, "clouds", "http 127.0.0.1")
    assert post(log, "/control/release", headers=BEARER).status_code == 202
    assert not read_control(log)[0].is_held


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer größer".encode()},
    ],
)
def test_who_has_not_changes_nothing(headers: dict[str, Any]) -> None:
    log = MemoryLog()
    refused = post(log, "/control/hold", headers=headers, json={"reason": "clouds"})
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Bearer")
    assert topics.CONTROL not in log.topics


def test_without_a_token_in_the_settings_there_is_nothing() -> None:
    log = MemoryLog()
    for headers in ({}, BEARER, {"Authorization": "Bearer "}):
        assert post(log, "/control/hold", "", headers=headers, json={"reason": "x"}).status_code == 404
    assert topics.CONTROL not in log.topics


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"x" * 4097, 413),
        (b"not json", 422),
        (b'{"reason": ""}', 422),
        (b"", 422),
        (b'{"reason": "x", "until": "tomorrow"}', 422),
        (b'{"reason": "' + b"x" * 501 + b'"}', 422),
    ],
)
def test_bodies_that_are_no_order_are_refused(body: bytes, status: int) -> None:
    log = MemoryLog()
    assert post(log, "/control/hold", headers=BEARER, content=body).status_code == status
    assert topics.CONTROL not in log.topics


def test_a_log_that_is_not_there_yet_is_said_to_be_away() -> None:
    assert post(MemoryLog(), "/control/hold", is_open=False, headers=BEARER, json={"reason": "x"}).status_code == 503


def test_the_api_shows_it() -> None:
    log, state = MemoryLog(), ApiState()
    assert (state.summary()["alerts_held"], state.summary()["hold_reason"]) == (False, "")
    send_order(log, Verb.HOLD, T0, "clouds", "me")
    state.take_record(log.topics[topics.CONTROL][0])
    assert (state.summary()["alerts_held"], state.summary()["hold_reason"]) == (True, "clouds")


class Waiting:
    """A clock that goes on while the command waits, and workers that say what they have read."""

    def __init__(self) -> None:
        self.log, self.clock = MemoryLog(), FakeClock()
        self.seen: list[tuple[int, int]] = []

    def beat(self, worker: str, offset: int) -> None:
        beat = Heartbeat(
            worker=worker,
            at_tai_s=self.clock.tai_s(),
            is_ready=True,
            partitions=(),
            n_waiting=0,
            control_offset=offset,
        )
        self.log.append([Record(topics.STATUS, b"w", pack(beat))])

    def wait(self, *rounds: tuple[tuple[str, int], ...]) -> tuple[list[str], list[str]]:
        """Beats of each round; a round lasts two seconds."""
        left = list(rounds)

        def progress(_name: str, n_done: int, n_all: int) -> None:
            self.seen.append((n_done, n_all))
            self.clock.now += 2.0
            for worker, offset in left.pop(0) if left else ():
                self.beat(worker, offset)

        return wait_until_obeyed(self.log, 1, self.clock, 20.0, progress)  # type: ignore[arg-type]


def test_it_waits_for_every_live_worker_and_not_for_dead_ones() -> None:
    waiting = Waiting()
    waiting.beat("dead", 0)
    waiting.clock.now += 60
    waiting.beat("w0", 0)
    waiting.beat("w1", 0)
    assert waiting.wait((("w0", 1), ("w1", 0)), (("w0", 1), ("w1", 1))) == (["w0", "w1"], [])
    assert waiting.seen == [(0, 2), (1, 2), (2, 2)]


def test_a_worker_that_does_not_obey_is_named_after_the_time_out() -> None:
    waiting = Waiting()
    waiting.beat("w0", 0)
    assert waiting.wait(*[(("w0", 0), ("w1", 1))] * 12) == (["w1"], ["w0"])


def test_without_workers_it_does_not_wait_for_long() -> None:
    waiting = Waiting()
    assert waiting.wait() == ([], [])
    assert waiting.clock.tai_s() - T0 < 12


def test_control_records_survive_the_wire() -> None:
    order = Control(verb=Verb.HOLD, at_tai_s=T0, reason="a", who="b")
    log = MemoryLog()
    send_order(log, order.verb, order.at_tai_s, order.reason, order.who)
    assert log.topics[topics.CONTROL][0].value == pack(order)


def test_only_the_api_process_is_given_the_token() -> None:
    supervisor = Supervisor(settings=read_settings({}, http_token=TOKEN))
    supervisor.plan()
    tokens = {role.name: to_environment(role.settings)["SUB60_HTTP_TOKEN"] for role in supervisor.roles}
    assert {name for name, token in tokens.items() if token} == {"api"}
    assert TOKEN not in repr(supervisor.settings)
