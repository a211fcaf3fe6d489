"""The log's server of a site, of either kind, behind a proxy, and how to hurt it."""

import os
import signal
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from service.embedded import EmbeddedValkey, log_settings
from tests.faults.proxy import FaultProxy
from tests.support.kafka.broker import KafkaBroker, free_port


class LogServer(Protocol):
    """A log's server. Kafka's or Redis': the service goes through the proxy, the account does not."""

    proxy: FaultProxy
    url: str
    direct_url: str
    is_kafka: bool

    def start(self) -> None:
        """Start, or start again on the same data."""

    def stop(self) -> None:
        """Stop in good order."""

    def kill(self) -> None:
        """End it as by kill -9."""

    def revive(self) -> None:
        """Start it again if it has ended by itself."""

    def close(self) -> None:
        """Stop, with its proxy."""


class RedisServer:
    """An embedded Valkey with the log's settings."""

    is_kafka = False

    def __init__(self, folder: Path, memory_mb: int) -> None:
        # a socket's path must be short, pytest's folders are not
        self._stack = ExitStack()
        short = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="sub60-")))
        self._server = EmbeddedValkey(folder, log_settings(memory_mb))
        self._server.start()
        self.direct_url = self._server.url
        self.proxy = self._stack.enter_context(
            FaultProxy(str(short / "log.sock"), self.direct_url.removeprefix("unix://"))
        )
        self.url = f"unix://{short / 'log.sock'}"

    def start(self) -> None:
        """Start again."""
        self._server.start()

    def stop(self) -> None:
        """In good order."""
        self._server.stop()

    def kill(self) -> None:
        """kill -9."""
        self._server.kill()

    def revive(self) -> None:
        """If it ended."""
        if not self._server.is_running():
            self._server.start()

    def close(self) -> None:
        """All of it."""
        self._server.stop()
        self._stack.close()


class _ProxiedBroker(KafkaBroker):
    """A broker with one more listener, which it advertises at another port than its own."""

    proxied = (0, 0)

    def kill(self) -> None:
        """SIGKILL."""
        pid = self._pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        self._reap()

    def _configure(self, port: int, controller_port: int) -> Path:
        config = super()._configure(port, controller_port)
        own, shown = self.proxied
        direct, controller = f"PLAINTEXT://127.0.0.1:{port}", f"CONTROLLER://127.0.0.1:{controller_port}"
        lines = {
            "listeners": f"{direct},PROXIED://127.0.0.1:{own},{controller}",
            "advertised.listeners": f"{direct},PROXIED://127.0.0.1:{shown}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT",
        }
        with config.open("a") as file:  # of two lines the later one counts
            file.writelines(f"{name}={value}\n" for name, value in lines.items())
        return config


class KafkaServer:
    """A broker with two listeners: one for the account, one that it advertises at the proxy's port."""

    is_kafka = True

    def __init__(self, folder: Path, jars: Path) -> None:
        self._stack = ExitStack()
        behind = free_port()
        self.proxy = self._stack.enter_context(FaultProxy(("127.0.0.1", 0), ("127.0.0.1", behind)))
        self._broker = _ProxiedBroker(folder, jars)
        self._broker.proxied = (behind, self.proxy.port)
        self._port = free_port()
        self.start()
        self.direct_url = f"kafka://127.0.0.1:{self._port}"
        self.url = f"kafka://127.0.0.1:{self.proxy.port}"

    def start(self) -> None:
        """Start again, at the same ports."""
        self._broker.start(self._port)

    def stop(self) -> None:
        """In good order."""
        self._broker.stop()

    def kill(self) -> None:
        """kill -9."""
        self._broker.kill()

    def revive(self) -> None:
        """If it ended, as it does when its disk fails."""
        self.start()

    def close(self) -> None:
        """All of it."""
        self._broker.stop()
        self._stack.close()


def freeze(pid: int) -> None:
    """As a machine that stalls."""
    os.kill(pid, signal.SIGSTOP)


def thaw(pid: int) -> None:
    """It goes on."""
    os.kill(pid, signal.SIGCONT)
