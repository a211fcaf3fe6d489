"""A worker process for the log's contract tests: commits three records for every message it gets.

::

    python -m tests.support.log_worker URL TOPIC OUT SLOT [normal|freeze|die_in_commit|die_after_commit]

Writes one line per event: ``joined``, ``frozen``, ``commit PARTITION OFFSET``, ``fenced PARTITION OFFSET``, ``taken``.
"""

import os
import signal
import sys
from typing import Any

from service.log import Checkpoint, Fenced, IdentityTaken, LogUnavailable, Message, Record, WorkerLog, open_log

RECORDS = 3
GROUP = "group"


def outputs(topic: str, message: Message, slot: int) -> list[Record]:
    """What a job yields: the message's value, numbered; spread over the partitions of the output topic."""
    return [
        Record(topic, key=b"%d" % i, value=b"%s/%d" % (message.value, i), headers={"slot": b"%d" % slot})
        for i in range(RECORDS)
    ]


def after(worker: WorkerLog, message: Message) -> Checkpoint:
    """Checkpoint after a message; its offset serves as visit."""
    before = worker.checkpoint(message.partition) or Checkpoint()
    return before.advance(message, visit=2025_0101_00000 + message.offset, detector=message.partition)


def say(*words: object) -> None:
    """One line to the test."""
    print(*words, flush=True)


def die() -> None:
    """As by kill -9."""
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    url, topic, out, slot, mode = sys.argv[1:6]
    worker = open_log(url).join(GROUP, topic, int(slot))
    say("joined")
    while True:
        try:
            messages = worker.poll(0.2)
        except IdentityTaken:
            say("taken")
            return
        except LogUnavailable:
            continue
        for message in messages:
            if mode == "freeze":
                mode = "normal"
                say("frozen")
                os.kill(os.getpid(), signal.SIGSTOP)
            elif mode.startswith("die"):
                arm(worker, mode)
            try:
                worker.commit(
                    message.partition, after(worker, message), outputs(out, message, int(slot)), epoch=message.epoch
                )
                say("commit", message.partition, message.offset)
            except Fenced:
                say("fenced", message.partition, message.offset)


def arm(worker: Any, mode: str) -> None:
    """Make the next commit end in this process's death, halfway or when it is done but not yet known to us."""
    if hasattr(worker, "_consumer"):
        arm_kafka(worker, mode)
    else:
        arm_redis(worker, mode)


def arm_kafka(worker: Any, mode: str) -> None:
    producer = worker._producer

    class Deadly:
        def __getattr__(self, name: str) -> Any:
            return getattr(producer, name)

        def commit_transaction(self, timeout: float) -> None:
            if mode == "die_after_commit":
                producer.commit_transaction(timeout)
            else:
                producer.flush(timeout)  # records and offset are on the broker, the transaction is open
            die()

    worker._producer = Deadly()


def arm_redis(worker: Any, mode: str) -> None:
    from service.log.redis_scripts import COMMIT

    script = worker._scripts[COMMIT]

    def deadly(keys: list[str], args: list[Any]) -> None:
        if mode == "die_after_commit":
            script(keys=keys, args=args)
            die()
        connection = worker._client.connection_pool.get_connection()
        packed = b"".join(connection.pack_command("EVALSHA", script.sha, len(keys), *keys, *args))
        connection.send_packed_command([packed[: len(packed) // 2]])
        die()

    worker._scripts[COMMIT] = deadly


if __name__ == "__main__":
    main()
