"""Releases of the service that the roles of a site can be started from, and the switch between them."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from service.log.contract import CHECKPOINT_FORMAT
from service.records import FORMAT

ROOT: Final = Path(__file__).resolve().parents[2]
SWITCH: Final = ROOT / "tests" / "support" / "release_switch"
RECORDS: Final = "service.records"
CHECKPOINTS: Final = "service.log.contract"


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Code, and what is changed of it where a release is made up."""

    code: str = str(ROOT)
    is_foreign: bool = False
    """Code of another commit."""
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Module → constant → value."""
    lacks: tuple[str, ...] = ()
    """Fields of records that it does not write."""
    adds: dict[str, Any] = field(default_factory=dict)
    """Fields of records that only it has."""


PRESENT: Final = Release()
PREVIOUS: Final = Release(
    values={
        RECORDS: {"FORMAT": FORMAT - 1, "READABLE_FORMATS": (FORMAT - 1, FORMAT)},
        CHECKPOINTS: {
            "CHECKPOINT_FORMAT": CHECKPOINT_FORMAT - 1,
            "CHECKPOINT_FORMATS_READ": (CHECKPOINT_FORMAT - 1, CHECKPOINT_FORMAT),
        },
    },
    lacks=("may_be_old", "n_dropped"),
    adds={"dropped_since": 1},
)
"""The present code one format back. It reads ours already, as the rule of upgrades wants."""
TOO_OLD: Final = Release(values={RECORDS: {"FORMAT": FORMAT - 1, "READABLE_FORMATS": (FORMAT - 1,)}})
"""Does not read our records: a release was left out."""
TOO_OLD_FOR_CHECKPOINTS: Final = Release(
    values={
        CHECKPOINTS: {"CHECKPOINT_FORMAT": CHECKPOINT_FORMAT - 1, "CHECKPOINT_FORMATS_READ": (CHECKPOINT_FORMAT - 1,)}
    }
)


def of_checkout(folder: Path) -> Release:
    """The release of a commit that is checked out in ``folder``."""
    return Release(code=str(folder.resolve()), is_foreign=True)


class Releases:
    """The switch of one site. ``older``: a checkout that takes the place of :data:`PREVIOUS`."""

    def __init__(self, folder: Path, older: Path | None = None) -> None:
        self._plan = folder / "release.json"
        self.older = PREVIOUS if older is None else of_checkout(older)
        self.use(PRESENT)

    @property
    def environment(self) -> dict[str, str]:
        """What the processes of the site need to be switched."""
        # without the safe path the working directory would come before any release
        return {"PYTHONPATH": str(SWITCH), "PYTHONSAFEPATH": "1", "RELEASE_PLAN": str(self._plan)}

    def use(self, release: Release) -> None:
        """Of every role that is started from now on."""
        partial = self._plan.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(release)), encoding="utf-8")
        partial.replace(self._plan)
