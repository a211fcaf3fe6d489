"""Times of stages as they were measured, one list a detector-visit: what a load test writes and a model reads."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from benchmarks.report import DIA_STAGES_END
from core.errors import ConfigurationError, Outcome
from service.records import Committed, Manifest

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
    alert_bytes: int
    commit_s: float
    """From the answer's arrival to the commit's return."""
    bundle: dict[str, int]
    """Packed bytes by kind of part."""

    def pixels(self) -> tuple[tuple[str, float, float], ...]:
        """Stages between the raw and the DIASources: ``read`` first, ``measure`` last, without the bundle."""
        names = [name for name, _, _ in self.stages]
        end = names.index(DIA_STAGES_END) + 1
        return tuple(stage for stage in self.stages[:end] if stage[0] != "bundle")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleUsage:
    """What the processes of one kind took."""

    n: int
    cpu_s: float
    """A detector-visit, all processes of the kind together."""
    rss_mb: float
    """Most that one process held, mean over the kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Detector-visits of a measured run."""

    detector_visits: tuple[DetectorTimes, ...]
    roles: dict[str, RoleUsage]
    """By kind of process (:mod:`benchmarks.load.usage`)."""

    @classmethod
    def of(
        cls, manifests: Iterable[Manifest], committed: Mapping[tuple[int, int], Committed], roles: dict[str, RoleUsage]
    ) -> Self:
        """Of the detector-visits of a run that ended with alerts, and whose commit is on record."""
        found = tuple(
            DetectorTimes(
                stages=m.timings,
                wall_s=m.wall_s,
                cpu_s=m.cpu_s,
                n_alerts=m.n_alerts,
                alert_bytes=m.alert_bytes,
                commit_s=committed[m.visit, m.detector].commit_s,
                bundle={kind: nbytes for kind, _, _, nbytes in m.bundle},
            )
            for m in manifests
            if m.outcome is Outcome.ALERTS and (m.visit, m.detector) in committed
        )
        if not found:
            raise ConfigurationError("no detector-visit of the run ended with alerts", code="no_profile")
        return cls(detector_visits=found, roles=roles)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """``profile.json`` of a folder."""
        path = folder / NAME
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise ConfigurationError(f"{path} has an unknown format", code="bad_profile")
            return cls(
                detector_visits=tuple(DetectorTimes(**_tuples(line)) for line in content["detector_visits"]),
                roles={name: RoleUsage(**values) for name, values in content["roles"].items()},
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"{path} cannot be read; `sub60 replay DATASET --profile FILE` writes one", code="bad_profile"
            ) from error

    def write(self, folder: Path) -> None:
        """``profile.json`` of a folder."""
        content = {
            "format": FORMAT,
            "detector_visits": [asdict(times) for times in self.detector_visits],
            "roles": {name: asdict(role) for name, role in self.roles.items()},
        }
        (folder / NAME).write_text(json.dumps(content) + "\n", encoding="utf-8")

    def pick(self, visit: int, detector: int) -> DetectorTimes:
        """One of them, the same each time for a detector-visit."""
        return self.detector_visits[(visit * 1_000_003 + detector * 7919) % len(self.detector_visits)]


def _tuples(line: dict[str, Any]) -> dict[str, Any]:
    return line | {"stages": tuple((str(name), float(wall), float(cpu)) for name, wall, cpu in line["stages"])}
