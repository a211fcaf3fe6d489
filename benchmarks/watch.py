"""Follows a run by its manifests and committed records, and shows it."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from rich.table import Table

from core.errors import Outcome
from service import topics
from service.log import Log, Reader
from service.records import Committed, Manifest, unpack
from service.roles.archive import lag

Key = tuple[int, int]


@dataclass(slots=True)
class Progress:
    """What is known of each readout of a run, by (visit, detector)."""

    announced: set[str] = field(default_factory=set)
    """Groups whose next-visit event is out."""
    read_out: dict[Key, float] = field(default_factory=dict)
    """When a readout was published [monotonic s]."""
    manifests: dict[Key, Manifest] = field(default_factory=dict)
    committed: dict[Key, Committed] = field(default_factory=dict)
    n_duplicates: int = 0

    def take_manifest(self, manifest: Manifest) -> None:
        """Outcomes belong to readouts: a duplicate's is counted beside the first one's."""
        key = (manifest.visit, manifest.detector)
        if manifest.outcome is Outcome.DUPLICATE:
            self.n_duplicates += 1
            return
        self.manifests[key] = manifest

    def n_alerts(self) -> int:
        """Alerts in the manifests so far."""
        return sum(manifest.n_alerts for manifest in self.manifests.values())


class Follower:
    """Reads both topics from the moment it is made."""

    def __init__(self, log: Log) -> None:
        self._manifests = log.reader(topics.MANIFESTS, start="latest")
        self._committed = log.reader(topics.COMMITTED, start="latest")
        self.progress = Progress()
        self.turn(0.0)

    def turn(self, timeout_s: float) -> None:
        """Take what is new."""
        for message in self._manifests.poll(timeout_s):
            self.progress.take_manifest(unpack(Manifest, message.value))
        for message in self._committed.poll(0.0):
            record = unpack(Committed, message.value)
            if record.outcome is not Outcome.DUPLICATE:
                self.progress.committed[record.visit, record.detector] = record

    def wait_for(self, keys: Iterable[Key], timeout_s: float) -> None:
        """Until all of these have a committed record, or the time is over: those may be lost."""
        wanted = set(keys)
        until = time.monotonic() + timeout_s
        while wanted - set(self.progress.committed) and time.monotonic() < until:
            self.turn(0.1)

    def close(self) -> None:
        """Release connections."""
        readers: tuple[Reader, ...] = (self._manifests, self._committed)
        for reader in readers:
            reader.close()


def sink_lag(log: Log, name: str, topic: str) -> int:
    """Records of a topic that a sink has not written."""
    reader = log.reader(topic, name=name)
    try:
        return lag(reader)
    finally:
        reader.close()


def live_table(progress: Progress, readouts: Iterable[tuple[str, int, int, str]]) -> Table:
    """One line a readout, of (group, visit, detector, band)."""
    table = Table(title="readouts", title_justify="left")
    for column, justify in (("visit", "left"), ("band", "left"), ("detector", "right"), ("state", "left")):
        table.add_column(column, justify="right" if justify == "right" else "left")
    for column in ("alerts", "latency s", "CPU s", "worker"):
        table.add_column(column, justify="right")
    for group, visit, detector, band in readouts:
        key = (visit, detector)
        manifest, committed = progress.manifests.get(key), progress.committed.get(key)
        table.add_row(
            str(visit),
            band,
            str(detector),
            _state(progress, group, key),
            str(manifest.n_alerts) if manifest else "",
            f"{committed.latency_s:.2f}" if committed else "",
            f"{manifest.cpu_s:.2f}" if manifest else "",
            manifest.worker if manifest else "",
        )
    return table


def _state(progress: Progress, group: str, key: Key) -> str:
    if (manifest := progress.manifests.get(key)) is not None:
        return manifest.outcome.value + (f" ({manifest.code})" if manifest.code else "")
    if (since := progress.read_out.get(key)) is not None:
        return f"read out {time.monotonic() - since:.0f} s ago"
    return "announced" if group in progress.announced else ""
