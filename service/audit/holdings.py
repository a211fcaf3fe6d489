"""What the sources hold, boiled down to numbers: a night of ten million alerts fits in 1.5 GB."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from core.errors import Outcome
from core.ids import visits_of
from service.audit.report import Discrepancy, SourceRange
from service.records import DETECTORS

Key = tuple[int, int]
"""(visit, detector)."""
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One manifest that is no duplicate."""

    time_ms: int
    received_ms: int
    outcome: Outcome
    redrive: int
    n_alerts: int
    id_digest: str
    n_kept: int
    """DIASources after the flag cuts: where there are some there is a result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One result record."""

    time_ms: int
    n_sources: int
    n_forced: int
    midpoint_mjd_tai: float
    is_in_apdb: bool
    """The sink says so: it has committed past this record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One dead letter."""

    time_ms: int
    topic: str
    code: str
    key: Key | None
    payload_hash: bytes


@dataclass(slots=True, kw_only=True)
class Events:
    """Readout events; ``unreadable`` have (time, hash of the payload)."""

    first_ms: dict[Key, int] = field(default_factory=dict)
    hashes: dict[Key, set[bytes]] = field(default_factory=dict)
    """Payloads of a visit-detector, to find the dead letter of one that fan-out refused."""
    unreadable: list[tuple[int, bytes]] = field(default_factory=list)
    n_unresolved: int = 0
    """Object notifications whose sidecar is not here: which visits they announce is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alerts:
    """Alerts of the topic, (n,) each, in the order of :func:`by_visit`."""

    ids: Int64
    time_ms: Int64
    is_filed: NDArray[np.bool_]
    """The file sink has committed past it, and its file is not older than the oldest one here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filed:
    """Alerts of the files in the order of :func:`by_visit`, and the file each is in."""

    ids: Int64
    file: NDArray[np.int32]
    names: tuple[str, ...]
    first_offset: dict[int, int]
    """Partition → offset of the oldest file's first alert."""
    edge: frozenset[Key] = frozenset()
    """Visit-detectors of those first alerts, where older files are gone: a part of them may be gone too."""


@dataclass(slots=True, kw_only=True)
class Holdings:
    """All of it. ``apdb`` None: not audited."""

    events: Events
    verdicts: dict[Key, list[Verdict]]
    alerts: Alerts
    results: dict[Key, list[Stored]]
    letters: list[Letter]
    filed: Filed
    apdb: dict[Key, tuple[int, int]] | None
    """Visit-detector → (rows of DiaSource, rows of DiaForcedSource)."""
    ranges: dict[str, SourceRange]
    problems: list[Discrepancy] = field(default_factory=list)
    """Found while reading: unreadable files and records."""


def by_visit(ids: Int64) -> Int64:
    """Order that sorts ids by visit-detector, then by themselves."""
    return np.lexsort((ids, _numbers(ids)))


def rows_of_visits(ids: Int64) -> dict[Key, slice]:
    """Where the ids of each visit-detector lie in arrays in the order of :func:`by_visit`."""
    if not ids.size:
        return {}
    numbers = _numbers(ids)
    starts = np.flatnonzero(np.append(True, numbers[1:] != numbers[:-1]))
    ends = np.append(starts[1:], ids.size)
    visits, detectors = visits_of(ids[starts])
    return {
        (int(visit), int(detector)): slice(int(start), int(end))
        for visit, detector, start, end in zip(visits, detectors, starts, ends, strict=True)
    }


def _numbers(ids: Int64) -> Int64:
    visits, detectors = visits_of(ids)
    numbers: Int64 = visits * DETECTORS + detectors
    return numbers
