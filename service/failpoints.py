"""Steps of the service at which a test of faults can end a process as by ``kill -9``, or let it stand.

Off unless ``SUB60_FAILPOINTS`` names a folder. There, a file named like a step ends the first process that comes to
it, or stops it (SIGSTOP) if ``stop`` is written in the file; the file is gone then, which says that the step was
reached.
"""

import os
import signal
from enum import StrEnum
from pathlib import Path


class Failpoint(StrEnum):
    """All steps, in the order in which a readout comes by them."""

    FANOUT_POLLED = "fanout-polled"
    FANOUT_APPENDED = "fanout-appended"
    FANOUT_COMMITTED = "fanout-committed"
    PREFETCH_POLLED = "prefetch-polled"
    PREFETCH_ARRAYS = "prefetch-arrays"
    PREFETCH_PUBLISHED = "prefetch-published"
    CHILD_PREPARING = "child-preparing"
    CHILD_PREPARED = "child-prepared"
    WORKER_POLLED = "worker-polled"
    WORKER_COUNTED = "worker-counted"
    WORKER_SENT = "worker-sent"
    CHILD_RECEIVED = "child-received"
    CHILD_READ = "child-read"
    CHILD_BUNDLE = "child-bundle"
    CHILD_MEASURED = "child-measured"
    CHILD_CLAIMED = "child-claimed"
    CHILD_FINISHED = "child-finished"
    CHILD_PACKAGED = "child-packaged"
    CHILD_ANSWERED = "child-answered"
    WORKER_ANSWERED = "worker-answered"
    COMMIT_STARTED = "commit-started"
    COMMIT_OPENED = "commit-opened"
    COMMIT_APPENDED = "commit-appended"
    COMMIT_OFFSET = "commit-offset"
    COMMIT_DONE = "commit-done"
    WORKER_COMMITTED = "worker-committed"
    WORKER_MARKED = "worker-marked"
    WORKER_REPORTED = "worker-reported"
    HISTORY_POLLED = "history-polled"
    HISTORY_WRITTEN = "history-written"
    HISTORY_COMMITTED = "history-committed"
    APDB_POLLED = "apdb-polled"
    APDB_WRITTEN = "apdb-written"
    APDB_COMMITTED = "apdb-committed"
    FILES_POLLED = "files-polled"
    FILES_WRITTEN = "files-written"
    FILES_COMMITTED = "files-committed"


IN_TRANSACTION = frozenset({Failpoint.COMMIT_OPENED, Failpoint.COMMIT_APPENDED, Failpoint.COMMIT_OFFSET})
"""Steps that only Kafka has: a commit on Redis is one script."""

STOP = "stop"

_folder: list[Path] = []


def arm(folder: str) -> None:
    """Heed the files of a folder from now on; empty: none."""
    _folder[:] = [Path(folder)] if folder else []


def reach(step: Failpoint) -> None:
    """This process comes by a step."""
    if not _folder:
        return
    file = _folder[0] / step
    try:
        order = file.read_text()
        file.unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGSTOP if order == STOP else signal.SIGKILL)
