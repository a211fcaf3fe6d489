"""Times of stages as they were measured, one list a detector-visit: what a load test writes and a model reads."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from benchmarks.report import DIA_STAGES_END
from core.errors import ConfigurationError, Outcome
from service.records import Manifest

NAME: Final = "profile.json"
FORMAT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorTimes:
    """One detector-visit: wall [s] and CPU [s] of its stages in their order."""

    stages: tuple[tuple[str, float, float], ...]
    wall_s: float
    cpu_s: float
    """Of the compute child, raw bytes in to serialized alerts out."""
    n_alerts: int

    def pixels(self) -> tuple[tuple[str, float, float], ...]:
        """Stages between the raw and the DIASources: ``read`` first, ``measure`` last, without the bundle."""
        names = [name for name, _, _ in self.stages]
        end = names.index(DIA_STAGES_END) + 1
        return tuple(stage for stage in self.stages[:end] if stage[0] != "bundle")


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Detector-visits of a measured run."""

    detector_visits: tuple[DetectorTimes, ...]

    @classmethod
    def of(cls, manifests: Iterable[Manifest]) -> Self:
        """Of the detector-visits of a run that ended with alerts."""
        found = tuple(
            DetectorTimes(stages=m.timings, wall_s=m.wall_s, cpu_s=m.cpu_s, n_alerts=m.n_alerts)
            for m in manifests
            if m.outcome is Outcome.ALERTS
        )
        if not found:
            raise ConfigurationError("no detector-visit of the run ended with alerts", code="no_profile")
        return cls(detector_visits=found)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """``profile.json`` of a folder."""
        path = folder / NAME
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise ConfigurationError(f"{path} has an unknown format", code="bad_profile")
            return cls(detector_visits=tuple(_times(line) for line in content["detector_visits"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"{path} cannot be read; `sub60 replay DATASET --profile FILE` writes one", code="bad_profile"
            ) from error

    def write(self, folder: Path) -> None:
        """``profile.json`` of a folder."""
        lines = [
            {"stages": d.stages, "wall_s": d.wall_s, "cpu_s": d.cpu_s, "n_alerts": d.n_alerts}
            for d in self.detector_visits
        ]
        (folder / NAME).write_text(json.dumps({"format": FORMAT, "detector_visits": lines}) + "\n", encoding="utf-8")

    def pick(self, visit: int, detector: int) -> DetectorTimes:
        """One of them, the same each time for a detector-visit."""
        return self.detector_visits[(visit * 1_000_003 + detector * 7919) % len(self.detector_visits)]


def _times(line: dict[str, Any]) -> DetectorTimes:
    stages = tuple((str(name), float(wall), float(cpu)) for name, wall, cpu in line["stages"])
    return DetectorTimes(
        stages=stages, wall_s=float(line["wall_s"]), cpu_s=float(line["cpu_s"]), n_alerts=int(line["n_alerts"])
    )
