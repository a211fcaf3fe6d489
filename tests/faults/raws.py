"""Raw files that are broken, absent, late, or kill who reads them."""

import threading
import time

from core.errors import Outcome
from service.failpoints import Failpoint
from service.topics import READOUT
from tests.faults.night import payload
from tests.faults.trial import Trial, fault


@fault("raw truncated", "outcome bad_raw, the neighbor comes out")
def truncated(trial: Trial) -> None:
    """Of one detector."""
    visit = trial.visit()
    raw = trial.site.night.raw(visit.readouts[0])
    raw.write_bytes(raw.read_bytes()[:40_000])
    trial.expected[visit.keys[0]] = Outcome.BAD_RAW
    trial.expect_metric("sub60_visits_total", outcome="bad_raw")
    trial.read_out(visit)


@fault("raw unreadable", "outcome bad_raw after a few seconds")
def unreadable(trial: Trial) -> None:
    """A link to nowhere: opening it fails, as on a store that is broken."""
    visit = trial.visit()
    raw = trial.site.night.raw(visit.readouts[0])
    raw.unlink()
    raw.symlink_to(raw.with_name("nowhere.fits"))
    trial.expected[visit.keys[0]] = Outcome.BAD_RAW
    trial.read_out(visit)


@fault("raw appears 2 s after its event", "waited for, whole")
def appears_late(trial: Trial) -> None:
    """As on a store that is eventually consistent."""
    visit = trial.visit()
    raw = trial.site.night.raw(visit.readouts[0])
    hidden = raw.rename(raw.with_suffix(".hidden"))
    trial.read_out(visit)
    time.sleep(2)
    hidden.rename(raw)
    trial.cleared()


@fault("raw that kills the child each time", "third death is a dead letter, outcome crashed; the neighbor comes out")
def poison(trial: Trial) -> None:
    """The child dies whenever it has read it."""
    site = trial.site
    visit = trial.visit()
    good, bad = visit.readouts
    n_letters = len(site.ledger.letters)
    site.publish(READOUT, payload(good))
    site.wait_for(lambda: site.ledger.is_whole(visit.keys[0]), 30, "the good one is out")
    trial.expected[visit.keys[1]] = Outcome.CRASHED
    armed = site.failpoints / Failpoint.CHILD_READ
    is_over = threading.Event()

    def arm() -> None:
        while not is_over.wait(0.02):
            armed.touch()

    armed.touch()
    thread = threading.Thread(target=arm)
    thread.start()
    site.publish(READOUT, payload(bad))
    try:
        site.wait_for(lambda: site.ledger.outcome(visit.keys[1]) is not None, 60, "it is given up")
    finally:
        is_over.set()
        thread.join()
        armed.unlink(missing_ok=True)
    trial.cleared()
    trial.expect("its dead letter", lambda: len(site.ledger.letters) == n_letters + 1)
    trial.send()
