"""Steps of a load as a table."""

from collections.abc import Sequence

from rich.table import Table

from benchmarks.load.limit import LoadStep


def steps_table(steps: Sequence[LoadStep]) -> Table:
    """One line a load."""
    table = Table(title="load", title_justify="left")
    for name in ("detectors", "cadence s", "readouts", "p50 s", "p95 s", "p99 s", "CPU p50 s", "busy", "lost", "lag s"):
        table.add_column(name, justify="right")
    for step in steps:
        table.add_row(
            str(step.detectors), f"{step.cadence_s:g}", str(step.detector_visits), f"{step.p50_s:.2f}",
            f"{step.p95_s:.2f}", f"{step.p99_s:.2f}", f"{step.cpu_p50_s:.2f}", f"{step.busy:.2f}", str(step.lost),
            f"{step.lag_s:.3f}",
        )  # fmt: skip
    return table
