"""The demo's whole job on the small test camera: simulate, stream through every role, count, compare with truth."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.demo import DemoPlan, run_demo
from benchmarks.replay import partitions_for
from benchmarks.report import read_report

N_READOUTS = 6


def test_detectors_spread_over_the_workers() -> None:
    assert partitions_for([94, 4], 2) == 17  # 7 would give both to one worker where the shorter range comes first
    assert partitions_for([0, 1], 2) == 2
    assert partitions_for([5], 2) >= 2


@pytest.mark.timeout(600)
def test_every_readout_has_an_outcome_and_no_alert_is_lost_repeated_or_broken(tmp_path: Path) -> None:
    report, wrong = run_demo(DemoPlan(folder=tmp_path, preset="test"), Console(quiet=True))
    report.write(tmp_path / "report.json")
    read_report(tmp_path / "report.json")
    found = json.loads((tmp_path / "report.json").read_text())
    assert wrong == []
    assert found["detector_visits"] == sum(found["outcomes"].values()) == N_READOUTS
    alerts = found["alerts"]
    assert alerts["published"] == alerts["consumed"] == alerts["unique"] > 10 * N_READOUTS
    assert alerts["lost"] == alerts["duplicates"] == alerts["invalid"] == 0
    assert alerts["id_digest_mismatches"] == alerts["unannounced"] == 0
    assert alerts["with_previous_sources"] > 0
    assert found["rerun_same_ids"] == N_READOUTS
    assert found["latency_s"]["p95"] < 60
    assert found["dia_source_columns"]["non_null_95"] >= 60
    assert found["cpu_ratio"] > 0
    assert found["detector_cpu_s"]["p50"] >= found["dia_cpu_s"]["p50"]  # helper threads are counted in both
    assert found["quality"]["injected"] > 10 * N_READOUTS
    assert found["quality"]["completeness_snr10"] > 0.7
