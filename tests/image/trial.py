"""The built root used as an engine would use it: user 10001 without capabilities, everything read-only but the volumes
and /tmp, no network but loopback, ``sub60`` as process 1.
"""

import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from fastavro import reader

from tests.image.build import Built, mount
from tests.image.dockerfile import DockerfileError, Stage

DEVICES: Final = ("null", "zero", "random", "urandom", "full")
READY_S: Final = 180.0
ALERTS_S: Final = 90.0
STOP_S: Final = 30.0
PACKAGED: Final = """
from importlib.resources import files
from alerts.schema import alert_schema
from core.camera import load_camera
assert len(load_camera("lsstcam").detectors) == 189
assert len(load_camera("testcam").detectors) >= 1
assert alert_schema()
assert (files("service") / "web" / "index.html").read_text()
assert list((files("core") / "data").iterdir())
import psycopg2
"""
READ_ONLY: Final = """
import os, pathlib
assert os.getuid() == os.getgid() == 10001 and not os.getgroups()
status = pathlib.Path("/proc/self/status").read_text()
assert "CapEff:\\t0000000000000000" in status and "NoNewPrivs:\\t1" in status, status
for folder in ("/", "/opt/sub60", "/usr/local", "/etc", "/root", "/data"):
    try:
        pathlib.Path(folder, "written").touch()
    except OSError:
        continue
    raise SystemExit(f"{folder} can be written")
for folder in ("/tmp", "/var/lib/sub60", "/var/cache/sub60"):
    pathlib.Path(folder, "written").touch()
    pathlib.Path(folder, "written").unlink()
"""


class TrialError(RuntimeError):
    """The image does not do what it must; the message says what."""


class Trial:
    """One image with its volumes below ``folder`` and a dataset; the calling process has namespaces of its own."""

    def __init__(self, built: Built, stage: Stage, folder: Path, dataset: Path) -> None:
        self._root = built.root
        self._environment = dict(built.environment)
        self._folder = folder
        instruction = {keyword: stage.last(keyword) for keyword in ("ENTRYPOINT", "CMD", "USER", "HEALTHCHECK")}
        if missing := [name for name, item in instruction.items() if item is None]:
            raise DockerfileError(f"no {', '.join(missing)}")
        words = {name: item.words for name, item in instruction.items() if item is not None}
        self._entrypoint, self._command = words["ENTRYPOINT"], words["CMD"]
        self._user, _, self._group = words["USER"][0].partition(":")
        health = instruction["HEALTHCHECK"]
        assert health is not None
        self._health: list[str] = json.loads(health.value.removeprefix("CMD").strip())
        self._dataset = dataset
        self._mount(dataset)
        _loopback_up()

    def execute(self, *words: str, entrypoint: Sequence[str] | None = None, show: bool = False) -> str:
        """Run a command to its end; what it printed."""
        done = subprocess.run(
            self._words([*(self._entrypoint if entrypoint is None else entrypoint), *words]),
            env=self._environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode:
            raise TrialError(
                f"{' '.join(words)[:200]}: exit {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
            )
        if show:
            _say(done.stdout.rstrip())
        return done.stdout

    def run(self) -> None:
        """All checks, in the order in which a site would meet them."""
        self.execute(READ_ONLY, entrypoint=["python", "-c"])
        _say("user 10001, no capabilities, nothing but the volumes and /tmp can be written")
        assert "serve" in self.execute("--help")
        self.execute(PACKAGED, entrypoint=["python", "-c"])
        _say("cameras, alert schema, live page, model and database driver are there")
        config = "/var/lib/sub60/apdb.yaml"
        self.execute("create-sql", "sqlite:////var/lib/sub60/apdb.sqlite3", config, entrypoint=["apdb-cli"])
        self._environment |= {"SUB60_APDB_CONFIG": config, "SUB60_WORKERS": "1"}
        started = time.monotonic()
        self.execute("compile")
        _say(f"kernels compiled in {time.monotonic() - started:.0f} s")
        self.execute("check", show=True)
        self._serve()

    def _serve(self) -> None:
        """Start by the image's own command; healthy, ready, alerts from replayed events, stopped in good order."""
        with (self._folder / "serve.log").open("wb") as output:
            outer = subprocess.Popen(
                self._words([*self._entrypoint, *self._command]),
                env=self._environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            started = time.monotonic()
            self._wait(outer, self._is_healthy, READY_S, "HEALTHCHECK")
            _say(f"HEALTHCHECK passes after {time.monotonic() - started:.0f} s")
            self._wait(outer, self._is_ready, READY_S, "all roles ready")
            _say(f"all roles ready after {time.monotonic() - started:.0f} s")
            self._replay(outer)
            self._stop(outer)
        finally:
            outer.kill()
            outer.wait()

    def _replay(self, outer: subprocess.Popen[bytes]) -> None:
        """A visit's events sent: each readout has alerts, and the files hold as many as the workers say."""
        log_url = str(self._endpoints()["log_url"])
        self.execute("replay", "/data", "--log", log_url)
        events = [json.loads(line) for line in (self._dataset / "events.jsonl").read_text().splitlines()]
        n_readouts = sum(1 for event in events if event["topic"] == "readout")
        self._wait(outer, lambda: len(self._done()) == n_readouts, ALERTS_S, "every readout")
        done = self._done()
        if any(line["outcome"] != "alerts" for line in done):
            raise TrialError(f"a readout without alerts: {done}")
        n_alerts = sum(line["n_alerts"] for line in done)
        self._wait(outer, lambda: self._n_filed() == n_alerts, ALERTS_S, f"{n_alerts} alerts in files")
        _say(f"{n_readouts} readouts, {n_alerts} alerts, all of them in files")

    def _done(self) -> list[dict[str, Any]]:
        """The workers' lines about readouts."""
        whole, _, _ = (self._folder / "serve.log").read_text(errors="replace").rpartition("\n")  # the last may be half
        lines = whole.splitlines()
        found = (json.loads(line) for line in lines if line.startswith("{"))
        return [line for line in found if line.get("event") == "detector_done"]

    def _stop(self, outer: subprocess.Popen[bytes]) -> None:
        """SIGTERM to process 1, as an engine stops a container."""
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
        started = time.monotonic()
        os.kill(int(children[0]), signal.SIGTERM)
        try:
            code = outer.wait(STOP_S)
        except subprocess.TimeoutExpired as error:
            raise TrialError(f"still there {STOP_S:.0f} s after SIGTERM") from error
        if code or (self._state / "endpoints.json").exists():
            raise TrialError(f"SIGTERM ended it with {code}\n{self._tail()}")
        _say(f"SIGTERM: exit 0 after {time.monotonic() - started:.1f} s")

    def _wait(self, outer: subprocess.Popen[bytes], is_done: Callable[[], bool], limit_s: float, what: str) -> None:
        until = time.monotonic() + limit_s
        while not is_done():
            if outer.poll() is not None or time.monotonic() > until:
                raise TrialError(f"waited in vain for: {what} (exit {outer.poll()})\n{self._tail()}")
            time.sleep(0.5)

    def _is_healthy(self) -> bool:
        words = self._words(self._health)
        return subprocess.run(words, env=self._environment, capture_output=True, check=False).returncode == 0

    def _is_ready(self) -> bool:
        return bool(self._endpoints().get("ready"))

    def _endpoints(self) -> Mapping[str, object]:
        path = self._state / "endpoints.json"
        found: dict[str, object] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def _n_filed(self) -> int:
        count = 0
        for path in (self._state / "alerts").rglob("*.avro"):
            with path.open("rb") as file:
                count += sum(1 for _ in reader(file))
        return count

    def _tail(self) -> str:
        return (self._folder / "serve.log").read_text(errors="replace")[-4000:]

    @property
    def _state(self) -> Path:
        return self._folder / "state"

    def _words(self, inside: Sequence[str]) -> list[str]:
        outside = ["unshare", "--pid", "--fork", "--kill-child", f"--mount-proc={self._root / 'proc'}"]
        drop = ["/usr/bin/setpriv", f"--reuid={self._user}", f"--regid={self._group}", "--clear-groups"]
        drop += ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--"]
        return [*outside, "chroot", str(self._root), *drop, *inside]

    def _mount(self, dataset: Path) -> None:
        """Read-only root, tmpfs as Docker makes them, two volumes with the owners that the image gives them."""
        (self._root / "data").mkdir(exist_ok=True)
        mount(self._root, ".", source=str(self._root), options="ro")
        mount(self._root, "tmp", kind="tmpfs", options="mode=1777,nosuid,nodev,noexec,size=256m")
        mount(self._root, "dev", kind="tmpfs", options="mode=755,nosuid,size=1m")
        for name in DEVICES:
            (self._root / "dev" / name).touch()
            mount(self._root, f"dev/{name}", source=f"/dev/{name}")
        (self._root / "dev/shm").mkdir()
        mount(self._root, "dev/shm", kind="tmpfs", options="mode=1777,nosuid,nodev,noexec,size=64m")
        for name, inside in (("state", "var/lib/sub60"), ("cache", "var/cache/sub60")):
            shutil.rmtree(self._folder / name, ignore_errors=True)
            subprocess.run(["cp", "-a", str(self._root / inside), str(self._folder / name)], check=True)
            mount(self._root, inside, source=str(self._folder / name))
        mount(self._root, "data", source=str(dataset), options="ro")


def _loopback_up() -> None:
    """A new network namespace has its loopback down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        up_and_running, set_flags = 0x1 | 0x40, 0x8914
        fcntl.ioctl(control, set_flags, struct.pack("16sH14s", b"lo", up_and_running, b""))


def _say(text: str) -> None:
    print(text, flush=True)
