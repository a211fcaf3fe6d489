"""The whole service as one child process: started on a fresh state, waited for, stopped."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from core.errors import ConfigurationError
from service.settings import Settings, read_settings, to_environment

FIRST_PORT: Final = 8060
N_PORTS: Final = 12
READY_TIMEOUT_S: Final = 400.0
_PORT_STEP: Final = 20
_STOP_S: Final = 60.0


class ServiceProcess:
    """``sub60 serve --role all`` on one state folder.

    Parameters
    ----------
    folder : holds ``state/``, ``apdb/``, the log file and the process id; emptied by :meth:`prepare`.
    dataset : read only, but for the copy of its APDB in ``folder``.
    """

    def __init__(self, folder: Path, dataset: Path) -> None:
        self.folder = folder
        self.dataset = dataset
        self.state_dir = folder / "state"
        self.log_file = folder / "service.log"
        self._pid_file = folder / "service.pid"
        self._process: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """A service left over from an earlier run is stopped; the state starts empty, the APDB as simulated."""
        self._stop_leftover()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.state_dir.mkdir(parents=True)
        copy_apdb(self.dataset / "apdb", self.folder / "apdb")

    def settings(self, **changes: Any) -> Settings:
        """Settings of this service: everything under ``folder``, the dataset as given."""
        places: dict[str, Any] = {
            "dataset": self.dataset.resolve(),
            "state_dir": self.state_dir.resolve(),
            "apdb_config": str((self.folder / "apdb" / "config.yaml").resolve()),
            "http_port": free_ports(),
        }
        return read_settings(**(places | changes))

    def start(self, settings: Settings, variables: Mapping[str, str] | None = None) -> None:
        """Start it in a session of its own: a Ctrl-C at the prompt is for whoever watches."""
        command = [sys.executable, "-m", "service.cli", "serve", "--role", "all"]
        with self.log_file.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                env=to_environment(settings) | dict(variables or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._pid_file.write_text(str(self._process.pid))

    def endpoints(self) -> dict[str, Any]:
        """Where everything is and whether it is ready; empty before the supervisor has written it."""
        try:
            found: dict[str, Any] = json.loads((self.state_dir / "endpoints.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return found

    def wait_ready(self, tell: Callable[[dict[str, Any]], None], timeout_s: float = READY_TIMEOUT_S) -> dict[str, Any]:
        """Endpoints once all roles are ready; ``tell`` is called with what is known meanwhile."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            self.check()
            found = self.endpoints()
            tell(found)
            if found.get("ready"):
                return found
            time.sleep(0.2)
        raise ConfigurationError(
            f"the service was not ready after {timeout_s:.0f} s, see {self.log_file}", code="not_ready"
        )

    def check(self) -> None:
        """Raise if the service has ended."""
        if self._process is not None and (code := self._process.poll()) is not None:
            raise ConfigurationError(f"the service ended with {code}: {self.log_tail()}", code="service_ended")

    def log_tail(self, n_bytes: int = 1500) -> str:
        """End of its log."""
        try:
            return self.log_file.read_bytes()[-n_bytes:].decode(errors="replace")
        except FileNotFoundError:
            return ""

    def stop(self) -> None:
        """SIGTERM, work under way is finished first."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        self._pid_file.unlink(missing_ok=True)

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process else None

    def _stop_leftover(self) -> None:
        try:
            pid = int(self._pid_file.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return
        if b"service.cli" not in command or b"serve" not in command:
            return  # the number belongs to somebody else by now
        os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + _STOP_S
        while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
            time.sleep(0.1)


def copy_apdb(source: Path, target: Path) -> None:
    """A dataset's APDB for a run that writes to it; the configuration names the copy."""
    shutil.copytree(source, target)
    config = target / "config.yaml"
    text = config.read_text(encoding="utf-8")
    lines = []
    for line in text.splitlines():
        key, colon, value = line.partition("sqlite:///")
        name = Path(value.strip().strip("'\"")).name
        lines.append(f"{key}{colon}{(target / name).resolve()}" if colon else line)
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")


def free_ports(first: int = FIRST_PORT, number: int = N_PORTS) -> int:
    """First of ``number`` neighboring free ports of the loopback, at ``first`` or above."""
    for start in range(first, 65000, _PORT_STEP):
        if all(_is_free(port) for port in range(start, start + number)):
            return start
    raise ConfigurationError("no free ports", code="no_free_ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
