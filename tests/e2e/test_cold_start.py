"""The first visit of a night on machines that hold nothing yet: a dataset, an APDB, an empty log, an empty cache."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.service_process import ServiceProcess
from core.errors import Outcome
from service import topics
from service.embedded import embedded_servers
from service.log import Record, open_log
from service.records import Committed, Manifest, unpack
from service.settings import Settings, to_environment
from service.storage.cache import connect
from service.storage.history import BASE_TTL_S
from tests.support.service.datasets import borrow, events, make_testcam, moved_to_now

DETECTORS = 2
LEAD_S = 60.0
READY_S = 500.0


class Night:
    """A service before its first visit, with the commands that the runbook gives for that moment, timed."""

    def __init__(self, service: ServiceProcess, settings: Settings) -> None:
        self.service, self.settings = service, settings
        self.times_s: dict[str, float] = {}
        self.said: dict[str, str] = {}

    def command(self, *words: str) -> None:
        """What an operator types; it must succeed."""
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "service.cli", *words],
            env=to_environment(self.settings),
            capture_output=True,
            text=True,
            check=False,
        )
        self.times_s[f"sub60 {words[0]}"] = time.monotonic() - started
        self.said[words[0]] = done.stdout
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"

    def start(self) -> None:
        """All roles, until they are ready."""
        started = time.monotonic()
        self.service.start(self.settings)
        self.service.wait_ready(lambda _: None, READY_S)
        self.times_s["sub60 serve, until ready"] = time.monotonic() - started

    def first_visit(self) -> tuple[list[Manifest], list[Committed]]:
        """Announced, its bundles waited for, read out."""
        announced = events(self.settings.dataset, "next-visit")[0]
        readouts = [e for e in events(self.settings.dataset, "readout") if e["group"] == announced["groupId"]]
        with open_log(self.settings.log_url) as log:
            producer = log.producer()
            started = time.monotonic()
            self._send(producer, topics.NEXT_VISIT, moved_to_now(announced) | {"visit": readouts[0]["visit"]})
            self._wait(lambda: self.n_prepared() == DETECTORS, "both bundles are prepared")
            self.times_s["next-visit to both bundles in the cache"] = time.monotonic() - started
            for readout in readouts:
                self._send(producer, topics.READOUT, moved_to_now(readout))
            manifests = _read(log.reader(topics.MANIFESTS), Manifest)
            committed = _read(log.reader(topics.COMMITTED), Committed)
        self.times_s["first alert, from the end of the readout"] = min(c.latency_s for c in committed)
        self.times_s["last alert, from the end of the readout"] = max(c.latency_s for c in committed)
        return manifests, committed

    def n_prepared(self) -> float:
        """Bundles that prefetch has left in the cache."""
        with urlopen(f"{self.service.endpoints()['http']['prefetch']}/metrics", timeout=5) as answer:
            families = text_string_to_metric_families(answer.read().decode())
            samples = [sample for family in families for sample in family.samples]
        return sum(s.value for s in samples if s.name == "sub60_prepares_total" and s.labels["state"] == "prefetched")

    def base_lives_s(self) -> list[int]:
        """How long the history of each sky cell stays in the cache; what the APDB is asked for later stays an hour."""
        client = connect(self.settings.cache_url, 2.0)
        return [client.ttl(key) for key in client.scan_iter("sub60:history:base:*", count=1000)]

    @staticmethod
    def _send(producer: Any, topic: str, event: dict[str, Any]) -> None:
        producer.append([Record(topic, b"night", json.dumps(event).encode())])

    @staticmethod
    def _wait(condition: Any, what: str) -> None:
        until = time.monotonic() + LEAD_S
        while not condition():
            assert time.monotonic() < until, what
            time.sleep(0.05)


def _read(reader: Any, kind: Any) -> list[Any]:
    """The first records of a topic, one a detector."""
    found: list[Any] = []
    until = time.monotonic() + LEAD_S
    while len(found) < DETECTORS and time.monotonic() < until:
        found += [unpack(kind, message.value) for message in reader.poll(0.2)]
    reader.close()
    return found


@pytest.fixture
def night(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Night]:
    dataset = borrow(make_testcam(request.config.cache.mkdir("testcam") / "dataset"), tmp_path / "dataset")
    service = ServiceProcess(tmp_path / "run", dataset)
    service.prepare()
    with embedded_servers(tmp_path / "servers") as servers:
        settings = service.settings(
            log_url=servers.log.url, cache_url=servers.cache.url, workers=1, partitions=DETECTORS
        )
        yield Night(service, settings)
        service.stop()


@pytest.mark.timeout(900)
def test_no_part_of_the_first_visit_is_cold(night: Night, request: pytest.FixtureRequest) -> None:
    schedule = night.settings.state_dir / "tonight.jsonl"
    nexts = events(night.settings.dataset, "next-visit")
    schedule.write_text("".join(json.dumps(event) + "\n" for event in nexts))
    night.command("compile")
    night.command("topics", "create")
    night.command("check")
    night.command("warm", "--schedule", str(schedule), "--radius", "0.2")
    lives_s = night.base_lives_s()
    night.start()
    manifests, _ = night.first_visit()
    found = night.settings.state_dir / "ids.txt"
    night.command("recall", "--kind", "calibrations", "--ids", str(found))
    terminal = request.config.get_terminal_writer()
    terminal.line()
    for what, seconds in night.times_s.items():
        terminal.line(f"{what:45} {seconds:7.2f} s")
    assert "failed" not in night.said["check"]
    assert lives_s, "sub60 warm left nothing in the cache"
    assert min(night.base_lives_s()) > BASE_TTL_S, "the APDB was asked once more"
    assert len(night.base_lives_s()) == len(lives_s)
    assert [m.outcome for m in manifests] == [Outcome.ALERTS] * DETECTORS
    sources = {(kind, source) for m in manifests for kind, source, _, _ in m.bundle}
    assert {kind for kind, _ in sources} >= {"calibrations", "template", "reference_stars", "history"}
    assert not [kind for kind, source in sources if source == "cold"], sources
    with open_log(night.settings.log_url) as log:
        on_topic = sorted(int(message.key) for message in log.reader(topics.ALERTS).poll(1.0))
    assert [int(line) for line in found.read_text().splitlines()] == on_topic
    assert len(on_topic) == sum(m.n_alerts for m in manifests) > 0
