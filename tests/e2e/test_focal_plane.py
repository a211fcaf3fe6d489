"""Many detectors on measured times: bundles, commits, manifests and sinks, every one audited."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.scale.plane import PlaneRun, run_plane
from benchmarks.scale.profile import DetectorTimes, Profile

DETECTORS = (0, 17, 42, 94, 120, 151, 188)
VISITS = 3
STAGES = (("read", 0.1, 0.1), ("bundle", 0.01, 0.01), ("isr", 0.1, 0.1), ("measure", 0.3, 0.3), ("package", 0.1, 0.1))


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> PlaneRun:
    times = DetectorTimes(
        stages=STAGES, wall_s=0.6, cpu_s=0.6, n_alerts=10, alert_bytes=10_000, commit_s=0.02, bundle={}
    )
    profile = Profile(detector_visits=(times,), roles={})
    folder = tmp_path_factory.mktemp("plane")
    return run_plane(folder, profile, Console(quiet=True), visits=VISITS, workers=2, detectors=DETECTORS, cadence_s=8.0)


def test_every_readout_has_its_manifest_alerts_and_result(plane: PlaneRun) -> None:
    assert plane.wrong == []
    assert plane.section["outcomes"] == {"alerts": len(DETECTORS) * VISITS}
    assert plane.section["alerts"]["unique"] == 10 * len(DETECTORS) * VISITS
    assert plane.audit.is_clean, plane.audit.counts
    assert plane.audit.n_visit_detectors == len(DETECTORS) * VISITS


def test_the_pixels_took_their_time_and_no_cpu(plane: PlaneRun) -> None:
    stages = plane.section["stages"]
    assert stages["measure"]["wall_s"]["p50"] == pytest.approx(0.3, abs=0.05)
    assert stages["measure"]["cpu_s"]["p50"] < 0.02
    assert "package" in stages


def test_half_of_the_sources_are_seen_again(plane: PlaneRun) -> None:
    assert plane.section["alerts"]["with_previous_sources"] >= 0.9 * 5 * len(DETECTORS) * (VISITS - 1)


def test_bundles_came_ahead(plane: PlaneRun) -> None:
    cold = {kind: found.get("cold", 0) for kind, found in plane.section["bundle"].items()}
    assert cold == dict.fromkeys(cold, 0), json.dumps(plane.section["bundle"])


def test_a_profile_is_read_as_it_was_written(tmp_path: Path) -> None:
    times = DetectorTimes(
        stages=STAGES, wall_s=0.6, cpu_s=0.6, n_alerts=10, alert_bytes=10_000, commit_s=0.02, bundle={"template": 5}
    )
    profile = Profile(detector_visits=(times, times), roles={})
    profile.write(tmp_path)
    assert Profile.read(tmp_path) == profile
    assert [name for name, _, _ in times.pixels()] == ["read", "isr", "measure"]
