"""What the log's tests share: both adapters behind one face, processes as workers, and waiting."""

import queue
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from confluent_kafka import KafkaError, KafkaException

from service.log import Log, Message, Reader, Record, WorkerLog, open_log
from tests.support.log_proxy import LossyProxy
from tests.support.log_worker import GROUP, RECORDS

PARTITIONS = 3


class Harness:
    """One server, fresh topics ``work`` and ``out``."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.is_kafka = url.startswith("kafka")
        self.log: Log = open_log(url)
        suffix = uuid.uuid4().hex[:8]
        self.work, self.out = f"work-{suffix}", f"out-{suffix}"
        self.log.ensure_topics({self.work: PARTITIONS, self.out: 2})

    def append_jobs(self, count: int, start: int = 0) -> None:
        """Messages ``p:n``, the n-th of partition p."""
        producer = self.log.producer()
        producer.append(
            [
                Record(self.work, key=b"%d" % p, value=b"%d:%d" % (p, n), partition=p)
                for n in range(start, start + count)
                for p in range(PARTITIONS)
            ]
        )
        producer.close()

    def join(self, slot: int = 0) -> WorkerLog:
        """A worker in this process."""
        return self.log.join(GROUP, self.work, slot)

    @contextmanager
    def breakable(self) -> Iterator[tuple[WorkerLog, Callable[[bool], None]]]:
        """A worker, and ``lose(before)``: its next commit's outcome is lost, the commit being done or not (before)."""
        if self.is_kafka:
            worker = self.join()
            yield worker, lambda before: _lose_kafka_commit(worker, before)
            worker.close()
            return
        from service.log.redis_scripts import COMMIT

        server = Path(self.url.removeprefix("unix://"))
        with LossyProxy(self.folder / f"{uuid.uuid4().hex[:6]}.sock", server) as proxy:
            log = open_log(proxy.url)
            member: Any = log.join(GROUP, self.work, 0)
            marker = member._scripts[COMMIT].sha.encode()
            yield member, lambda before: proxy.arm("lose_request" if before else "lose_reply", marker)
            assert proxy.struck.is_set()
            member.close()

    def process(self, slot: int, mode: str = "normal") -> "WorkerProcess":
        """A worker as a process of its own."""
        return WorkerProcess(self.url, self.work, self.out, slot, mode)


def _lose_kafka_commit(worker: Any, before: bool) -> None:
    producer = worker._producer

    class Lossy:
        def __getattr__(self, name: str) -> Any:
            return getattr(producer, name)

        def commit_transaction(self, timeout: float) -> None:
            worker._producer = producer
            if before:
                producer.flush(timeout)
            else:
                producer.commit_transaction(timeout)
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    worker._producer = Lossy()


class WorkerProcess:
    """``tests.support.log_worker`` with its lines as a queue."""

    def __init__(self, url: str, topic: str, out: str, slot: int, mode: str) -> None:
        command = [sys.executable, "-m", "tests.support.log_worker", url, topic, out, str(slot), mode]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._lines: queue.Queue[str] = queue.Queue()
        self.seen: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.strip())
        self._process.stdout.close()

    def wait_for(self, prefix: str, timeout_s: float = 40.0) -> str:
        """The next line that starts so."""
        give_up_s = time.monotonic() + timeout_s
        while (left := give_up_s - time.monotonic()) > 0:
            try:
                line = self._lines.get(timeout=left)
            except queue.Empty:
                break
            self.seen.append(line)
            if line.startswith(prefix):
                return line
        raise AssertionError(f"no {prefix!r} within {timeout_s} s, only {self.seen[-5:]}")

    def wait_exit(self, timeout_s: float = 40.0) -> int:
        """Its exit status."""
        return self._process.wait(timeout_s)

    def resume(self) -> None:
        """Wake it from its freeze."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill -9."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()


def poll_until(worker: WorkerLog, count: int, timeout_s: float = 40.0) -> list[Message]:
    """Poll until so many messages have come."""
    found: list[Message] = []
    give_up_s = time.monotonic() + timeout_s
    while len(found) < count and time.monotonic() < give_up_s:
        found += worker.poll(0.2)
    assert len(found) >= count, f"{len(found)} of {count} messages within {timeout_s} s"
    return found


def read_until(reader: Reader, count: int, timeout_s: float = 40.0, settle_s: float = 0.3) -> list[Message]:
    """Read until so many messages have come, and a little on for what should not come."""
    found: list[Message] = []
    give_up_s = time.monotonic() + timeout_s
    while len(found) < count and time.monotonic() < give_up_s:
        found += reader.poll(0.2)
    found += reader.poll(settle_s)
    return found


def wait_until(condition: Callable[[], bool], timeout_s: float = 40.0) -> float:
    """Wait for a condition; returns the seconds it took."""
    started_s = time.monotonic()
    while not condition():
        assert time.monotonic() - started_s < timeout_s, "condition not met in time"
    return time.monotonic() - started_s


def expected(jobs: int, start: int = 0) -> list[bytes]:
    """Values a reader must see, sorted, after that many jobs a partition."""
    numbers = range(start, start + jobs)
    return sorted(b"%d:%d/%d" % (p, n, i) for p in range(PARTITIONS) for n in numbers for i in range(RECORDS))
