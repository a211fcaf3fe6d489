"""Visits without end for tests of faults: the simulated raws of the test camera under ever new visit numbers."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.replay import with_sequence
from core.ids import pack_visit, unpack_visit
from tests.support.service.datasets import events, moved_to_now

FIRST_SEQUENCE = 1000
"""Numbers above those of the simulated visits."""

Key = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Visit:
    """One visit's events, times not yet set."""

    next_visit: dict[str, Any]
    readouts: list[dict[str, Any]]
    base: int
    """The simulated visit whose pixels these are."""

    @property
    def keys(self) -> list[Key]:
        """(visit, detector) of its readouts."""
        return [(event["visit"], event["detector"]) for event in self.readouts]


class Night:
    """Makes visits in a dataset whose ``raw`` folder may be written."""

    def __init__(self, dataset: Path) -> None:
        self.dataset = dataset
        self._nexts = {event["groupId"]: event for event in events(dataset, "next-visit")}
        self._groups: dict[str, list[dict[str, Any]]] = {}
        for event in events(dataset, "readout"):
            self._groups.setdefault(event["group"], []).append(event)
        self.n_made = 0

    def visit(self) -> Visit:
        """The next one; its raws are written."""
        groups = sorted(self._groups)
        base = self._groups[groups[self.n_made % len(groups)]]
        group = f"fault-{self.n_made}"
        visit = pack_visit(unpack_visit(base[0]["visit"])[0], FIRST_SEQUENCE + self.n_made)
        self.n_made += 1
        readouts = [self._readout(event, visit, group) for event in base]
        announced = self._nexts[base[0]["group"]] | {"groupId": group, "visit": visit}
        return Visit(next_visit=announced, readouts=readouts, base=base[0]["visit"])

    def raw(self, event: dict[str, Any]) -> Path:
        """The raw file of a readout."""
        return self.dataset / event["uri"]

    def _readout(self, event: dict[str, Any], visit: int, group: str) -> dict[str, Any]:
        raw = self.raw(event)
        copy = raw.with_name(f"{visit}_{event['detector']:03d}.fits")
        copy.write_bytes(with_sequence(raw.read_bytes(), unpack_visit(visit)[1]))
        ephemerides = self.dataset / "ephemerides"
        if (source := ephemerides / f"{event['visit']}.fits").is_file():
            shutil.copyfile(source, ephemerides / f"{visit}.fits")
        changed = {name: value for name, value in event.items() if name != "digest"}
        return changed | {"visit": visit, "group": group, "uri": str(copy.relative_to(self.dataset))}


def payload(event: dict[str, Any], t0: float | None = None) -> bytes:
    """The event as sent, its readout ended half a second ago or at ``t0`` [TAI unix s]."""
    return json.dumps(moved_to_now(event, t0)).encode()
