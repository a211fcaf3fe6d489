"""Holds the sources against each other; each function yields the discrepancies of one pair."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from core.errors import Outcome
from service import topics
from service.audit.holdings import Holdings, Int64, Key, Stored, Verdict, rows_of_visits
from service.audit.report import Discrepancy, Kind
from service.roles.commit_records import id_digest

EDGE_MS: Final = 60_000
"""A readout's event stands in its topic at most this long before fan-out takes it, for the edge of a trimmed topic."""
DEAD: Final = (Outcome.REJECTED, Outcome.CRASHED)
"""Outcomes whose commit carries a dead letter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Times that are compared [UTC unix ms]."""

    start_ms: int | None
    end_ms: int

    def has(self, time_ms: int) -> bool:
        """Whether something written then is compared."""
        return (self.start_ms is None or time_ms >= self.start_ms) and time_ms <= self.end_ms


def compare(held: Holdings, scope: Scope) -> Iterator[Discrepancy]:
    """Every discrepancy."""
    yield from held.problems
    yield from compare_events(held, scope)
    yield from compare_manifests(held, scope)
    yield from compare_alerts(held, scope)
    yield from compare_results(held, scope)
    yield from compare_apdb(held, scope)
    yield from compare_files(held, scope)
    yield from compare_letters(held, scope)


def in_scope(held: Holdings, scope: Scope) -> dict[Key, list[Verdict]]:
    """Visit-detectors whose last word came within the scope."""
    return {key: verdicts for key, verdicts in held.verdicts.items() if scope.has(verdicts[-1].time_ms)}


def compare_events(held: Holdings, scope: Scope) -> Iterator[Discrepancy]:
    """Readout events against manifests, and against the dead letters of those that fan-out refused."""
    manifests, letters = held.ranges[topics.MANIFESTS], held.ranges[topics.DEAD_LETTERS]
    refused = {letter.payload_hash for letter in held.letters if letter.topic == topics.READOUT}
    for (visit, detector), time_ms in held.events.first_ms.items():
        is_answered = (visit, detector) in held.verdicts or held.events.hashes[visit, detector] & refused
        if scope.has(time_ms) and manifests.covers(time_ms) and letters.covers(time_ms) and not is_answered:
            detail = "a readout event, and no manifest and no dead letter"
            yield Discrepancy(kind=Kind.EVENT_WITHOUT_MANIFEST, visit=visit, detector=detector, detail=detail)
    for time_ms, payload_hash in held.events.unreadable:
        if scope.has(time_ms) and letters.covers(time_ms) and payload_hash not in refused:
            detail = f"an event of {topics.READOUT} that cannot be read, and no dead letter"
            yield Discrepancy(kind=Kind.UNREADABLE_EVENT_WITHOUT_DEAD_LETTER, detail=detail)


def compare_manifests(held: Holdings, scope: Scope) -> Iterator[Discrepancy]:
    """Manifests against events, and against each other."""
    events = held.ranges[topics.READOUT]
    for (visit, detector), verdicts in in_scope(held, scope).items():
        if (
            (visit, detector) not in held.events.first_ms
            and not held.events.n_unresolved
            and events.covers(verdicts[0].received_ms - EDGE_MS)
        ):
            detail = f"a manifest ({verdicts[-1].outcome.value}), and no readout event"
            yield Discrepancy(kind=Kind.MANIFEST_WITHOUT_EVENT, visit=visit, detector=detector, detail=detail)
        redrives = [verdict.redrive for verdict in verdicts]
        for redrive in sorted({number for number in redrives if redrives.count(number) > 1}):
            outcomes = ", ".join(verdict.outcome.value for verdict in verdicts if verdict.redrive == redrive)
            detail = f"{redrives.count(redrive)} manifests of redrive {redrive} that are no duplicates: {outcomes}"
            yield Discrepancy(kind=Kind.MANIFEST_TWICE, visit=visit, detector=detector, detail=detail)


def compare_alerts(held: Holdings, scope: Scope) -> Iterator[Discrepancy]:
    """Alerts against the manifests; where the topic is trimmed the files stand for it."""
    alerts, files = held.alerts, held.filed
    topic, manifests = held.ranges[topics.ALERTS], held.ranges[topics.MANIFESTS]
    on_topic, in_files = rows_of_visits(alerts.ids), rows_of_visits(files.ids)
    edge_ms = max((held.verdicts[key][-1].time_ms for key in files.edge if key in held.verdicts), default=-1)
    for (visit, detector), verdicts in in_scope(held, scope).items():
        where, ids = "on the topic", alerts.ids[on_topic.get((visit, detector), slice(0))]
        sent_ms = _sent_ms(verdicts)
        if not topic.covers(sent_ms):
            if not files.ids.size or sent_ms <= edge_ms:
                continue  # older than what either holds
            where, ids = "in the files", files.ids[in_files.get((visit, detector), slice(0))]
        unique, counts = np.unique(ids, return_counts=True)
        if where == "on the topic" and (counts > 1).any():
            detail = f"{_some(unique[counts > 1])} stand more than once on the topic"
            yield Discrepancy(kind=Kind.ALERT_TWICE, visit=visit, detector=detector, detail=detail)
        if (differs := _differ(verdicts, unique)) is not None:
            kind = Kind.ALERTS_DIFFER if any(v.n_alerts for v in verdicts) else Kind.ALERT_UNANNOUNCED
            yield Discrepancy(kind=kind, visit=visit, detector=detector, detail=f"{differs} {where}")
    for (visit, detector), rows in on_topic.items():
        time_ms = int(alerts.time_ms[rows].min())
        if (visit, detector) not in held.verdicts and scope.has(time_ms) and manifests.covers(time_ms):
            detail = f"{_some(alerts.ids[rows])} on the topic, and no manifest"
            yield Discrepancy(kind=Kind.ALERT_UNANNOUNCED, visit=visit, detector=detector, detail=detail)


def compare_results(held: Holdings, scope: Scope) -> Iterator[Discrepancy]:
    """Results against the manifests: one for each that kept sources."""
    results, manifests = held.ranges[topics.RESULTS], held.ranges[topics.MANIFESTS]
    for (visit, detector), verdicts in in_scope(held, scope).items():
        found = [stored for stored in held.results.get((visit, detector), ()) if stored.n_sources]
        n_wanted = sum(verdict.n_kept > 0 for verdict in verdicts)
        if not results.covers(verdicts[0].time_ms):
            continue
        if len(found) < n_wanted:
            detail = f"{n_wanted} manifests with sources, {len(found)} results"
            yield Discrepancy(kind=Kind.RESULT_MISSING, visit=visit, detector=detector, detail=detail)
        if len(found) > n_wanted:
            detail = f"{n_wanted} manifests with sources, {len(found)} results"
            yield Discrepancy(kind=Kind.RESULT_TWICE, visit=visit, detector=detector, detail=detail)
    for (visit, detector), found in held.results.items():
        time_ms = found[-1].time_ms
        if (visit, detector) not in held.verdicts and scope.has(time_ms) and manifests.covers(time_ms):
            detail = "a result, and no manifest"
            yield Discrepancy(kind=Kind.RESULT_UNANNOUNCED, visit=visit, detector=detector, detail=detail)


def compare_apdb(held: Holdings, scope: Scope) -> Iterator[Discrepancy]:
    """Rows of the APDB against the results that its sink has written; of a redriven one the first is stored."""
    if held.apdb is None:
        return
    results, keys = held.ranges[topics.RESULTS], in_scope(held, scope)
    for (visit, detector), stored in held.results.items():
        first = stored[0]
        has_rows = bool(first.n_sources or first.n_forced)
        if (visit, detector) not in keys or not first.is_in_apdb or not has_rows:
            continue
        rows = held.apdb.get((visit, detector))
        if rows is None:
            detail = f"a result of {_rows(first)} that the sink has written, and no row"
            yield Discrepancy(kind=Kind.APDB_MISSING, visit=visit, detector=detector, detail=detail)
        elif rows not in [(s.n_sources, s.n_forced) for s in stored if s.is_in_apdb]:
            detail = f"the result has {_rows(first)}, the APDB {rows[0]} and {rows[1]}"
            yield Discrepancy(kind=Kind.APDB_DIFFERS, visit=visit, detector=detector, detail=detail)
    for (visit, detector), rows in held.apdb.items():
        verdicts = held.verdicts.get((visit, detector))
        is_asked = (
            not held.ranges[topics.MANIFESTS].is_trimmed and not results.is_trimmed
            if verdicts is None
            else (visit, detector) in keys and results.covers(verdicts[0].time_ms)
        )
        if is_asked and (visit, detector) not in held.results:
            detail = f"{rows[0]} sources and {rows[1]} forced sources in the APDB, and no result"
            yield Discrepancy(kind=Kind.APDB_WITHOUT_RESULT, visit=visit, detector=detector, detail=detail)


def compare_files(held: Holdings, scope: Scope) -> Iterator[Discrepancy]:
    """Alerts of the topic against those of the files, as far as the file sink has written."""
    alerts, files, keys = held.alerts, held.filed, in_scope(held, scope)
    topic, manifests = held.ranges[topics.ALERTS], held.ranges[topics.MANIFESTS]
    on_topic, in_files = rows_of_visits(alerts.ids), rows_of_visits(files.ids)
    for key in on_topic.keys() | in_files.keys():
        verdicts = held.verdicts.get(key)
        if (key not in keys) if verdicts is not None else manifests.is_trimmed:
            continue
        visit, detector = key
        rows, lines = on_topic.get(key, slice(0)), in_files.get(key, slice(0))
        ids, filed = np.unique(alerts.ids[rows]), files.ids[lines]
        if np.array_equal(ids, filed):  # nearly always: the rest takes ten times as long
            continue
        missing = np.setdiff1d(alerts.ids[rows][alerts.is_filed[rows]], filed)
        if missing.size:
            detail = f"{_some(missing)} that the file sink has passed, and no file has them"
            yield Discrepancy(kind=Kind.ALERT_NOT_IN_FILE, visit=visit, detector=detector, detail=detail)
        unique, counts = np.unique(filed, return_counts=True)
        twice = unique[counts > 1]
        if twice.size:
            names = ", ".join(files.names[i] for i in np.unique(files.file[lines][np.isin(filed, twice)])[:4])
            detail = f"{_some(twice)} stand more than once in {names}"
            yield Discrepancy(kind=Kind.ALERT_IN_TWO_FILES, visit=visit, detector=detector, detail=detail)
        is_held = not topic.is_trimmed if verdicts is None else topic.covers(_sent_ms(verdicts))
        only = np.setdiff1d(unique, ids) if is_held else unique[:0]
        if only.size:
            detail = f"{_some(only)} in the files, never on the topic"
            yield Discrepancy(kind=Kind.ALERT_ONLY_IN_FILE, visit=visit, detector=detector, detail=detail)


def compare_letters(held: Holdings, scope: Scope) -> Iterator[Discrepancy]:
    """Dead letters of readouts against manifests; what fan-out refused has neither visit nor manifest."""
    manifests, range_ = held.ranges[topics.MANIFESTS], held.ranges[topics.DEAD_LETTERS]
    with_letter: dict[Key, int] = {}
    for letter in held.letters:
        if letter.key is None:
            continue
        with_letter[letter.key] = with_letter.get(letter.key, 0) + 1
        if letter.key not in held.verdicts and scope.has(letter.time_ms) and manifests.covers(letter.time_ms):
            visit, detector = letter.key
            detail = f"a dead letter ({letter.code}), and no manifest"
            yield Discrepancy(kind=Kind.DEAD_LETTER_WITHOUT_MANIFEST, visit=visit, detector=detector, detail=detail)
    for (visit, detector), verdicts in in_scope(held, scope).items():
        n_dead = sum(verdict.outcome in DEAD for verdict in verdicts)
        if range_.covers(verdicts[0].time_ms) and n_dead > with_letter.get((visit, detector), 0):
            detail = f"{n_dead} manifests ({verdicts[-1].outcome.value}), too few dead letters"
            yield Discrepancy(kind=Kind.MANIFEST_WITHOUT_DEAD_LETTER, visit=visit, detector=detector, detail=detail)


def _differ(verdicts: list[Verdict], unique: Int64) -> str | None:
    """How the ids of a visit-detector differ from what its manifests announce; None where they do not."""
    announcing = [verdict for verdict in verdicts if verdict.n_alerts]
    n_alerts = sum(verdict.n_alerts for verdict in announcing)
    if n_alerts != unique.size:
        return f"{n_alerts} alerts announced, {unique.size} found"
    if len(announcing) == 1 and id_digest(unique) != announcing[0].id_digest:
        return f"{n_alerts} alerts announced and found, with other ids than id_digest says,"
    return None


def _sent_ms(verdicts: list[Verdict]) -> int:
    """When the alerts of a visit-detector went out: a redriven one's with its last manifest."""
    return min((verdict.time_ms for verdict in verdicts if verdict.n_alerts), default=verdicts[-1].time_ms)


def _rows(stored: Stored) -> str:
    return f"{stored.n_sources} sources and {stored.n_forced} forced sources"


def _some(ids: Int64) -> str:
    names = ", ".join(str(number) for number in ids[:3].tolist())
    return f"{ids.size} alerts ({names}{', …' if ids.size > 3 else ''})"
