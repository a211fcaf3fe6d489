"""A real single-node Apache Kafka (KRaft, combined mode) from its Maven jars and the machine's Java.

::

    python3 tests/support/kafka/broker.py start --folder var/kafka      # prints host:port on its last line
    python3 tests/support/kafka/broker.py stop --folder var/kafka

Standard library only. Needs ``java`` (17 or later) and, the first time, ``mvn``. Starting a running broker prints its
address. Data, jars, log and process id lie below the folder; :class:`KafkaBroker` does the same from a test.
"""

import argparse
import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

POM = Path(__file__).with_name("pom.xml")
PREFERRED_PORT = 19092
READY_LINE = "Kafka Server started"
START_TIMEOUT_S = 90.0
SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "auto.create.topics.enable": "false",
    # one node: every internal topic has one replica, and few partitions to open at start
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    "message.max.bytes": "16777216",
    "replica.fetch.max.bytes": "16777216",
    "socket.request.max.bytes": "268435456",
}


class KafkaStartError(RuntimeError):
    """The broker cannot be started; the message says why."""


@dataclass(frozen=True)
class SecureListener:
    """A second listener that wants TLS and a SCRAM-SHA-512 login, and an authorizer that denies what no ACL allows.

    The plain listener keeps every right: it is where a test makes ACLs and topics.
    """

    port: int
    keystore: Path
    """PEM: an unencrypted PKCS#8 key, then its chain."""
    users: Mapping[str, str]
    """User -> password, made when the storage is formatted."""

    def settings(self, plain: str, controller: str) -> dict[str, str]:
        """Lines of server.properties beside the plain listener's."""
        listener = f"SASL_SSL://127.0.0.1:{self.port}"
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        return {
            "listeners": f"{plain},{listener},{controller}",
            "advertised.listeners": f"{plain},{listener}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": scram,
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.keystore),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "allow.everyone.if.no.acl.found": "false",
        }

    def format_arguments(self) -> list[str]:
        """Arguments of the storage tool that make the users."""
        return [
            word
            for user, password in self.users.items()
            for word in ("--add-scram", f"SCRAM-SHA-512=[name={user},password={password}]")
        ]


class KafkaBroker:
    """One broker whose jars lie in ``jars`` and whose data, log and process id lie in ``folder``."""

    def __init__(self, folder: Path, jars: Path | None = None, secure: SecureListener | None = None) -> None:
        self.folder = folder.resolve()
        self.jars = jars.resolve() if jars else self.folder / "jars"
        self._process: subprocess.Popen[bytes] | None = None
        """Kept while it runs: Python warns of one that is forgotten."""
        self.secure = secure
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, port: int | None = None) -> str:
        """Start unless it runs; returns ``host:port`` once it takes connections."""
        if (running := self.address()) is not None:
            return running
        self._reap()
        if shutil.which("java") is None:
            raise KafkaStartError("no java on this machine")
        self.folder.mkdir(parents=True, exist_ok=True)
        fetch_jars(self.jars)
        port = port or free_port(PREFERRED_PORT)
        config = self._configure(port, free_port())
        if not (self.folder / "data" / "meta.properties").exists():
            self._format(config)
        log = self.folder / "broker.log"
        with log.open("wb") as output:
            self._process = process = subprocess.Popen(
                self._java("kafka.Kafka", str(config)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,
            )
        self._process = process
        (self.folder / "pid").write_text(f"{process.pid} {_started(process.pid)} 127.0.0.1:{port}\n")
        give_up_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < give_up_s and process.poll() is None:
            if READY_LINE in log.read_text(errors="replace") and _connects(port):
                return f"127.0.0.1:{port}"
            time.sleep(0.1)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        raise KafkaStartError(f"the broker did not start; {log} ends with:\n{log.read_text(errors='replace')[-3000:]}")

    def stop(self, timeout_s: float = 30.0) -> bool:
        """Stop it in good order; False if it was not running."""
        if (pid := self._pid()) is None:
            if self._process is not None:
                self._process.wait(timeout_s)  # it has ended by itself
            return False
        for number, wait_s in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, timeout_s)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            give_up_s = time.monotonic() + wait_s
            while self._pid() is not None and time.monotonic() < give_up_s:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
                time.sleep(0.1)
        if self._process is not None:
            self._process.wait(timeout_s)  # its first thread may be gone before the others
        self._reap()
        (self.folder / "pid").unlink(missing_ok=True)
        return True

    def _reap(self) -> None:
        """Take note that the process which this object started has ended."""
        if self._process is not None:
            self._process.wait()
            self._process = None

    def address(self) -> str | None:
        """``host:port`` of the running broker."""
        return (self.folder / "pid").read_text().split()[2] if self._pid() is not None else None

    def _pid(self) -> int | None:
        """Process id, if that process is still the one that was started."""
        try:
            pid, started, _ = (self.folder / "pid").read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        return int(pid) if _started(int(pid)) == started else None

    def _configure(self, port: int, controller_port: int) -> Path:
        broker, controller = f"PLAINTEXT://127.0.0.1:{port}", f"CONTROLLER://127.0.0.1:{controller_port}"
        settings = SETTINGS | {
            "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
            "listeners": f"{broker},{controller}",
            "advertised.listeners": broker,
            "log.dirs": str(self.folder / "data"),
        }
        if self.secure is not None:
            settings |= self.secure.settings(broker, controller)
        config = self.folder / "server.properties"
        config.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        return config

    def _format(self, config: Path) -> None:
        def tool(*arguments: str) -> str:
            done = subprocess.run(
                self._java("kafka.tools.StorageTool", *arguments), capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise KafkaStartError(f"StorageTool {arguments[0]}: {done.stdout}{done.stderr}")
            return done.stdout.split()[-1]

        users = self.secure.format_arguments() if self.secure is not None else []
        tool("format", "-t", tool("random-uuid"), "-c", str(config), *users)

    def _java(self, main: str, *arguments: str) -> list[str]:
        levels = ("defaultLogLevel=warn", "log.kafka.server.KafkaRaftServer=info", "showDateTime=true")
        return [
            "java", "-Xms128m", "-Xmx768m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError",
            *(f"-Dorg.slf4j.simpleLogger.{level}" for level in levels),
            "-cp", f"{self.jars}/*", main, *arguments,
        ]  # fmt: skip


def fetch_jars(folder: Path) -> None:
    """Copy the jars of pom.xml into ``folder``, once per content of pom.xml."""
    wanted = hashlib.sha256(POM.read_bytes()).hexdigest()
    stamp = folder / "pom.sha256"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    if shutil.which("mvn") is None:
        raise KafkaStartError("no mvn on this machine to fetch the broker's jars")
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={fresh}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise KafkaStartError(f"mvn could not fetch the broker's jars: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    (fresh / stamp.name).write_text(wanted)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def _started(pid: int) -> str | None:
    """Start time of a process in clock ticks, which with its id names it; None if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]


def free_port(preferred: int = 0) -> int:
    """A free loopback port, the preferred one if it is."""
    for port in (preferred, 0):
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            return int(listener.getsockname()[1])
    raise KafkaStartError("no free port")


def _connects(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
        return True
    return False


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("action", choices=("start", "stop", "status"))
    parser.add_argument("--folder", type=Path, default=Path("var/kafka"))
    parser.add_argument("--port", type=int, default=None, help="default: 19092 if free, else any")
    arguments = parser.parse_args()
    broker = KafkaBroker(arguments.folder)
    if arguments.action == "stop":
        print("stopped" if broker.stop() else "was not running")
        return 0
    if arguments.action == "start":
        try:
            print(broker.start(arguments.port))
        except KafkaStartError as error:
            print(error, file=sys.stderr)
            return 1
        return 0
    print(broker.address() or "not running")
    return 0


if __name__ == "__main__":
    sys.exit(main())
