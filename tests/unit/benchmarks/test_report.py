"""The report: its keys, its arithmetic, and the schema file that publishes it."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from benchmarks.environment import environment
from benchmarks.readme_table import BEGIN, END, rewrite, table
from benchmarks.report import Report, nearest_rank, quantiles, read_report, service_section
from core.errors import Outcome
from service.records import Committed, Manifest

SCHEMA = Path(__file__).parents[3] / "benchmarks" / "schema" / "report-1.json"


def manifest(detector: int, cpu_s: float) -> Manifest:
    return Manifest(
        instrument="LSSTCam", group="g", visit=2026112000001, detector=detector, band="r", outcome=Outcome.ALERTS,
        timings=(("isr", 0.2, 0.1), ("measure", 0.4, 0.3), ("features", 0.1, 0.1)), cpu_s=cpu_s, wall_s=2 * cpu_s,
        bundle=(("template", "redis", "d", 1), ("history", "redis" if detector else "cold", "e", 1)), n_alerts=3,
    )  # fmt: skip


def committed(detector: int, latency_s: float, *, suspect: bool = False) -> Committed:
    return Committed(
        visit=2026112000001, detector=detector, band="r", outcome=Outcome.ALERTS, n_alerts=1, committed_tai_s=1.0,
        commit_s=0.01, latency_s=latency_s, shutter_latency_s=latency_s + 2, is_clock_suspect=suspect,
        reference_cpu_s=0.1, reference_wall_s=0.2,
    )  # fmt: skip


def full_report() -> Report:
    manifests = [manifest(0, 1.0), manifest(1, 3.0), manifest(2, 1.2)]
    parts = service_section(manifests, [committed(0, 2.0), committed(1, 4.0), committed(2, 900.0, suspect=True)])
    alerts = {
        "published": 9, "consumed": 9, "unique": 9, "duplicates": 0, "lost": 0, "invalid": 0, "bytes_mean": 7e4,
    }  # fmt: skip
    return Report.model_validate(
        {"schema": 1, "environment": environment(), "command": "demo", "alerts": alerts, **parts}
    )


def test_percentiles_are_of_nearest_rank() -> None:
    values = [float(v) for v in range(1, 21)]
    assert nearest_rank(values, 95) == 19.0
    assert nearest_rank(values[:6], 95) == 6.0
    assert nearest_rank([7.0], 50) == 7.0
    assert quantiles([3.0, 1.0, 2.0], 50, with_max=True) == {"p50": 2.0, "max": 3.0}
    assert quantiles([], 50) is None


def test_the_service_section_adds_up() -> None:
    report = full_report().model_dump(by_alias=True)
    assert report["outcomes"] == {"alerts": 3}
    assert report["latency_s"] == {"p50": 2.0, "p95": 4.0, "p99": 4.0, "max": 4.0}
    assert report["clock_suspect"] == 1
    assert report["cpu_ratio"] == pytest.approx(12.0)
    assert report["wall_ratio"] == pytest.approx(12.0)
    assert report["dia_cpu_s"]["p50"] == pytest.approx(0.4)
    assert report["bundle"] == {"template": {"redis": 3}, "history": {"cold": 1, "redis": 2}}
    assert list(report["stages"]) == ["isr", "measure", "features"]


def test_a_report_survives_its_file(tmp_path: Path) -> None:
    full_report().write(tmp_path / "r.json")
    again = read_report(tmp_path / "r.json")
    assert again.model_dump(exclude_unset=True) == full_report().model_dump(exclude_unset=True)
    written = json.loads((tmp_path / "r.json").read_text())
    assert written["schema"] == 1
    assert "quality" not in written


def test_a_report_without_environment_or_with_bad_counts_is_refused() -> None:
    with pytest.raises(ValidationError):
        Report.model_validate({"schema": 1, "command": "demo"})
    with pytest.raises(ValidationError):
        Report.model_validate(
            {"schema": 1, "environment": environment(), "command": "demo", "alerts": {"published": 1}}
        )


def test_the_schema_file_is_the_model() -> None:
    assert json.loads(SCHEMA.read_text()) == Report.model_json_schema(by_alias=True), "benchmarks/schema is stale"


def test_the_readme_table_is_written_from_a_report() -> None:
    report = json.loads(full_report().model_dump_json(by_alias=True, exclude_unset=True))
    text = rewrite(f"before\n{BEGIN}\nold\n{END}\nafter\n", table(report))
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "0 / 0 / 0" in text
    assert "4.00 s" in text
    with pytest.raises(ValueError, match="markers"):
        rewrite("no markers", "x")
