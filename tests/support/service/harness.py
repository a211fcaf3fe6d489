"""The service in the test's own process: fan-out, worker and archive turned by hand, real servers, a real child."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from prometheus_client import CollectorRegistry

from core.camera import load_camera
from service import topics
from service.bundle_loader import BundleLoader
from service.clock import SystemClock
from service.embedded import EmbeddedServers, embedded_servers
from service.health import Health
from service.log import Record
from service.metrics import Metrics
from service.records import Committed, DeadLetter, Manifest, unpack
from service.roles.alert_switch import AlertSwitch
from service.roles.fanout import FanOut
from service.roles.prefetch import GROUP as PREFETCH_GROUP
from service.roles.prefetch import Prefetch
from service.roles.run_fanout import InputLoop
from service.roles.run_worker import GROUP, make_worker
from service.roles.runner import Process, open_topics
from service.roles.worker import Worker
from service.settings import Settings, read_settings

FAKE = "tests.support.service.fake_compute:build"


class Service:
    """All of it but HTTP; :meth:`pump` turns the wheels until a condition holds."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self._servers = embedded_servers(folder / "servers")
        self._folder = folder
        self._changes = settings

    def __enter__(self) -> Self:
        self.servers: EmbeddedServers = self._servers.__enter__()
        defaults = {
            "log_url": self.servers.log.url,
            "cache_url": self.servers.cache.url,
            "state_dir": self._folder / "state",
            "partitions": 2,
            "prefetch_wait_s": 0.0,
            "raw_wait_s": 0.2,
        }
        self.settings: Settings = read_settings({}, **(defaults | self._changes))
        self.process = self._process("worker")
        self.log = open_topics(self.process)
        self.producer = self.log.producer()
        camera = load_camera(json.loads((self.settings.dataset / "dataset.json").read_text())["camera"])
        self.fan_out = FanOut(
            camera, self.settings.partitions, (self.settings.dataset,), self.process.clock, self.process.metrics
        )
        self._inputs = [InputLoop(self.log, topic, self.fan_out, poll_s=0) for topic in topics.INPUTS]
        member = self.log.join(GROUP, topics.WORK, 0)
        switch = AlertSwitch(self.log.reader(topics.CONTROL), self.process.metrics)
        self.worker: Worker = make_worker(self.process, self.log.producer(), lambda: member, switch)
        self._readers = {topic: self.log.reader(topic) for topic in topics.ALL}
        self._seen: dict[str, list[Any]] = {topic: [] for topic in topics.ALL}
        self._others: list[Callable[[], None]] = []
        self._members: list[Any] = [member]
        self.apdb: Any = None
        self.apdb_count: Callable[[], float] = lambda: 0.0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.worker.stop()
        for member in self._members:
            member.close()
        self.log.close()
        self._servers.__exit__(kind, error, trace)

    def add(self, turn: Callable[[], None]) -> None:
        """Turn something else too."""
        self._others.append(turn)

    def add_prefetch(self) -> Prefetch:
        """A prefetch role beside the rest."""
        member = self.log.join(PREFETCH_GROUP, topics.WORK, 0)
        self._members.append(member)
        process = self._process("prefetch")
        prefetch = Prefetch(member, BundleLoader.open(self.settings), process.clock, process.metrics, 120.0)
        self.prefetch_registry = process.registry
        self.add(prefetch.turn)
        return prefetch

    def publish(self, topic: str, event: dict[str, Any] | bytes) -> None:
        """Put an event on an input topic."""
        value = event if isinstance(event, bytes) else json.dumps(event).encode()
        self.producer.append([Record(topic, b"test", value)])

    def pump(self, is_done: Callable[[], bool], timeout_s: float = 120.0) -> None:
        """Go round until the condition holds."""
        until = time.monotonic() + timeout_s
        while not is_done():
            if time.monotonic() > until:
                raise AssertionError(f"not in {timeout_s:g} s: {self.describe()}")
            for loop in self._inputs:
                loop.turn()
            self.worker.turn()
            for turn in self._others:
                turn()

    def pump_manifests(self, n: int, timeout_s: float = 120.0) -> list[Manifest]:
        """Go round until there are so many manifests."""
        self.pump(lambda: len(self.manifests()) >= n, timeout_s)
        return self.manifests()

    def read(self, topic: str) -> list[Any]:
        """All messages of a topic so far."""
        self._seen[topic] += self._readers[topic].poll(0)
        return self._seen[topic]

    def manifests(self) -> list[Manifest]:
        """Of all commits so far."""
        return [unpack(Manifest, message.value) for message in self.read(topics.MANIFESTS)]

    def committed(self) -> list[Committed]:
        """Committed records so far."""
        return [unpack(Committed, message.value) for message in self.read(topics.COMMITTED)]

    def dead_letters(self) -> list[DeadLetter]:
        """Dead letters so far."""
        return [unpack(DeadLetter, message.value) for message in self.read(topics.DEAD_LETTERS)]

    def sample(self, name: str, **labels: str) -> float:
        """A metric of fan-out or worker."""
        return self.process.registry.get_sample_value(name, labels) or 0.0

    def describe(self) -> str:
        """Where things stand, for a failing test."""
        outcomes = [(m.visit, m.detector, m.outcome.value, m.code, m.message) for m in self.manifests()]
        return f"manifests {outcomes}, dead letters {[(d.code, d.message) for d in self.dead_letters()]}"

    def _process(self, role: str) -> Process:
        registry, clock = CollectorRegistry(), SystemClock()
        return Process(
            role=role,
            settings=self.settings,
            clock=clock,
            registry=registry,
            metrics=Metrics(registry),
            health=Health(clock),
            stopping=threading.Event(),
        )


def write_empty_dataset(folder: Path, camera: str = "lsstcam") -> Path:
    """A dataset without files: enough for fan-out and a made-up compute."""
    folder.mkdir(parents=True, exist_ok=True)
    instrument = load_camera(camera).instrument
    content = {"format": 1, "instrument": instrument, "camera": camera, "tracts": [], "release": 1}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder
