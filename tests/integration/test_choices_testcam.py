"""``bench-choices`` from a dataset to its report, on the small test camera."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.choices import command
from benchmarks.report import read_report
from tests.support.service.datasets import make_testcam


@pytest.fixture(scope="module")
def dataset(request: pytest.FixtureRequest) -> Path:
    """The simulated dataset of the test camera."""
    return make_testcam(request.config.cache.mkdir("testcam") / "dataset")


def test_each_choice_is_run_timed_and_compared(dataset: Path, tmp_path: Path) -> None:
    path = tmp_path / "choices.json"
    arguments = ["--dataset", str(dataset), "--detector-visits", "2", "--report", str(path)]
    done = CliRunner().invoke(command, [*arguments, "--choices", "psf_1_round,kernel_order_1"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    read_report(path)
    report = json.loads(path.read_text())
    assert report["detector_visits"] == 2
    assert list(report["choices"]) == ["default", "psf_1_round", "kernel_order_1"]
    for name, entry in report["choices"].items():
        assert entry["detector_visits"] == 2, name
        assert 0 < entry["completeness_snr6"] <= 1, name
        assert entry["cpu_ratio"] > (entry["stage_cpu_ratio"] or 0) > -1, name
    linear = report["choices"]["kernel_order_1"]
    assert linear["setting"] == {"subtract.kernel.spatial_order": 1}
    assert linear["snr_map_sd"] - report["choices"]["default"]["snr_map_sd"] == pytest.approx(
        linear["difference"]["snr_map_sd"]["value"]
    )
    assert "kernel varies linearly (subtract.kernel.spatial_order = 1)" in done.output


def test_an_unknown_choice_is_refused_with_those_there_are(dataset: Path) -> None:
    done = CliRunner().invoke(command, ["--dataset", str(dataset), "--choices", "psf_piffle"])
    assert done.exit_code == 2
    assert "no such choice: psf_piffle" in done.output
    assert "lanczos_4" in done.output
