"""The worker's end of its compute child: starts it, feeds it, replaces it."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from service.answers import Job, encode_job
from service.ipc import Channel, ChannelClosedError, Message
from service.records import Prepare, pack


@dataclass(frozen=True, slots=True, kw_only=True)
class FromChild:
    """Something a child said; ``message`` None: it is gone. ``serial`` counts the children of a worker."""

    serial: int
    message: Message | None
    blobs: list[memoryview]


class Child:
    """One compute process at a time.

    Start it from the thread that lives longest: the kernel ends a child when the *thread* that made it ends.

    Parameters
    ----------
    environment : of the child; carries its settings.
    deliver : called from a reading thread with everything the child says.
    """

    def __init__(self, environment: Mapping[str, str], deliver: Callable[[FromChild], None]) -> None:
        self._environment = environment
        self._deliver = deliver
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self.serial = 0
        self.is_warm = False

    @property
    def pid(self) -> int | None:
        """Process id of the present child."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start a child; it says ``ready`` when it is warm."""
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "service.child_main", str(theirs.fileno()), str(os.getpid())]
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], env=dict(self._environment), stdin=subprocess.DEVNULL
            )
        self.serial += 1
        self.is_warm = False
        self._channel = Channel(ours)
        threading.Thread(target=self._read, args=(self.serial, self._channel), name="child", daemon=True).start()

    def prepare(self, work: Prepare) -> None:
        """Pass a hint on."""
        self._send({"op": "prepare", "prepare": pack(work)})

    def process(self, job: Job) -> None:
        """Give it a job; the answer comes through ``deliver``."""
        self._send(encode_job(job))

    def kill(self) -> None:
        """End the present child, whatever it does; its last words may still arrive and carry its serial."""
        self.is_warm = False
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._channel is not None:
            self._channel.shut_down()
            self._channel = None

    def _send(self, message: Message) -> None:
        if self._channel is None:
            return
        try:
            self._channel.send(message)
        except ChannelClosedError:  # the reading thread has said or will say that it is gone
            return

    def _read(self, serial: int, channel: Channel) -> None:
        try:
            while True:
                message, blobs = channel.receive()
                self._deliver(FromChild(serial=serial, message=message, blobs=blobs))
        except ChannelClosedError:
            self._deliver(FromChild(serial=serial, message=None, blobs=[]))
        finally:
            channel.close()
