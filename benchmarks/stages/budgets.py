"""What each stage may cost: ``benchmarks/budgets.toml``, CPU in units of R."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Final

PATH: Final = Path(__file__).resolve().parent.parent / "budgets.toml"
MAX_TOTAL: Final = 32.0
"""From the raw's bytes to the DIASource catalog no budget is above this."""
MIN_STAGE: Final = 0.15
"""No budget is below this: there the clock's noise is more than any quarter."""
_HEADER: Final = """\
# CPU that each stage may take at full size, in units of R: CPU seconds of sep.Background(bw=128, bh=128) on the same
# frame in the same run. A median above its budget fails `make bench`. Written by `sub60 bench --write-budgets` as the
# measured median times `headroom`; the total (raw bytes to DIASource catalog) is never above 32.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """Budgets by stage, and of all stages to the DIASource catalog [R]."""

    stages: Mapping[str, float]
    total: float
    headroom: float = 1.25


def read_budgets(path: Path = PATH) -> Budgets:
    """Budgets as committed."""
    text = tomllib.loads(path.read_text(encoding="utf-8"))
    return Budgets(stages=text["stages"], total=min(text["total"], MAX_TOTAL), headroom=text["headroom"])


def budgets_from(medians: Mapping[str, float], total: float, headroom: float = 1.25) -> Budgets:
    """Budgets for measured medians [R], in steps of a twentieth."""
    stages = {name: max(ceil(20 * headroom * value) / 20, MIN_STAGE) for name, value in medians.items()}
    return Budgets(stages=stages, total=min(ceil(headroom * total), MAX_TOTAL), headroom=headroom)


def write_budgets(budgets: Budgets, path: Path = PATH) -> None:
    """Replace the file."""
    lines = [f"headroom = {budgets.headroom}", f"total = {budgets.total:.1f}", "", "[stages]"]
    lines += [f"{name} = {value:.2f}" for name, value in budgets.stages.items()]
    path.write_text(_HEADER + "\n".join(lines) + "\n", encoding="utf-8")
