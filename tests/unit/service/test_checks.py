"""Checks that need no server: room, clocks, what a broker says of a topic, and what a start makes of it."""

from collections.abc import Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AclOperation

from core.errors import ConfigurationError, TransientError
from service import topics
from service.checks import ROLE_CHECKS, Finding, Level, run, run_checks
from service.checks.clock import judge, measure_offset
from service.checks.disk import check_disk
from service.checks.finding import failed, ok, warning
from service.checks.kafka import GROUPS, _topic, check_groups, wanted_operations
from service.commands import serve
from service.settings import read_settings
from tests.support.service.builders import T0
from tests.support.service.fakes import FakeClock


@pytest.mark.parametrize(
    ("free", "level"), [(9e8, Level.FAILED), (2e9, Level.WARNING), (2e10, Level.OK), (1e9, Level.WARNING)]
)
def test_room_on_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, free: float, level: Level) -> None:
    asked = []

    def usage(path: Any) -> Any:
        asked.append(path)
        return SimpleNamespace(free=int(free))

    monkeypatch.setattr("service.checks.disk.shutil.disk_usage", usage)
    (found,) = check_disk(read_settings({}, state_dir=tmp_path / "not" / "yet"))
    assert (found.level, asked) == (level, [tmp_path])


class Server:
    """A log that tells its time, which is ours but for an offset; each question takes 0.2 s."""

    def __init__(self, clock: FakeClock, offset_s: float | None) -> None:
        self._clock, self._offset_s = clock, offset_s

    def server_time_s(self) -> float | None:
        self._clock.now += 0.1
        now = self._clock.now - 37.0
        self._clock.now += 0.1
        return None if self._offset_s is None else now + self._offset_s


@pytest.mark.parametrize(
    ("offset_s", "level", "says"),
    [
        (0.0, Level.OK, "+0.000 ± 0.100 s"),
        (-0.9, Level.OK, "+0.900"),
        (1.5, Level.FAILED, "start NTP"),
        (37.0, Level.FAILED, "TAI-UTC (37 s)"),
        (-36.5, Level.FAILED, "TAI-UTC (37 s)"),
        (-60.0, Level.FAILED, "start NTP"),
        (None, Level.WARNING, "LogAppendTime"),
    ],
)
def test_clocks(offset_s: float | None, level: Level, says: str) -> None:
    clock = FakeClock(T0)
    found = judge(*measure_offset(Server(clock, offset_s), clock))  # type: ignore[arg-type]
    assert (found.level, says in found.text) == (level, True), found.text


def described(allowed: set[AclOperation] | None, replicas: int = 3) -> Any:
    return SimpleNamespace(authorized_operations=allowed, partitions=[SimpleNamespace(replicas=[0] * replicas)])


def config(size: int = 16 << 20, in_sync: int = 2) -> dict[str, str]:
    return {"max.message.bytes": str(size), "min.insync.replicas": str(in_sync)}


@pytest.mark.parametrize(
    ("topic", "described_", "config_", "level", "says"),
    [
        (topics.ALERTS, described({AclOperation.READ, AclOperation.DESCRIBE}), config(), Level.FAILED, "may not WRITE"),
        (topics.HEARTBEAT, described({AclOperation.DESCRIBE}), config(), Level.FAILED, "may not WRITE"),
        (topics.ALERTS, described(None), config(size=1 << 20), Level.FAILED, "max.message.bytes is 1048576"),
        (topics.RESULTS, described(None), config(size=1 << 20), Level.FAILED, "max.message.bytes is 1048576"),
        (topics.ALERTS, described(None), config(in_sync=4), Level.FAILED, "nothing can be written"),
        (topics.ALERTS, described(None), config(in_sync=1), Level.WARNING, "set 2"),
        (topics.ALERTS, described(None), None, Level.WARNING, "DESCRIBE_CONFIGS"),
    ],
)
def test_what_is_wrong_with_a_topic(topic: str, described_: Any, config_: Any, level: Level, says: str) -> None:
    (found,) = _topic(topic, described_, config_)
    assert (found.level, says in found.text) == (level, True), found.text


def test_a_group_we_may_not_use_is_named() -> None:
    refused: Future[Any] = Future()
    refused.set_exception(KafkaException(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)))
    fine: Future[Any] = Future()
    fine.set_result(None)

    def describe(names: list[str], request_timeout: float) -> dict[str, Any]:
        return {name: refused if name.startswith("sink-files") else fine for name in names}

    log = SimpleNamespace(admin=SimpleNamespace(describe_consumer_groups=describe))
    (found,) = check_groups(log)  # type: ignore[arg-type]
    assert (found.level, "sink-files.alerts: we may not READ" in found.text) == (Level.FAILED, True)


def test_a_coordinator_that_is_loading_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a new cluster's is, at the first question for a group."""
    monkeypatch.setattr("service.checks.kafka.time.sleep", lambda _seconds: None)
    loading: Future[Any] = Future()
    loading.set_exception(KafkaException(KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS)))
    fine: Future[Any] = Future()
    fine.set_result(None)
    asked: list[list[str]] = []

    def describe(names: list[str], request_timeout: float) -> dict[str, Any]:
        asked.append(names)
        return {name: loading if "apdb" in name and len(asked) < 3 else fine for name in names}

    log: Any = SimpleNamespace(admin=SimpleNamespace(describe_consumer_groups=describe))
    assert list(check_groups(log)) == []
    assert [len(names) for names in asked] == [len(GROUPS), 1, 1]
    monkeypatch.setattr("service.checks.kafka.TIMEOUT_S", 0.0)
    asked.clear()
    with pytest.raises(TransientError, match="COORDINATOR_LOAD_IN_PROGRESS"):
        list(check_groups(log))


@pytest.mark.parametrize("allowed", [None, set(wanted_operations(topics.ALERTS)), {AclOperation.ALL}])
def test_a_topic_without_fault(allowed: set[AclOperation] | None) -> None:
    assert list(_topic(topics.ALERTS, described(allowed), config())) == []
    assert list(_topic(topics.STATUS, described(allowed), config(size=1 << 20))) == []


def test_errors_of_ours_are_failures_and_only_transient_ones_can_heal(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(_settings: Any) -> Iterator[Finding]:
        yield ok("disk", "so far")
        raise ConfigurationError("wrong", code="bad_thing")

    def away(_settings: Any) -> Iterator[Finding]:
        raise TransientError("away", code="log_unavailable")
        yield

    def bug(_settings: Any) -> Iterator[Finding]:
        raise ZeroDivisionError
        yield

    monkeypatch.setattr("service.checks.disk.check_disk", wrong)
    monkeypatch.setattr("service.checks.log.check_log", away)
    monkeypatch.setattr("service.checks.schema.check_schema", bug)
    found = [(f.name, f.level, f.text, f.can_heal) for f in run_checks(read_settings({}), ("disk", "log"))]
    assert found == [
        ("disk", Level.OK, "so far", False),
        ("disk", Level.FAILED, "bad_thing: wrong", False),
        ("log", Level.FAILED, "log_unavailable: away", True),
    ]
    with pytest.raises(ZeroDivisionError):
        list(run_checks(read_settings({}), ("schema",)))


def test_every_role_has_checks_that_exist() -> None:
    assert set(ROLE_CHECKS) == set(serve.MODULES)
    assert {name for names in ROLE_CHECKS.values() for name in names} == set(run.CHECKS)


@pytest.mark.parametrize(
    ("found", "starts"),
    [
        ([ok("a", "fine"), warning("b", "hm")], True),
        ([failed("a", "away", can_heal=True)], True),
        ([failed("a", "wrong"), ok("b", "fine")], False),
    ],
)
def test_what_cannot_heal_refuses_to_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], found: list[Finding], starts: bool
) -> None:
    monkeypatch.setattr("service.commands.serve.run_checks", lambda settings, names: iter(found))
    assert serve.may_start(read_settings({}), "worker") is starts
    assert ("sub60: a: wrong" in capsys.readouterr().err) is not starts
