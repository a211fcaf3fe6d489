"""Which alerts were made with a part of a bundle that turned out to be wrong, by the digests in the manifests."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alerts.files import read_ids
from core.errors import RejectedInputError
from core.ids import visits_of
from service import topics
from service.audit.collect import Progress, TopicScan
from service.log.contract import Log
from service.records import Manifest

Key = tuple[int, int]
"""(visit, detector)."""


@dataclass(slots=True, kw_only=True)
class Use:
    """One content of one part of one detector's bundles, and the visits with alerts that were made with it."""

    detector: int
    band: str
    kind: str
    digest: str
    n_alerts: dict[Key, int]

    @property
    def visits(self) -> list[int]:
        """In order."""
        return sorted(visit for visit, _ in self.n_alerts)


def find_uses(log: Log, kind: str, start_tai_s: float, end_tai_s: float, progress: Progress) -> list[Use]:
    """Every content of a kind of part that alerts were made with between two ends of readout, in order of first use."""
    uses: dict[tuple[int, str, str], Use] = {}
    for _, manifest in TopicScan(log, topics.MANIFESTS, progress).records(Manifest):
        if not manifest.n_alerts or not start_tai_s <= manifest.readout_end_tai_s <= end_tai_s:
            continue
        for part, _, digest, _ in manifest.bundle:
            if part == kind:
                detector, band = manifest.detector, manifest.band
                new = Use(detector=detector, band=band, kind=kind, digest=digest, n_alerts={})
                use = uses.setdefault((detector, band, digest), new)
                use.n_alerts[manifest.visit, manifest.detector] = manifest.n_alerts
    return sorted(uses.values(), key=lambda use: (use.detector, use.band, use.visits[0]))


def ids_of(log: Log, folder: Path, wanted: Iterable[Key], progress: Progress) -> list[int]:
    """diaSourceIds of the alerts of visit-detectors, from the topic and the alert files in ``folder``, in order."""
    keys = set(wanted)
    found: set[int] = set()
    on_topic = (int(message.key) for message in TopicScan(log, topics.ALERTS, progress).messages())
    found |= _chosen(np.fromiter(on_topic, np.int64), keys)
    for path in sorted(folder.glob("alerts-*.avro")):
        try:
            found |= _chosen(read_ids(path), keys)
        except RejectedInputError:
            continue  # `sub60 audit` names it
    return sorted(found)


def _chosen(ids: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]", keys: set[Key]) -> set[int]:
    visits, detectors = visits_of(ids)
    rows = zip(ids.tolist(), visits.tolist(), detectors.tolist(), strict=True)
    return {number for number, visit, detector in rows if (visit, detector) in keys}
