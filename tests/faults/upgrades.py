"""Two releases side by side on one log: a rolling upgrade, the way back, and releases that do not go together."""

import contextlib
import threading
import time
from collections.abc import Iterator
from itertools import chain
from typing import Final

import psutil

from service import topics
from service.log import open_log
from service.wire import unpack_msgpack
from tests.faults.releases import PRESENT, TOO_OLD, TOO_OLD_FOR_CHECKPOINTS
from tests.faults.site import Site
from tests.faults.trial import Trial, fault

ORDER: Final = (("archive", "api", "prefetch"), ("worker-0",), ("worker-1",), ("fanout",))
"""Readers before those who write for them (docs/upgrades.md); those that no alert waits for at once, to save time."""
PACE_S: Final = 2.5
STOPPED_S: Final = 40.0
WATCHED_S: Final = 2.0


@fault(
    "back to the previous release, then upgraded role by role, visits going on",
    "both releases side by side; each readout is done once",
    timeout_s=90.0,
)
def rolling_upgrade(trial: Trial) -> None:
    """The present release's records are read by the previous one, and the other way round."""
    site = trial.site
    trial.expect_logged("worker_stopped", 4)
    begun = _n_manifests(site)
    with _visits(trial):
        site.releases.use(site.releases.older)
        site.roll(*chain.from_iterable(ORDER))
        for worker in ("worker-0", "worker-1"):
            code = psutil.Process(site.child_pid(worker)).environ()["RELEASE_PINNED"]
            assert site.releases.older.code in code, f"{worker} runs {code}"
        site.releases.use(PRESENT)
        for roles in ORDER:
            site.roll(*roles)
    trial.cleared()
    if not site.releases.older.is_foreign:
        trial.expect("manifests of both formats", lambda: len(set(_formats(site)[begun:])) == 2)


@fault(
    "workers and archive of a release too old for their work",
    "nothing is lost, dead-lettered or skipped: it waits for a release that reads it",
    is_long=True,
    timeout_s=90.0,
)
def too_old(trial: Trial) -> None:
    """As where fan-out was upgraded first, and the release between was left out."""
    site = trial.site
    trial.expect_logged("partition_stopped")
    before, n_letters = site.n_logged("partition_stopped"), len(site.ledger.letters)
    site.releases.use(TOO_OLD)
    site.roll("worker-0", "archive")
    site.releases.use(TOO_OLD_FOR_CHECKPOINTS)
    site.roll("worker-1")
    visits = trial.send(2)
    site.wait_for(lambda: site.n_logged("partition_stopped") > before, STOPPED_S, "a partition is stopped")
    time.sleep(WATCHED_S)
    early = [key for visit in visits for key in visit.keys if site.ledger.outcome(key)]
    n_deaths = site.n_logged("role_died")
    site.releases.use(PRESENT)
    site.roll("worker-0", "worker-1", "archive")
    trial.cleared()
    trial.expect(f"nothing came out before: {early}", lambda: not early)
    trial.expect("no dead letter", lambda: len(site.ledger.letters) == n_letters)
    trial.expect("nobody died but those that were told to", lambda: site.n_logged("role_died") == n_deaths + 3)


@contextlib.contextmanager
def _visits(trial: Trial) -> Iterator[None]:
    """A visit every few seconds meanwhile, as the telescope sends them."""
    is_over = threading.Event()
    failed: list[BaseException] = []

    def send() -> None:
        try:
            while not is_over.wait(PACE_S):
                trial.send()
        except BaseException as error:  # carried over to the fault
            failed.append(error)

    thread = threading.Thread(target=send, name="visits")
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
    if failed:
        raise failed[0]


def _formats(site: Site) -> list[int]:
    """Format numbers of the manifests on the log, oldest first."""
    with open_log(site.log_server.direct_url) as log:
        reader = log.reader(topics.MANIFESTS)
        try:
            found: list[int] = []
            end = sum(stop for _, stop in reader.bounds().values())
            while len(found) < end and (messages := reader.poll(1.0)):
                found += [unpack_msgpack(message.value)["format"] for message in messages]
            return found
        finally:
            reader.close()


def _n_manifests(site: Site) -> int:
    return len(_formats(site))
