"""A server that is away: every failed call is counted, few are logged."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from core.errors import TransientError
from service.log import LogUnavailable
from service.metrics import Metrics
from service.roles import outage
from service.roles.outage import Outage, root_cause
from tests.support.service.builders import T0
from tests.support.service.fakes import FakeClock


def test_named_once_and_every_ten_seconds_and_when_it_is_back() -> None:
    registry, clock = CollectorRegistry(), FakeClock(T0)
    watched = Outage(clock, Metrics(registry), loop="readout")
    with capture_logs() as lines:
        watched.worked()
        for _ in range(160):
            watched.failed(LogUnavailable("cannot read"))
            clock.now += 0.125
        watched.failed(TransientError("another thing", code="disk_full"))
        watched.worked()  # so soon it may have found nothing only
        clock.now += 3.0
        watched.worked()
        watched.worked()
    assert registry.get_sample_value("sub60_log_errors_total") == 161
    said: list[tuple[Any, ...]] = [(x["event"], x["code"], x["n_failed"], x["loop"]) for x in lines]
    assert said == [
        ("transient_error", "log_unavailable", 1, "readout"),
        ("transient_error", "log_unavailable", 81, "readout"),
        ("transient_error", "disk_full", 161, "readout"),
        ("recovered", "disk_full", 161, "readout"),
    ]
    assert lines[-1]["away_s"] == 20.0


def test_the_first_cause_is_told_and_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "MAX_CAUSE", 30)
    error = LogUnavailable("cannot read")
    error.__cause__ = OSError("x" * 100)
    assert root_cause(error) == "OSError: " + "x" * 21
