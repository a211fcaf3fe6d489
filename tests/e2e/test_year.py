"""A short campaign through the whole service: both visits of a pair at one instant on different workers."""

import pytest

from benchmarks.year.campaign import Campaign, CampaignConfig
from benchmarks.year.command import runtimes
from benchmarks.year.picture import runtime_picture
from benchmarks.year.run import YearRun, replay_year
from benchmarks.year.verify import YearFigures, verify
from core.errors import Outcome

CONFIG = CampaignConfig(
    visits=20, camera="testcam", detectors=(0, 1), variables=50, transients=12, spurious=1.0, asteroids=6
)


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> YearRun:
    return replay_year(tmp_path_factory.mktemp("year"), CONFIG, lambda done, what: None, workers=2)


@pytest.fixture(scope="module")
def figures(year: YearRun) -> YearFigures:
    return verify(Campaign(CONFIG), year.settings, year.features)


def test_every_readout_became_alerts_and_the_audit_is_clean(year: YearRun) -> None:
    assert len(year.manifests) == 40
    assert {m.outcome for m in year.manifests.values()} == {Outcome.ALERTS}
    assert year.audit.is_clean, year.audit.counts
    assert year.audit.n_visit_detectors == 40
    assert {m.redis_skipped for m in year.manifests.values()} == {()}


def test_both_visits_of_a_pair_saw_the_same_sky_on_different_workers(year: YearRun) -> None:
    campaign = Campaign(CONFIG)
    first, second = campaign.visits[:2]
    seen = set(campaign.detections(first, 0).label.tolist())
    by_other = set(campaign.detections(second, 1).label.tolist())
    assert len({label for label in seen & by_other if label >= 0}) >= 5
    workers = {year.manifests[first.visit, 0].worker, year.manifests[second.visit, 1].worker}
    assert len(workers) == 2


def test_each_object_was_made_once_and_kept(figures: YearFigures) -> None:
    assert figures.repeated > 300
    assert figures.on_right_object >= 0.995
    assert figures.duplicate_objects == 0


def test_asteroids_are_matched_and_stationary_sources_are_not(figures: YearFigures) -> None:
    assert figures.asteroids_detected >= 20
    assert figures.asteroids_matched >= 0.99
    assert figures.stationary_matched <= 0.002


def test_emitted_columns_follow_from_emitted_rows(figures: YearFigures) -> None:
    assert figures.alerts_checked >= 5
    assert figures.features_checked >= 5
    assert figures.object_columns[1] < 1e-5
    assert figures.feature_columns[1] < 1e-5


def test_emitted_fluxes_scatter_about_the_truth_as_their_errors_say(figures: YearFigures) -> None:
    assert 0.9 < figures.chi2_forced < 1.15
    assert 0.8 < figures.chi2_sources < 1.2


def test_the_picture_has_a_line_for_each_detector(year: YearRun) -> None:
    picture = runtime_picture(runtimes(year))
    assert picture.count("<polyline") == 16
    assert picture.startswith("<svg")
