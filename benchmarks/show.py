"""The report at the prompt: what came out, how fast, how good."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.table import Table

from benchmarks.readme_table import ROWS
from benchmarks.report import field


def show(report: Mapping[str, Any], console: Console) -> None:
    """Print the tables of a report."""
    console.print(Group(_delivery(report), _stages(report)))
    if field(report, "quality") is not None:
        console.print(_quality(report))


def _delivery(report: Mapping[str, Any]) -> Table:
    table = Table(title="delivery and speed", title_justify="left", show_header=False)
    outcomes = ", ".join(f"{count} {name}" for name, count in report.get("outcomes", {}).items())
    table.add_row("outcomes", outcomes)
    counts = report.get("alerts", {})
    names = ("published", "consumed", "unique", "lost", "duplicates", "invalid")
    table.add_row("alerts", ", ".join(f"{counts[name]} {name}" for name in names if name in counts))
    for name in ("latency_s", "commit_s", "detector_cpu_s", "detector_wall_s", "dia_cpu_s"):
        if (values := report.get(name)) is not None:
            table.add_row(name, "  ".join(f"{key} {value:.3f}" for key, value in values.items()))
    for name in ("reference_cpu_s", "cpu_ratio", "dia_cpu_ratio", "wall_ratio"):
        if (value := report.get(name)) is not None:
            table.add_row(name, f"{value:.3f}")
    sources = report.get("bundle", {})
    table.add_row("bundle", "; ".join(f"{kind} {_counts(found)}" for kind, found in sources.items()))
    if (columns := report.get("dia_source_columns")) is not None:
        table.add_row("columns non-null in >= 95 %", f"{columns['non_null_95']} of {columns['of']}")
    return table


def _counts(found: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {source}" for source, count in found.items())


def _stages(report: Mapping[str, Any]) -> Table:
    table = Table(title="stages", title_justify="left")
    for column in ("stage", "wall p50", "p95", "CPU p50", "p95", "in R"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    reference = report.get("reference_cpu_s")
    for name, times in report.get("stages", {}).items():
        wall, cpu = times["wall_s"], times["cpu_s"]
        in_r = f"{cpu['p50'] / reference:.2f}" if reference else ""
        table.add_row(name, f"{wall['p50']:.3f}", f"{wall['p95']:.3f}", f"{cpu['p50']:.3f}", f"{cpu['p95']:.3f}", in_r)
    return table


def _quality(report: Mapping[str, Any]) -> Table:
    table = Table(title="quality against truth", title_justify="left", show_header=False)
    for label, path, form in ROWS:
        if path.startswith("quality."):
            value = field(report, path)
            table.add_row(label, "not enough sources" if value is None else form(value))
    bins = field(report, "quality.completeness") or {}
    table.add_row("completeness by SNR_true", "  ".join(f"{name}: {value:.2f}" for name, value in bins.items()))
    causes = field(report, "quality.false_positives.by_cause") or {}
    table.add_row("false positives by cause", "  ".join(f"{name} {value:.1f}" for name, value in causes.items()))
    table.add_row("S/N map sd", f"{field(report, 'quality.snr_map_sd') or float('nan'):.3f}")
    return table
