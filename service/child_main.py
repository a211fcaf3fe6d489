"""The compute child: owns the CPU, speaks to its worker over one socket, dies with it.

Three threads: this one computes; one reads the socket; one loads bundles ahead. A bug ends the process with a nonzero
exit, after its traceback went to the worker.
"""

import ctypes
import importlib
import os
import queue
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from typing import Final

import structlog

from core.errors import Outcome, RejectedInputError, Sub60Error, TransientError, UnusableDataError
from service.answers import Answer, Compute, Job, encode_afterwork, encode_answer
from service.app import configure_logging
from service.failpoints import Failpoint, arm, reach
from service.ipc import Channel, ChannelClosedError, Message
from service.masking import known_secrets
from service.records import Prepare, Readout, unpack
from service.settings import Settings, read_settings

PR_SET_PDEATHSIG: Final = 1
EXIT_BUG: Final = 70

log = structlog.get_logger()


def main() -> int:
    """Run until the worker closes the socket."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's; the worker decides
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    settings = read_settings()
    configure_logging(settings.log_level, known_secrets(dict(settings)))
    arm(settings.failpoints)
    limit = settings.child_memory_mb << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    channel = Channel(socket.socket(fileno=descriptor))
    module, _, name = settings.compute.partition(":")
    try:
        compute: Compute = getattr(importlib.import_module(module), name)(settings)
        started = time.monotonic()
        compute.warm_up()
        channel.send({"op": "ready", "warm_up_s": time.monotonic() - started})
        ComputeLoop(channel, compute, settings).run()
    except ChannelClosedError:
        return 0
    except Exception:
        text = traceback.format_exc()
        log.error("child_bug", traceback=text)
        try:
            channel.send({"op": "bug", "traceback": text[-8000:]})
        except ChannelClosedError:
            log.warning("worker_gone")
        return EXIT_BUG
    return 0


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL when the worker dies; end at once if it already has."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


class ComputeLoop:
    """Serves jobs one at a time; hints go to the loading thread."""

    def __init__(self, channel: Channel, compute: Compute, settings: Settings) -> None:
        self._channel = channel
        self._compute = compute
        self._settings = settings
        self._jobs: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._hints: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def run(self) -> None:
        """Return when the worker closed the socket."""
        threading.Thread(target=self._read, name="channel", daemon=True).start()
        threading.Thread(target=self._load, name="loader", daemon=True).start()
        while (message := self._jobs.get()) is not None:
            job = Job(
                generation=message["generation"],
                readout=unpack(Readout, message["readout"]),
                deadline_monotonic_s=message["deadline_monotonic_s"],
                processed_mjd_tai=message["processed_mjd_tai"],
                is_last_attempt=message["is_last_attempt"],
            )
            self._serve(job)

    def _serve(self, job: Job) -> None:
        reach(Failpoint.CHILD_RECEIVED)
        wall, cpu = time.perf_counter(), self._compute.cpu_s()
        try:
            answer = self._compute.process(job)
        except UnusableDataError as error:
            answer = failed(error, error.outcome)
        except RejectedInputError as error:
            answer = failed(error, Outcome.REJECTED, is_dead_letter=True)
        except TransientError as error:
            self._channel.send(
                {"op": "failed", "generation": job.generation, "code": error.code, "message": str(error)}
            )
            self._compute.after_answer(job)
            return
        wall, cpu = time.perf_counter() - wall, self._compute.cpu_s() - cpu
        message, blobs = encode_answer(job.generation, answer, wall, cpu)
        self._channel.send(message, blobs)
        reach(Failpoint.CHILD_ANSWERED)
        if (work := self._compute.after_answer(job)) is not None:
            self._channel.send(*encode_afterwork(job.generation, work))
        if self._settings.measure_reference:
            cpu_wall = self._compute.measure_reference()
            self._channel.send({"op": "reference", "generation": job.generation, "cpu_wall_s": cpu_wall})

    def _read(self) -> None:
        try:
            while True:
                message, _ = self._channel.receive()
                (self._jobs if message["op"] == "process" else self._hints).put(message)
        except ChannelClosedError:
            self._jobs.put(None)

    def _load(self) -> None:
        while True:
            work = unpack(Prepare, self._hints.get()["prepare"])
            reach(Failpoint.CHILD_PREPARING)
            try:
                self._compute.prepare(work)
                reach(Failpoint.CHILD_PREPARED)
            except Sub60Error as error:  # a hint: the readout will load what is missing
                log.warning("prepare_failed", group=work.group, detector=work.detector, code=error.code)
            except Exception:
                log.error("prepare_bug", group=work.group, detector=work.detector, traceback=traceback.format_exc())


def failed(error: Sub60Error, outcome: Outcome, *, is_dead_letter: bool = False) -> Answer:
    """The answer of a job that ended in an error of the data."""
    return Answer(outcome=outcome, code=error.code, message=str(error), is_dead_letter=is_dead_letter)


if __name__ == "__main__":
    sys.exit(main())
