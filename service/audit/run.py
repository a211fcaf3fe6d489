"""One audit, from an open log to its report."""

from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from core.timescales import unix_tai_to_utc
from service import topics
from service.audit.collect import (
    Progress,
    TopicScan,
    collect_alerts,
    collect_events,
    collect_letters,
    collect_manifests,
    collect_results,
)
from service.audit.compare import Scope, compare, in_scope
from service.audit.files import NAME as FILES_NAME
from service.audit.files import collect_files
from service.audit.holdings import Holdings, Key, Stored
from service.audit.report import AuditReport, SourceRange
from service.clock import Clock
from service.log.contract import Log
from service.settings import Settings

SETTLE_S: Final = 120.0
"""What is younger may still be under way."""
APDB_NAME: Final = "APDB"

T = TypeVar("T")


class RowCounter(Protocol):
    """What is asked of the APDB."""

    def count_rows(self, start_mjd_tai: float, end_mjd_tai: float) -> dict[Key, tuple[int, int]] | None:
        """Rows of sources and of forced sources by visit-detector; None where the database cannot be asked so."""


def audit(
    log: Log,
    settings: Settings,
    clock: Clock,
    *,
    apdb: RowCounter | None = None,
    start_tai_s: float | None = None,
    end_tai_s: float | None = None,
    settle_s: float = SETTLE_S,
    progress: Progress = lambda name, n_read, n_held: None,
) -> AuditReport:
    """Reconcile readout events, manifests, alerts, results, dead letters, the APDB and the alert files.

    Compared are visit-detectors whose last manifest (else event, alert, …) was written from ``start_tai_s`` (default:
    the oldest) to ``end_tai_s``, and at least ``settle_s`` ago. The APDB and the files are compared as far as their
    sinks have written. ``apdb`` None: not audited. Raises ``LogUnavailable``.
    """
    watermark_s, why = clock.tai_s() - settle_s, f"now minus {settle_s:g} s"
    if end_tai_s is not None and end_tai_s < watermark_s:
        watermark_s, why = end_tai_s, "--to"
    start_ms = None if start_tai_s is None else _utc_ms(start_tai_s)
    scope = Scope(start_ms=start_ms, end_ms=_utc_ms(watermark_s))
    held = read_holdings(log, settings, apdb, progress)
    keys = in_scope(held, scope)
    progress("compare visit-detectors", 0, len(keys))
    discrepancies = tuple(compare(held, scope))
    progress("compare visit-detectors", len(keys), len(keys))
    return AuditReport(
        start_ms=scope.start_ms,
        watermark_ms=scope.end_ms,
        watermark=why,
        n_visit_detectors=len(keys),
        n_alerts=sum(verdict.n_alerts for verdicts in keys.values() for verdict in verdicts),
        sources=tuple(held.ranges.values()),
        discrepancies=discrepancies,
    )


def read_holdings(log: Log, settings: Settings, apdb: RowCounter | None, progress: Progress) -> Holdings:
    """Read every source once, what comes of something before that something: nothing young looks like a surplus."""
    ranges: dict[str, SourceRange] = {}
    problems = []

    def scan(topic: str, take: Any, *more: Any) -> Any:
        scanned = TopicScan(log, topic, progress)
        taken = take(scanned, *more)
        ranges[topic] = scanned.range()
        problems.extend(scanned.problems)
        return taken

    filed, ranges[FILES_NAME], found = collect_files(Path(settings.state_dir) / "alerts", progress)
    problems += found
    results = scan(topics.RESULTS, collect_results, log)
    rows, ranges[APDB_NAME] = _ask_apdb(apdb, results, progress)
    alerts = scan(topics.ALERTS, collect_alerts, log, filed)
    verdicts = scan(topics.MANIFESTS, collect_manifests)
    letters = scan(topics.DEAD_LETTERS, collect_letters)
    events = scan(topics.READOUT, collect_events, settings.dataset)
    return Holdings(
        events=events,
        verdicts=verdicts,
        alerts=alerts,
        results=results,
        letters=letters,
        filed=filed,
        apdb=rows,
        ranges=ranges,
        problems=problems,
    )


def _ask_apdb(
    apdb: RowCounter | None, results: dict[Key, list[Stored]], progress: Progress
) -> tuple[dict[Key, tuple[int, int]] | None, SourceRange]:
    midpoints = [stored.midpoint_mjd_tai for found in results.values() for stored in found]
    if apdb is None or not midpoints:
        return None, SourceRange(name=APDB_NAME, n_records=0, note="not audited: none, or no result is held")
    start, end = min(midpoints), max(midpoints)
    progress(APDB_NAME, 0, 1)
    rows = apdb.count_rows(start, end)
    progress(APDB_NAME, 1, 1)
    if rows is None:
        return None, SourceRange(name=APDB_NAME, n_records=0, note="not audited: no SQL database")
    n_written = sum(stored.is_in_apdb for found in results.values() for stored in found)
    note = f"midpoints {start:.5f} to {end:.5f} MJD TAI; the sink has written {n_written} of {len(midpoints)} results"
    return rows, SourceRange(name=APDB_NAME, n_records=sum(n for n, _ in rows.values()), note=note)


def _utc_ms(tai_s: float) -> int:
    return int(unix_tai_to_utc(tai_s) * 1000)
