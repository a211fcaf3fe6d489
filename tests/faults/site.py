"""A whole site for tests of faults: real servers, all roles as processes, real pixels of a small camera."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.request import urlopen

import psutil
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.service_process import ServiceProcess
from service.embedded import EmbeddedValkey, cache_settings
from service.log import LogUnavailable, Record, open_log
from service.settings import Settings, to_environment
from service.storage.apdb import create_apdb
from tests.faults.ledger import Ledger
from tests.faults.night import Night
from tests.faults.releases import Releases
from tests.faults.servers import KafkaServer, LogServer, RedisServer
from tests.faults.volume import Volume
from tests.support.postgres import PostgresServer
from tests.support.service.datasets import borrow

WORKERS: Final = 2
PARTITIONS: Final = 4
"""Two a worker: with two workers more, each has one, so partitions move."""
CACHE_MEMORY_MB: Final = 512
PUBLISH_S: Final = 30.0
READY_S: Final = 300.0


class Site:
    """Everything a survey runs, in one folder; :attr:`ledger` tells what came out of it."""

    def __init__(
        self,
        folder: Path,
        dataset: Path,
        jars: Path | None = None,
        *,
        log_memory_mb: int = 1024,
        has_small_disks: bool = True,
        older: Path | None = None,
        **settings: Any,
    ) -> None:
        self.folder = folder
        self._stack = contextlib.ExitStack()
        self.rows: dict[tuple[int, int], set[int]] = {}
        """(simulated visit, detector) → rows of the detection list that became alerts the first time."""
        with contextlib.ExitStack() as stack:
            self.log_disk = Volume(folder / "log" if jars is None else folder / "kafka" / "data")
            stack.callback(self.log_disk.close)
            if has_small_disks:  # a long night needs larger ones
                self.log_disk.mount()
            self.log_server: LogServer = (
                RedisServer(folder / "log", log_memory_mb) if jars is None else KafkaServer(folder / "kafka", jars)
            )
            stack.callback(self.log_server.close)
            self.cache = stack.enter_context(EmbeddedValkey(folder / "cache", cache_settings(CACHE_MEMORY_MB)))
            self.postgres = stack.enter_context(PostgresServer(folder / "postgres"))
            create_apdb(self.postgres.url, folder / "apdb.yaml")
            self.night = Night(borrow(dataset, folder / "dataset"))
            self.service = ServiceProcess(folder / "run", self.night.dataset)
            self.service.prepare()
            self.files_disk = Volume(self.service.state_dir / "alerts")
            stack.callback(self.files_disk.close)
            if has_small_disks:
                self.files_disk.mount()
            self.failpoints = folder / "failpoints"
            self.failpoints.mkdir()
            self.settings: Settings = self.service.settings(**(self._places() | settings))
            self.releases = Releases(folder, older)
            self.service.start(self.settings, self.releases.environment)
            stack.callback(self.service.stop)
            self.wait_ready()
            release = json.loads((dataset / "dataset.json").read_text())["release"]
            self.ledger = Ledger(self.log_server.direct_url, release)
            stack.callback(self.ledger.close)
            self.producer = open_log(self.log_server.direct_url).producer()
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Stop all of it."""
        self._stack.close()

    def _places(self) -> dict[str, Any]:
        return {
            "log_url": self.log_server.url,
            "cache_url": self.cache.url,
            "apdb_config": str(self.folder / "apdb.yaml"),
            "workers": WORKERS,
            "partitions": PARTITIONS,
            "failpoints": str(self.failpoints),
            "alert_files_s": 1.0,
            "http_rate_per_s": 0.0,
        }

    # what goes in

    def publish(self, topic: str, value: bytes) -> None:
        """One event from outside; a log that does not take it is tried again, as an observatory would."""
        give_up_s = time.monotonic() + PUBLISH_S
        while True:
            try:
                self.producer.append([Record(topic, b"fault", value)])
                return
            except LogUnavailable:
                if time.monotonic() > give_up_s:
                    raise
                time.sleep(0.2)

    def command(self, *words: str) -> str:
        """What an operator's command prints, run with the settings of this site."""
        done = subprocess.run(
            [sys.executable, "-m", "service.cli", *words],
            env=to_environment(self.settings),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"sub60 {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    # its processes

    @property
    def pids(self) -> dict[str, int]:
        """Role → process id."""
        found: dict[str, int] = self.service.endpoints().get("pids", {})
        return found

    def child_pid(self, worker: str) -> int:
        """Process id of a worker's compute child."""
        (child,) = psutil.Process(self.pids[worker]).children()
        return child.pid

    def kill(self, role: str, number: int = signal.SIGKILL) -> int:
        """A signal to a role's process; its id."""
        pid = self.pids[role]
        os.kill(pid, number)
        return pid

    def roll(self, *roles: str) -> None:
        """Drain roles, all at once; each comes back from the release that is in use by then."""
        old = {role: self.kill(role, signal.SIGTERM) for role in roles}
        self.wait_for(
            lambda: all(self.pids.get(role, pid) != pid for role, pid in old.items()), READY_S, f"{roles} are back"
        )
        self.wait_ready()

    def wait_ready(self) -> None:
        """Until every role says that it is ready."""
        self.wait_for(self.is_ready, READY_S, "all roles are ready")

    def is_ready(self) -> bool:
        """Ask each role."""
        self.service.check()
        found = self.service.endpoints()
        if not found or len(found["pids"]) < len(found["http"]):
            return False
        return all(_answers(f"{url}/readyz") for url in found["http"].values())

    def metric(self, name: str, **labels: str) -> float:
        """Sum over all roles that answer; a role that was restarted counts from zero again."""
        total = 0.0
        for url in self.service.endpoints().get("http", {}).values():
            with contextlib.suppress(URLError, OSError), urlopen(f"{url}/metrics", timeout=5) as answer:
                for family in text_string_to_metric_families(answer.read().decode()):
                    for sample in family.samples:
                        if sample.name == name and labels.items() <= sample.labels.items():
                            total += sample.value
        return total

    def n_logged(self, event: str) -> int:
        """Lines of the service's log with this event."""
        return sum(line.get("event") == event for line in self._lines())

    def _lines(self) -> Iterator[dict[str, Any]]:
        for line in self.service.log_file.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                value = json.loads(line)
                if isinstance(value, dict):
                    yield value

    @staticmethod
    def wait_for(condition: Callable[[], bool], timeout_s: float, what: str) -> float:
        """Seconds it took until a condition held."""
        started_s = time.monotonic()
        while not condition():
            if time.monotonic() - started_s > timeout_s:
                raise AssertionError(f"not within {timeout_s:g} s: {what}")
            time.sleep(0.05)
        return time.monotonic() - started_s


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False
