"""The sink of alert files while its disk takes nothing, and while the schema changes."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from alerts.codec import FRAME
from alerts.schema import SCHEMA_ID
from core.errors import TransientError
from service.log.contract import Message
from service.metrics import Metrics
from service.roles.archive import FileSink
from tests.support.service.builders import T0
from tests.support.service.fakes import FakeClock


class Alerts:
    """A topic that never runs dry."""

    def __init__(self, *schemas: int) -> None:
        self.schemas = schemas or (SCHEMA_ID,)
        self.n_read = 0
        self.stored: dict[int, int] = {}

    def reader(self, topic: str, *, name: str | None = None, start: str = "earliest") -> "Alerts":
        return self

    def poll(self, timeout_s: float, max_messages: int = 500) -> list[Message]:
        self.n_read += 10
        first = self.n_read - 10
        return [
            Message("alerts", 0, first + i, b"k", FRAME.pack(0, self.schemas[i % len(self.schemas)]), {}, 0)
            for i in range(10)
        ]

    def commit(self, offsets: Mapping[int, int]) -> None:
        self.stored |= offsets

    def committed(self) -> dict[int, int]:
        return self.stored

    def bounds(self) -> dict[int, tuple[int, int]]:
        return {0: (0, self.n_read)}


def test_no_more_is_read_while_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    is_full = True

    def write(path: Path, values: list[bytes]) -> None:
        if is_full:
            raise OSError("No space left on device")
        written.append(len(values))

    monkeypatch.setattr("service.roles.archive.write_alerts", write)
    alerts, clock = Alerts(), FakeClock(T0)
    sink = FileSink(alerts, tmp_path, 1.0, clock, Metrics(CollectorRegistry()))  # type: ignore[arg-type]
    sink.turn()
    clock.now += 2.0
    for _ in range(100):
        with pytest.raises(TransientError, match="cannot be written"):
            sink.turn()
    assert (alerts.n_read, alerts.stored) == (10, {})
    is_full = False
    sink.turn()
    assert (written, alerts.stored) == ([10], {0: 10})
    sink.turn()
    assert alerts.n_read == 20


def test_alerts_of_an_older_minor_version_have_files_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[str, int]] = []
    monkeypatch.setattr(
        "service.roles.archive.write_alerts", lambda path, values: written.append((path.name, len(values)))
    )
    alerts, clock = Alerts(SCHEMA_ID - 1, SCHEMA_ID - 1, *[SCHEMA_ID] * 8), FakeClock(T0)
    sink = FileSink(alerts, tmp_path, 1.0, clock, Metrics(CollectorRegistry()))  # type: ignore[arg-type]
    sink.turn()
    clock.now += 2.0
    sink.turn()
    assert written == [("alerts-000-000000000000000.avro", 2), ("alerts-000-000000000000002.avro", 8)]
    assert alerts.stored == {0: 10}


def test_alerts_of_a_schema_we_do_not_have_wait(tmp_path: Path) -> None:
    alerts, clock = Alerts(SCHEMA_ID + 1), FakeClock(T0)
    sink = FileSink(alerts, tmp_path, 1.0, clock, Metrics(CollectorRegistry()))  # type: ignore[arg-type]
    sink.turn()
    clock.now += 2.0
    for _ in range(3):
        with pytest.raises(TransientError, match="cannot file"):
            sink.turn()
    assert (alerts.n_read, alerts.stored, list(tmp_path.iterdir())) == (10, {}, [])
