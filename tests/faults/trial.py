"""One fault tried on a site: what went in, what had to come out, and the account of both."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg2

from core.errors import Outcome
from service.clock import SystemClock
from service.topics import NEXT_VISIT, READOUT
from tests.faults.night import Key, Visit, payload
from tests.faults.site import Site

QUIET_S: Final = 0.6
"""Watched on after all is there, for what must not come."""
ARCHIVED_S: Final = 40.0
WITH_RESULT: Final = (Outcome.ALERTS, Outcome.HELD)


@dataclass(slots=True, kw_only=True)
class Row:
    """The line of one fault in the report."""

    promise: str
    events: int
    alerts: int
    lost: int
    duplicates: int
    recovery_s: float | None
    problems: list[str]
    wall_s: float = 0.0
    """Of the whole trial."""

    @property
    def passed(self) -> bool:
        """Whether the promise was kept."""
        return not (self.lost or self.duplicates or self.problems)


def failed_row(promise: str, error: Exception) -> Row:
    """The line of a fault that could not be tried to its end."""
    return Row(
        promise=promise, events=0, alerts=0, lost=0, duplicates=0, recovery_s=None, problems=[str(error)[:300] or "?"]
    )


@dataclass(slots=True)
class Trial:
    """What a fault does with a site goes through here, so that it is accounted for."""

    site: Site
    visits: list[Visit] = field(default_factory=list)
    expected: dict[Key, Outcome] = field(default_factory=dict)
    """Of every readout sent."""
    n_extra: int = 0
    """Readouts sent again: so many duplicates must be acknowledged."""
    cleared_s: float | None = None
    checks: list[tuple[str, Callable[[], bool]]] = field(default_factory=list)
    note: str = ""
    """Shown where a check fails."""

    def visit(self, outcome: Outcome = Outcome.ALERTS) -> Visit:
        """A visit that the fault will send itself."""
        visit = self.site.night.visit()
        self.visits.append(visit)
        self.expected |= dict.fromkeys(visit.keys, outcome)
        return visit

    def announce(self, visit: Visit) -> None:
        """Its next-visit event."""
        self.site.publish(NEXT_VISIT, payload(visit.next_visit))

    def read_out(self, visit: Visit, t0: float | None = None) -> None:
        """Its readouts, ended just now or at ``t0``."""
        for event in visit.readouts:
            self.site.publish(READOUT, payload(event, t0))

    def send(self, n_visits: int = 1, outcome: Outcome = Outcome.ALERTS, lead_s: float = 0.3) -> list[Visit]:
        """Visits as the observatory sends them, one after another."""
        sent = []
        for _ in range(n_visits):
            visit = self.visit(outcome)
            self.announce(visit)
            time.sleep(lead_s)
            self.read_out(visit)
            sent.append(visit)
        return sent

    def cleared(self) -> None:
        """The fault is over: from now on the time to recovery counts."""
        self.cleared_s = time.monotonic()

    def expect(self, what: str, condition: Callable[[], bool]) -> None:
        """Something else that must hold in the end."""
        self.checks.append((what, condition))

    def expect_metric(self, name: str, at_least: float = 1.0, **labels: str) -> None:
        """A metric that must have moved since now."""
        before = self.site.metric(name, **labels)
        self.expect(f"{name}{labels or ''}", lambda: self.site.metric(name, **labels) >= before + at_least)

    def expect_logged(self, event: str, at_least: int = 1) -> None:
        """An event that must have been logged since now."""
        before = self.site.n_logged(event)
        self.expect(f"log event {event}", lambda: self.site.n_logged(event) >= before + at_least)

    def settle(self, promise: str, timeout_s: float, recovery_limit_s: float) -> Row:
        """Wait for the end, then count."""
        site, ledger, keys = self.site, self.site.ledger, list(self.expected)
        problems: list[str] = []
        self._wait(lambda: all(ledger.is_whole(key) for key in keys), timeout_s, "all is out", problems)
        self._wait(site.is_ready, timeout_s, "all roles are ready again", problems)
        if ledger.error is not None:
            raise ledger.error
        self._wait(self._is_archived, ARCHIVED_S, "the APDB has every result", problems)
        for what, condition in self.checks:
            n_before = len(problems)
            self._wait(condition, 10.0, what, problems)
            problems[n_before:] = [f"{problem}; {self.note}" for problem in problems[n_before:]]
        time.sleep(QUIET_S)
        recovery = None
        if self.cleared_s is not None and not problems:
            recovery = max(0.0, max(ledger.seen_at_s(key) for key in keys) - self.cleared_s)
            if recovery > recovery_limit_s:
                problems.append(f"recovered after {recovery:.1f} s, allowed {recovery_limit_s:g} s")
        ids = [i for key in keys for i in ledger.ids(key)]
        row = Row(
            promise=promise,
            events=len(keys) + self.n_extra,
            alerts=len(set(ids)),
            lost=sum(self._n_lost(key) for key in keys),
            duplicates=len(ids) - len(set(ids)) + sum(self._n_repeated(key) for key in keys),
            recovery_s=recovery,
            problems=problems,
        )
        problems += [problem for key in keys for problem in self._problems(key)]
        if (n := sum(ledger.n_duplicates(key) for key in keys)) < self.n_extra:
            problems.append(f"{n} of {self.n_extra} repeated readouts acknowledged as duplicates")
        problems += ledger.invalid
        return row

    def _n_lost(self, key: Key) -> int:
        manifest = self.site.ledger.outcome(key)
        return 1 if manifest is None else max(0, manifest.n_alerts - len(set(self.site.ledger.ids(key))))

    def _n_repeated(self, key: Key) -> int:
        """Manifests and results beyond the first."""
        ledger = self.site.ledger
        runs = [manifest.redrive for manifest in ledger.outcomes(key)]
        n_results = len({m.redrive for m in ledger.outcomes(key) if m.outcome in WITH_RESULT})
        return len(runs) - len(set(runs)) + max(0, ledger.results[key] - max(1, n_results))

    def _problems(self, key: Key) -> list[str]:
        ledger, found = self.site.ledger, []
        manifest = ledger.outcome(key)
        if manifest is None:
            return []  # counted as lost
        if manifest.outcome is not self.expected[key]:
            found.append(
                f"{key}: {manifest.outcome.value} ({manifest.code}: {manifest.message}), not {self.expected[key]}"
            )
        if not ledger.is_exact(key):
            found.append(f"{key}: the alerts are not those of the manifest")
        if manifest.outcome is Outcome.ALERTS and not manifest.counts["optional_dropped"]:
            base = next(visit.base for visit in self.visits if key in visit.keys)
            rows = self.site.rows.setdefault((base, key[1]), ledger.rows(key))
            if rows != ledger.rows(key):
                found.append(f"{key}: other alerts than from the same pixels before")
        return found

    def _is_archived(self) -> bool:
        wanted = {key: m.n_alerts for key in self.expected if (m := self.site.ledger.outcome(key)) and m.n_alerts}
        try:
            connection = psycopg2.connect(self.site.postgres.plain_url, connect_timeout=5)
        except psycopg2.OperationalError:
            return False
        with connection, connection.cursor() as cursor:
            visits = tuple({visit for visit, _ in wanted}) or (0,)
            cursor.execute(
                'SELECT visit, detector, count(*) FROM "DiaSource" WHERE visit IN %s GROUP BY visit, detector',
                (visits,),
            )
            found = {(visit, detector): n for visit, detector, n in cursor.fetchall()}
        connection.close()
        return {key: found.get(key, 0) for key in wanted} == wanted

    @staticmethod
    def _wait(condition: Callable[[], bool], timeout_s: float, what: str, problems: list[str]) -> None:
        try:
            Site.wait_for(condition, timeout_s, what)
        except AssertionError as error:
            problems.append(str(error))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One row of the matrix."""

    name: str
    promise: str
    run: Callable[[Trial], None]
    victim: str = ""
    """The process that it kills."""
    is_around_commit: bool = False
    """Tried on Kafka too where time is short."""
    is_last: bool = False
    """Tried when all others have been."""
    is_long: bool = False
    """Not tried where time is short."""
    transports: tuple[str, ...] = ("redis", "kafka")
    timeout_s: float = 60.0
    recovery_limit_s: float = 20.0

    def try_on(self, site: Site, patience: float = 1.0) -> Row:
        """Do it, and account for it; all that is waited for may take ``patience`` times as long."""
        trial, started = Trial(site), time.monotonic()
        self.run(trial)
        row = trial.settle(self.promise, patience * self.timeout_s, patience * self.recovery_limit_s)
        row.wall_s = time.monotonic() - started
        return row


FAULTS: Final[list[Fault]] = []


def fault(name: str, promise: str, **options: Any) -> Callable[[Callable[[Trial], None]], Callable[[Trial], None]]:
    """Put a function into the matrix."""

    def add(run: Callable[[Trial], None]) -> Callable[[Trial], None]:
        FAULTS.append(Fault(name=name, promise=promise, run=run, **options))
        return run

    return add


def now_s() -> float:
    """TAI unix seconds."""
    return SystemClock().tai_s()
