"""What the choices cost and give, at the prompt and in docs/choices.md."""

from collections.abc import Mapping
from typing import Any, Final

from rich.console import Console
from rich.table import Table

COLUMNS: Final[Mapping[str, tuple[str, float, int]]] = {
    "completeness_snr6": ("completeness 6-100 [%]", 100.0, 1),
    "snr50": ("snr50", 1.0, 2),
    "false_positives": ("false", 1.0, 1),
    "false_positives_snr6": ("false > 6 sigma", 1.0, 1),
    "mas_snr20": ("mas at SNR 20", 1.0, 1),
    "flux_bias_mag": ("flux bias [mmag]", 1000.0, 1),
    "pull_sd": ("pull sd", 1.0, 3),
    "snr_map_sd": ("S/N map sd", 1.0, 3),
}
"""Heading, factor and digits of each figure."""


def show(described: Mapping[str, Any], console: Console) -> None:
    """Two tables: what each choice gives, and by how much that differs from the default."""
    absolute = Table(title="choices: CPU in R, quality against truth", title_justify="left")
    relative = Table(title="choice minus default, with paired errors", title_justify="left")
    for table in (absolute, relative):
        for column in ("choice", "to DIASources", "stage", "", *(heading for heading, _, _ in COLUMNS.values())):
            table.add_column(column, justify="left" if column in ("choice", "stage") else "right")
    for name, entry in described.items():
        costs = (_number(entry["cpu_ratio"], 2), entry["stage"], _number(entry["stage_cpu_ratio"], 2))
        absolute.add_row(name, *costs, *_figures(entry))
        if "difference" in entry:
            costs = (_cost(entry, "cpu_ratio"), entry["stage"], _cost(entry, "stage_cpu_ratio"))
            relative.add_row(name, *costs, *_differences(entry))
    console.print(absolute, relative)
    for name, entry in described.items():
        lost = f"; without a difference: {', '.join(gone)}" if (gone := entry["without_difference"]) else ""
        console.print(f"{name}: {entry['meaning']} ({setting(entry)}{lost})", markup=False, highlight=False)


def markdown(described: Mapping[str, Any]) -> str:
    """The default's figures, and each choice's differences from them."""
    heading = ["choice", "to DIASources [R]", "its stage [R]", *(name for name, _, _ in COLUMNS.values())]
    lines = ["| " + " | ".join(heading) + " |", "|---" * len(heading) + "|"]
    for name, entry in described.items():
        if "difference" in entry:
            stage = f"{entry['stage']} {_cost(entry, 'stage_cpu_ratio')}"
            cells = [_cost(entry, "cpu_ratio"), stage, *_differences(entry)]
        else:
            cells = [_number(entry["cpu_ratio"], 2), "", *_figures(entry)]
        lost = f" ({len(gone)} lost)" if (gone := entry["without_difference"]) else ""
        lines.append("| " + " | ".join([f"`{name}`{lost}", *cells]) + " |")
    return "\n".join(lines)


def setting(entry: Mapping[str, Any]) -> str:
    """The choice as lines of the file that ``SUB60_PIPELINE`` names."""
    return ", ".join(f"{key} = {value!r}" for key, value in entry["setting"].items()) or "no field changed"


def _figures(entry: Mapping[str, Any]) -> list[str]:
    return [_number(entry[name], digits, factor) for name, (_, factor, digits) in COLUMNS.items()]


def _differences(entry: Mapping[str, Any]) -> list[str]:
    cells = []
    for name, (_, factor, digits) in COLUMNS.items():
        difference = entry["difference"][name]
        value, error = _number(difference["value"], digits, factor, "+"), _number(difference["error"], digits, factor)
        cells.append(f"{value} ± {error}")
    return cells


def _cost(entry: Mapping[str, Any], name: str) -> str:
    value, error = entry[f"{name}_difference"], entry[f"{name}_difference_error"]
    return f"{_number(value, 2, sign='+')} ± {_number(error, 2)}"


def _number(value: float | None, digits: int, factor: float = 1.0, sign: str = "") -> str:
    return "-" if value is None else f"{factor * value:{sign}.{digits}f}"
