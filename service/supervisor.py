"""Every role on one machine: embedded servers, one process a role, restarted when it dies."""

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.error import URLError
from urllib.request import urlopen

import structlog
from pydantic import SecretStr

from service.app import stop_on_signal
from service.masking import mask_url
from service.settings import Settings, compute_environment, to_environment

RESTART_S: Final = (0.2, 1.0, 2.0, 5.0, 10.0)
FORGIVE_S: Final = 5.0
"""A role that was ready for this long starts with the first delay again."""
CHECK_S: Final = 0.2
READY_TIMEOUT_S: Final = 2.0
NICENESS: Final = {"prefetch": 5, "api": 5, "archive": 10}
"""On one machine, work whose clock has started goes before work whose clock has not, and before what may lag."""

log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class RoleProcess:
    """One supervised process."""

    name: str
    role: str
    settings: Settings
    process: subprocess.Popen[bytes] | None = None
    n_deaths: int = 0
    restart_at_s: float = 0.0
    is_ready: bool = False
    ready_s: float = 0.0
    """Since when."""

    def start(self) -> None:
        """Start the process; its own settings travel in its environment."""
        command = [sys.executable, "-m", "service.cli", "serve", "--role", self.role]
        environment = compute_environment if self.role == "prefetch" else to_environment
        self.process = subprocess.Popen(command, env=environment(self.settings), stdin=subprocess.DEVNULL)
        os.setpriority(os.PRIO_PROCESS, self.process.pid, NICENESS.get(self.role, 0))

    @property
    def url(self) -> str:
        """Base address of its HTTP server."""
        return f"http://{self.settings.http_host}:{self.settings.http_port}"

    def check_ready(self) -> bool:
        """Ask its readiness."""
        try:
            with urlopen(f"{self.url}/readyz", timeout=READY_TIMEOUT_S) as answer:
                self.is_ready = answer.status == 200
                self.ready_s = time.monotonic()
        except (URLError, OSError):
            self.is_ready = False
        return self.is_ready


@dataclass(slots=True, kw_only=True)
class Supervisor:
    """Starts the roles, restarts what dies, writes where everything is, stops all in order."""

    settings: Settings
    roles: list[RoleProcess] = field(default_factory=list)

    def plan(self) -> None:
        """Roles and ports: api at the port of the settings, the others after it."""
        names = ["api", "fanout", "prefetch", "archive"]
        plan = [(name, name, 0) for name in names]
        plan += [(f"worker-{slot}", "worker", slot) for slot in range(self.settings.workers)]
        for offset, (name, role, slot) in enumerate(plan):
            # checked once, by the process that starts them
            changes: dict[str, object] = {
                "slot": slot,
                "http_port": self.settings.http_port + offset,
                "start_checks": False,
            }
            if role != "api":  # nobody else needs the operators' token
                changes["http_token"] = SecretStr("")
            self.roles.append(RoleProcess(name=name, role=role, settings=self.settings.model_copy(update=changes)))

    def watch(self) -> None:
        """Restart what died and is due."""
        now = time.monotonic()
        for role in self.roles:
            if role.process is not None and (code := role.process.poll()) is not None:
                role.n_deaths = 0 if role.is_ready and now - role.ready_s > FORGIVE_S else role.n_deaths
                role.restart_at_s = now + RESTART_S[min(role.n_deaths, len(RESTART_S) - 1)]
                role.n_deaths += 1
                role.process, role.is_ready = None, False
                log.error("role_died", role=role.name, exit_code=code, n_deaths=role.n_deaths)
            if role.process is None and now >= role.restart_at_s:
                role.start()

    def stop(self) -> None:
        """SIGTERM to all at once, then wait for each; what does not end in its time is killed."""
        for role in self.roles:
            if role.process is not None:
                role.process.terminate()
        until = time.monotonic() + self.settings.drain_s + 5
        for role in self.roles:
            if role.process is None:
                continue
            try:
                role.process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("role_killed", role=role.name)
                role.process.kill()
                role.process.wait()

    def endpoints(self) -> dict[str, object]:
        """Where everything is."""
        pids = {role.name: role.process.pid for role in self.roles if role.process is not None}
        http = {role.name: role.url for role in self.roles}
        return {
            "log_url": mask_url(self.settings.log_url, shown=""),
            "cache_url": mask_url(self.settings.cache_url, shown=""),
            "http": http,
            "pids": pids,
            "ready": all(role.is_ready for role in self.roles),
        }


def run(settings: Settings) -> int:
    """Run every role until the stop signal; the exit code."""
    stopping = stop_on_signal()
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    endpoints = settings.state_dir / "endpoints.json"
    with ExitStack() as stack:
        settings = _with_servers(settings, stack)
        supervisor = Supervisor(settings=settings)
        supervisor.plan()
        stack.callback(supervisor.stop)
        written: dict[str, object] = {}
        while not stopping.wait(CHECK_S):
            supervisor.watch()
            for role in supervisor.roles:  # those that are ready are not asked again until they die
                if role.process is not None and not role.is_ready:
                    role.check_ready()
            if (now := supervisor.endpoints()) != written:
                if now["ready"] and not written.get("ready"):
                    log.info("supervisor_ready", **now)
                _write(endpoints, now)
                written = now
    endpoints.unlink(missing_ok=True)
    return 0


def _with_servers(settings: Settings, stack: ExitStack) -> Settings:
    """Settings with the addresses of embedded servers where none are given."""
    from service.embedded import EmbeddedValkey, cache_settings, log_settings  # not needed where both are given

    changes = {}
    if not settings.log_url:
        memory_mb = settings.log_memory_mb
        server = stack.enter_context(EmbeddedValkey(settings.state_dir / "log", log_settings(memory_mb)))
        changes["log_url"] = server.url
    if not settings.cache_url:
        memory_mb = settings.cache_memory_mb
        server = stack.enter_context(EmbeddedValkey(settings.state_dir / "cache", cache_settings(memory_mb)))
        changes["cache_url"] = server.url
    return settings.model_copy(update=changes)


def _write(path: Path, value: dict[str, object]) -> None:
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
    partial.replace(path)
