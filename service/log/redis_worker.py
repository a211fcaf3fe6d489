"""One worker of the Redis Streams log: leases on partitions, kept by a background thread, and fenced commits.

A lease is (slot, epoch, until). The thread renews every lease of its slot once a second, takes free and expired ones up
to the slot's fair share, and never gives one up: that is done in :meth:`RedisWorkerLog.poll`, after what was handed out
has been committed. A commit is one script that first compares the epoch.
"""

import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from core.errors import RejectedInputError
from service.failpoints import Failpoint, reach
from service.log.contract import Checkpoint, CommitUnknown, Fenced, IdentityTaken, LogUnavailable, Message, Record
from service.log.redis_scripts import COMMIT, HEARTBEAT, JOIN, LEAVE, RELEASE, RETAKE
from service.log.redis_wire import LOST_REPLY, Client, Topics, decode_entries, key, read_streams, unavailable

HEARTBEAT_S: Final = 1.0
DRAIN_S: Final = 5.0
"""How long a partition that is to move waits for the commit of what was already handed out."""
MAX_SILENCE_S: Final = 30.0
"""A worker that does not poll for so long is stuck: its leases are no longer renewed."""
READ_AHEAD: Final = 100
"""Messages of one partition per poll."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Tenure:
    """An owned partition: ``epoch`` as the caller knows it, ``fence`` as the lease has it (raised by a lost commit)."""

    epoch: int
    fence: int
    position: int
    checkpoint: Checkpoint | None
    draining_since: float | None = None

    @property
    def is_drained(self) -> bool:
        """Everything handed out is committed."""
        return self.position == (self.checkpoint.offset if self.checkpoint else 0)


class RedisWorkerLog:
    """Member ``slot`` of a group on a topic."""

    def __init__(
        self, client: Client, group: str, topic: str, slot: int, partitions: int, *, timeout_s: float, lease_s: float
    ) -> None:
        self._client = client
        self._topics = Topics(self._client)
        self._topic = topic
        self._partitions = partitions
        self._slot = slot
        self._incarnation = secrets.token_hex(8)
        self._lease_ms = int(lease_s * 1000)
        self._resolve_s = timeout_s
        self._members, self._leases_key, self._offsets, self._checkpoints = (
            key(kind, group, topic) for kind in ("members", "leases", "offsets", "checkpoints")
        )
        self._scripts = {s: self._client.register_script(s) for s in (JOIN, HEARTBEAT, COMMIT, RETAKE, RELEASE, LEAVE)}
        self._tenures: dict[int, _Tenure] = {}
        self._suspects: set[int] = set()
        self._unreadable: dict[int, int] = {}
        """Partitions whose checkpoint is of a release that we do not read → epoch: held, not worked on."""
        # shared with the heartbeat thread, under the lock
        self._lock = threading.Lock()
        self._leases: dict[int, int] = {}
        self._share = 0
        self._is_taken = False
        self._failure: Exception | None = None
        self._last_poll_s = time.monotonic()
        self._changed = threading.Event()
        self._stopped = threading.Event()
        with unavailable("join"):
            for script in self._scripts:
                self._client.script_load(script)  # before a commit is in a hurry
            self._scripts[JOIN](
                keys=[self._members, self._leases_key], args=[slot, self._incarnation, self._lease_ms, partitions]
            )
            self._beat()
        self._thread = threading.Thread(target=self._keep_leases, name=f"leases-{slot}", daemon=True)
        self._thread.start()

    def assignment(self) -> Mapping[int, int]:
        """Owned partitions and their epochs."""
        return {partition: tenure.epoch for partition, tenure in self._tenures.items()}

    def poll(self, timeout_s: float) -> list[Message]:
        """Next messages of owned partitions."""
        self._last_poll_s = time.monotonic()
        self._raise_failures()
        self._follow_leases()
        positions = {p: t.position for p, t in sorted(self._tenures.items()) if t.draining_since is None}
        if not positions:
            self._changed.wait(timeout_s)
            self._changed.clear()
            return []
        found = read_streams(self._client, self._topic, positions, timeout_s, READ_AHEAD)
        messages: list[Message] = []
        for partition, entries in found.items():
            tenure = self._tenures[partition]
            fresh = list(decode_entries(self._topic, partition, entries, tenure.epoch))
            if fresh:
                tenure.position = fresh[-1].offset + 1
            messages += fresh
        return messages

    def checkpoint(self, partition: int) -> Checkpoint | None:
        """Checkpoint of an owned partition."""
        return self._tenure(partition, None).checkpoint

    def commit(
        self, partition: int, checkpoint: Checkpoint, records: Sequence[Record], *, epoch: int | None = None
    ) -> None:
        """Records and checkpoint in one script, under our epoch."""
        tenure = self._tenure(partition, epoch)
        packed = checkpoint.pack()
        arguments = [self._slot, self._incarnation, partition, tenure.fence, checkpoint.offset, packed]
        arguments += self._topics.arguments(records)
        keys = [self._members, self._leases_key, self._offsets, self._checkpoints]
        try:
            with unavailable("commit"):
                reply: Any = self._scripts[COMMIT](keys=keys, args=arguments)
        except LogUnavailable as error:
            if not isinstance(error.__cause__, LOST_REPLY):
                raise
            self._resolve(partition, tenure, packed, error)
            reply = b"ok"
        self._raise_refusal(reply, partition)
        reach(Failpoint.COMMIT_DONE)
        tenure.checkpoint = checkpoint
        tenure.position = max(tenure.position, checkpoint.offset)

    def close(self) -> None:
        """Stop renewing, free the leases, leave the group."""
        self._stopped.set()
        self._thread.join()
        try:
            with unavailable("leave"):
                self._release(list(self._leases))
                self._scripts[LEAVE](keys=[self._members], args=[self._slot, self._incarnation])
        except LogUnavailable:
            pass  # the leases run out by themselves
        finally:
            self._tenures.clear()
            self._client.close()

    # ---- refusals

    def _tenure(self, partition: int, epoch: int | None) -> _Tenure:
        self._raise_failures()
        tenure = self._tenures.get(partition)
        if tenure is None or epoch not in (None, tenure.epoch):
            raise Fenced("the partition is not ours", partition=partition, slot=self._slot)
        return tenure

    def _raise_failures(self) -> None:
        if self._is_taken:
            self._tenures.clear()
            raise IdentityTaken("another process runs under our slot", slot=self._slot)
        if self._failure is not None:
            raise self._failure

    def _raise_refusal(self, reply: bytes, partition: int) -> None:
        if reply == b"taken":
            self._is_taken = True
            self._raise_failures()
        if reply == b"fenced":
            del self._tenures[partition]
            raise Fenced("the partition was taken over", partition=partition, slot=self._slot)
        if reply == b"past":
            raise Fenced("the partition's checkpoint is past this commit", partition=partition, slot=self._slot)

    def _resolve(self, partition: int, tenure: _Tenure, packed: bytes, error: LogUnavailable) -> None:
        """Learn what became of a commit whose reply was lost; return if it happened.

        Raising the epoch first shuts out the lost command itself, which may still be on its way to the server.
        """
        give_up_s = time.monotonic() + self._resolve_s
        while True:
            try:
                with self._lock, unavailable("ask for the outcome of a commit"):
                    self._client.connection_pool.disconnect()
                    status, *rest = self._retake(partition, tenure.fence)
                break
            except LogUnavailable:
                if time.monotonic() > give_up_s:
                    del self._tenures[partition]
                    self._suspects.add(partition)
                    raise CommitUnknown("the outcome of a commit is unknown", partition=partition) from error
                time.sleep(0.1)
        stored = rest[1] if rest else b""
        if status == b"ok":
            tenure.fence = int(rest[0])
        if stored == packed:
            return
        self._raise_refusal(status, partition)
        raise LogUnavailable("a commit did not reach the log", partition=partition) from error

    def _retake(self, partition: int, epoch: int) -> list[bytes]:
        """Raise the epoch of a lease of ours (lock held)."""
        reply: list[bytes] = self._scripts[RETAKE](
            keys=[self._members, self._leases_key, self._checkpoints],
            args=[self._slot, self._incarnation, partition, epoch],
        )
        if reply[0] == b"ok":
            self._leases[partition] = int(reply[1])
        return reply

    # ---- leases

    def _keep_leases(self) -> None:
        """Body of the heartbeat thread."""
        while not self._stopped.wait(HEARTBEAT_S):
            if time.monotonic() - self._last_poll_s > MAX_SILENCE_S:
                continue
            try:
                self._beat()
            except LOST_REPLY:
                continue  # the server is away; poll says so
            except Exception as error:  # a bug: let the thread that polls die of it
                self._failure = error
                self._changed.set()
                return

    def _beat(self) -> None:
        """Renew and take leases."""
        with self._lock:
            held = [number for lease in self._leases.items() for number in lease]
            reply: Any = self._scripts[HEARTBEAT](
                keys=[self._members, self._leases_key],
                args=[self._slot, self._incarnation, self._lease_ms, self._partitions, *held],
            )
            if reply[0] == b"taken":
                self._is_taken = True
            else:
                numbers = [int(number) for number in reply[1:]]
                leases = dict(zip(numbers[1::2], numbers[2::2], strict=True))
                if leases == self._leases and self._share == numbers[0]:
                    return
                self._share, self._leases = numbers[0], leases
        self._changed.set()

    def _follow_leases(self) -> None:
        """Bring tenures in line with the leases: drop lost ones, take up new ones, hand over what is too many."""
        with self._lock:
            leases, share = dict(self._leases), self._share
        for partition in [p for p, tenure in self._tenures.items() if leases.get(p) != tenure.fence]:
            del self._tenures[partition]
        self._unreadable = {p: epoch for p, epoch in self._unreadable.items() if leases.get(p) == epoch}
        for partition in sorted(set(leases) - set(self._tenures) - set(self._unreadable)):
            self._take_up(partition, leases[partition])
        excess = set(sorted(self._tenures)[share:])
        now = time.monotonic()
        for partition, tenure in list(self._tenures.items()):
            if partition not in excess:
                tenure.draining_since = None
            elif tenure.draining_since is None:
                tenure.draining_since = now
            if tenure.draining_since is not None and (tenure.is_drained or now - tenure.draining_since > DRAIN_S):
                with self._lock, unavailable("hand over a partition"):
                    self._release([partition])
                del self._tenures[partition]

    def _take_up(self, partition: int, epoch: int) -> None:
        """Start a tenure at the stored checkpoint."""
        if partition in self._suspects:
            with self._lock, unavailable("take up a partition"):
                status, *rest = self._retake(partition, epoch)
            self._suspects.discard(partition)
            if status != b"ok":
                return
            epoch = int(rest[0])
        with unavailable("read a checkpoint"):
            packed: Any = self._client.hget(self._checkpoints, str(partition))
        try:
            checkpoint = Checkpoint.unpack(packed) if packed else None
        except RejectedInputError as error:
            log.error("partition_stopped", partition=partition, reason=str(error), **error.context)
            self._unreadable[partition] = epoch
            return
        position = checkpoint.offset if checkpoint else 0
        self._tenures[partition] = _Tenure(epoch, epoch, position, checkpoint)

    def _release(self, partitions: list[int]) -> None:
        """Free leases (lock held, or the thread stopped)."""
        leases = [number for p in partitions for number in (p, self._leases.pop(p))]
        self._scripts[RELEASE](keys=[self._leases_key], args=[self._slot, *leases])
