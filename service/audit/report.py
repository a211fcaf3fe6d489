"""What an audit finds, and how it is told."""

from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

EDGE_MS: Final = 10_000
"""Longer than any transaction is open."""


class Kind(StrEnum):
    """Every way in which two sources can disagree: a closed set; the runbook has an entry for each."""

    EVENT_WITHOUT_MANIFEST = "event_without_manifest"
    UNREADABLE_EVENT_WITHOUT_DEAD_LETTER = "unreadable_event_without_dead_letter"
    MANIFEST_WITHOUT_EVENT = "manifest_without_event"
    MANIFEST_TWICE = "manifest_twice"
    ALERTS_DIFFER = "alerts_differ"
    ALERT_TWICE = "alert_twice"
    ALERT_UNANNOUNCED = "alert_unannounced"
    RESULT_MISSING = "result_missing"
    RESULT_TWICE = "result_twice"
    RESULT_UNANNOUNCED = "result_unannounced"
    APDB_MISSING = "apdb_missing"
    APDB_DIFFERS = "apdb_differs"
    APDB_WITHOUT_RESULT = "apdb_without_result"
    ALERT_NOT_IN_FILE = "alert_not_in_file"
    ALERT_IN_TWO_FILES = "alert_in_two_files"
    ALERT_ONLY_IN_FILE = "alert_only_in_file"
    FILE_UNREADABLE = "file_unreadable"
    DEAD_LETTER_WITHOUT_MANIFEST = "dead_letter_without_manifest"
    MANIFEST_WITHOUT_DEAD_LETTER = "manifest_without_dead_letter"
    UNREADABLE_RECORD = "unreadable_record"


@dataclass(frozen=True, slots=True, kw_only=True)
class Discrepancy:
    """Two sources that disagree about one visit-detector, as far as it is known; ``detail`` says what differs."""

    kind: Kind
    detail: str
    visit: int | None = None
    detector: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRange:
    """What one source held. ``first_ms`` and ``last_ms`` are the log server's clock [UTC unix ms], None where unknown.

    ``is_trimmed``: older records than the first are gone; what would stand there is not compared.
    """

    name: str
    n_records: int
    first_ms: int | None = None
    last_ms: int | None = None
    is_trimmed: bool = False
    note: str = ""

    def covers(self, time_ms: int) -> bool:
        """Whether everything of a commit at a time is still held.

        Brokers stamp the records of one commit each by its own clock: at the edge of what is held a part may be gone.
        """
        return not self.is_trimmed or (self.first_ms is not None and time_ms > self.first_ms + EDGE_MS)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """An audit's outcome over visit-detectors whose last word came between ``start_ms`` and the watermark."""

    start_ms: int | None
    watermark_ms: int
    watermark: str
    """Why the watermark is there."""
    n_visit_detectors: int
    n_alerts: int
    """Announced by the manifests compared."""
    sources: tuple[SourceRange, ...]
    discrepancies: tuple[Discrepancy, ...]

    @property
    def is_clean(self) -> bool:
        """Nothing disagrees."""
        return not self.discrepancies

    @property
    def counts(self) -> dict[str, int]:
        """Discrepancies by kind."""
        return dict(Counter(found.kind.value for found in self.discrepancies))

    def source(self, name: str) -> SourceRange:
        """One source by its name."""
        return next(source for source in self.sources if source.name == name)

    def to_json(self) -> dict[str, Any]:
        """Everything, with times as ISO-8601 UTC."""
        sources = [
            asdict(source) | {"first": iso(source.first_ms), "last": iso(source.last_ms)} for source in self.sources
        ]
        return {
            "schema": 1,
            "from": iso(self.start_ms),
            "to": iso(self.watermark_ms),
            "watermark": self.watermark,
            "visit_detectors": self.n_visit_detectors,
            "alerts": self.n_alerts,
            "clean": self.is_clean,
            "counts": self.counts,
            "sources": sources,
            "discrepancies": [asdict(found) | {"kind": found.kind.value} for found in self.discrepancies],
        }


def iso(time_ms: int | None) -> str | None:
    """ISO-8601 UTC of a log server's time."""
    if time_ms is None:
        return None
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
