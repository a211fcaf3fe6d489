"""The report of the stage benchmarks and its table."""

from statistics import median
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.environment import environment
from benchmarks.quality.rerun import simulation
from benchmarks.report import Report, quantiles
from benchmarks.stages.budgets import Budgets
from benchmarks.stages.workbench import TOTAL, Compared, Rounds, Workbench

_PERCENTS: Final = (50, 95, 99)


def make_report(bench: Workbench, budgets: Budgets) -> Report:
    """All rounds, their percentiles, budgets and references."""
    made = simulation(bench.dataset)
    everything = [value for rounds in bench.measured.values() for value in rounds.reference_cpu_s]
    rows = {
        name: _row(rounds, budgets.total if name == TOTAL else budgets.stages.get(name), bench.compared.get(name, []))
        for name, rounds in bench.measured.items()
    }
    values: dict[str, Any] = {
        "schema": 1,
        "environment": environment(),
        "command": "bench",
        "seeds": [made["seed"]] if "seed" in made else [],
        "detector_visits": 1,
        "reference_cpu_s": median(everything) if everything else 0.0,
        "stages": {
            name: {"wall_s": quantiles(r.wall_s, *_PERCENTS), "cpu_s": quantiles(r.cpu_s, *_PERCENTS)}
            for name, r in bench.measured.items()
            if name != TOTAL
        },
        "budgets": rows,
        "process": bench.figures,
    }
    if TOTAL in bench.measured:
        values["dia_cpu_ratio"] = median(bench.measured[TOTAL].ratios)
        values["dia_cpu_s"] = quantiles(bench.measured[TOTAL].cpu_s, 50, 95)
    return Report.model_validate(values)


def _row(rounds: Rounds, budget: float | None, compared: list[Compared]) -> dict[str, Any]:
    ratios = rounds.ratios
    return {
        "x_r": quantiles(ratios, *_PERCENTS),
        "rounds_x_r": ratios,
        "budget_x_r": budget,
        "is_kept": budget is None or median(ratios) <= budget,
        "references": {
            one.name: {
                "x_r": quantiles(one.rounds.ratios, *_PERCENTS),
                "ratio_to_ours": median(one.rounds.ratios) / median(ratios),
                "agreement": one.agreement,
            }
            for one in compared
        },
    }


def show(report: dict[str, Any], console: Console) -> None:
    """Print the table of a report of this kind."""
    where = report["environment"]
    versions = ", ".join(f"{name} {where['versions'][name]}" for name in ("python", "numpy", "numba", "sep"))
    console.print(f"{where['cpu']}, {where['cores']} cores; {versions}; commit {where['commit'][:12]}", markup=False)
    console.print(f"R = {1000 * report['reference_cpu_s']:.1f} ms of CPU: sep.Background(bw=128, bh=128) on this frame")
    table = Table(title="CPU of each stage in units of R, one full detector", title_justify="left")
    for column in ("stage", "p50", "p95", "p99", "budget", "reference", "its p50", "over ours", "agreement", "verdict"):
        table.add_column(column, justify="left" if column in _TEXT else "right")
    for name, row in report["budgets"].items():
        x_r, references = row["x_r"], row["references"]
        budget = "" if row["budget_x_r"] is None else f"{row['budget_x_r']:.2f}"
        table.add_row(
            name, *(f"{x_r[p]:.2f}" for p in ("p50", "p95", "p99")), budget, "\n".join(references),
            "\n".join(f"{r['x_r']['p50']:.2f}" for r in references.values()),
            "\n".join(f"{r['ratio_to_ours']:.1f}" for r in references.values()),
            "\n".join(r["agreement"] for r in references.values()), "ok" if row["is_kept"] else "OVER BUDGET",
        )  # fmt: skip
    console.print(table)
    _show_process(report["process"], console)


def _show_process(figures: dict[str, Any], console: Console) -> None:
    for one in figures.get("largest_allocations", [])[:3]:
        console.print(f"allocated by a second visit: {one['bytes'] / 1e6:.1f} MB at {one['place']}", markup=False)
    if leak := figures.get("leak"):
        console.print(f"{leak['visits']} visits: the process grew by {leak['growth_bytes'] / 1e6:.1f} MB")
    for number, start in enumerate(figures.get("child_start", []), start=1):
        console.print(f"start {number} of a compute child: {start['cpu_s']:.1f} s CPU, {start['wall_s']:.1f} s wall")


_TEXT: Final = {"stage", "reference", "agreement", "verdict"}
