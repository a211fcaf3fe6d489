"""Events that come twice, late, early, in any order, with clocks that are off, or as garbage."""

import random
import time

from core.errors import Outcome
from service.topics import NEXT_VISIT, READOUT
from tests.faults.night import payload
from tests.faults.trial import Trial, fault, now_s


@fault("each event sent 1 to 4 times, jittered", "done once, the rest acknowledged as duplicates")
def repeated(trial: Trial) -> None:
    """In any order, copies of a readout far apart."""
    rng = random.Random(4)
    plan = []
    for visit in (trial.visit(), trial.visit()):
        for topic, event in [(NEXT_VISIT, visit.next_visit), *((READOUT, event) for event in visit.readouts)]:
            n_copies = rng.randint(1, 4)
            trial.n_extra += (n_copies - 1) * (topic == READOUT)
            plan += [(rng.uniform(0, 4), topic, payload(event)) for _ in range(n_copies)]
    started = time.monotonic()
    for at_s, topic, value in sorted(plan):
        time.sleep(max(0.0, started + at_s - time.monotonic()))
        trial.site.publish(topic, value)


@fault("readouts ten minutes late", "sent all the same, counted as late")
def late(trial: Trial) -> None:
    """A backlog."""
    trial.expect_metric("sub60_deadline_missed_total")
    trial.read_out(trial.visit(), now_s() - 600)


@fault("readouts thirteen hours old", "outcome expired, no alerts")
def expired(trial: Trial) -> None:
    """Beyond the limit."""
    trial.expect_metric("sub60_visits_total", outcome="expired")
    trial.read_out(trial.visit(Outcome.EXPIRED), now_s() - 13 * 3600)


@fault("visits and detectors in reverse order", "each done once")
def reordered(trial: Trial) -> None:
    """The last visit's last detector first."""
    visits = [trial.visit() for _ in range(2)]
    for visit in reversed(visits):
        trial.announce(visit)
        for event in reversed(visit.readouts):
            trial.site.publish(READOUT, payload(event))


@fault("readout before its next-visit", "cold, whole")
def too_early(trial: Trial) -> None:
    """The hint comes when it is of no use."""
    visit = trial.visit()
    trial.read_out(visit)
    trial.announce(visit)


def clock_off(trial: Trial, seconds: float) -> None:
    """The sender's clock is wrong; the latency histogram must not be."""
    trial.expect_metric("sub60_clock_suspect_total")
    before = trial.site.metric("sub60_alert_latency_seconds_count")
    trial.expect(
        "latency histogram left alone", lambda: trial.site.metric("sub60_alert_latency_seconds_count") == before
    )
    visit = trial.visit()
    trial.announce(visit)
    trial.read_out(visit, now_s() + seconds)


for _seconds in (60.0, -60.0, 37.0, -37.0):
    fault(f"sender's clock off by {_seconds:+g} s", "alerts sent, clock_suspect, latency left out")(
        lambda trial, seconds=_seconds: clock_off(trial, seconds)  # type: ignore[misc]
    )


@fault("garbage on both input topics", "a dead letter each, with cause; good events go on")
def garbage(trial: Trial) -> None:
    """No JSON, no event, another instrument."""
    bad = [b"\xff\x00", b"[1]", b"{}", b'{"instrument": "other"}']
    n_letters = len(trial.site.ledger.letters)
    for value in bad:
        trial.site.publish(NEXT_VISIT, value)
        trial.site.publish(READOUT, value)
    trial.send()
    trial.expect("a dead letter each", lambda: len(trial.site.ledger.letters) == n_letters + 2 * len(bad))


@fault("alerts held by an operator, released, redriven", "results go on; each alert is sent once, after")
def held(trial: Trial) -> None:
    """As at 3 a.m., with a flat taken for science."""
    site, ledger = trial.site, trial.site.ledger
    site.command("hold", "--reason", "a test")
    visit = trial.send(outcome=Outcome.HELD)[0]
    site.wait_for(lambda: all(ledger.outcome(key) and ledger.results[key] for key in visit.keys), 40, "results are out")
    assert not any(ledger.ids(key) for key in visit.keys)
    site.command("release")
    trial.expected |= dict.fromkeys(visit.keys, Outcome.ALERTS)
    for _ in range(2):  # in haste, twice
        site.command("redrive", "--held", "--visit", str(visit.keys[0][0]), "--go")
    site.wait_for(lambda: all(ledger.ids(key) for key in visit.keys), 40, "the alerts are out")
