"""The pipeline's order, clock and halves, on the made-up visit of the warm-up; new stars are its truth."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.camera import load_camera
from core.config import PipelineConfig
from core.contracts.catalogs import TABLES
from core.contracts.results import DetectorResult
from core.errors import Outcome, RejectedInputError
from core.pipeline import FirstHalf, Pipeline
from core.stopwatch import Clock
from core.warm_up import NJY_PER_ELECTRON, made_up_visit, warm_up
from tests.support.columns import is_null

STAGES = [
    "isr", "background", "seeing", "cosmic_rays", "detect_sources", "psf", "astrometry", "photometry", "template",
    "subtract", "streaks", "detect", "measure", "associate", "forced", "features", "cutouts",
]  # fmt: skip


def ticking() -> Clock:
    """A clock that advances by one at every look, so that timings are counts of looks."""
    ticks: Iterator[int] = iter(range(10**6))
    return Clock(wall=lambda: float(next(ticks)), cpu=lambda: 0.0)


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline(load_camera("testcam"), PipelineConfig(), ticking())


@pytest.fixture(scope="module")
def result(pipeline: Pipeline) -> DetectorResult:
    return warm_up(pipeline)[1]


def test_every_new_star_away_from_the_edge_becomes_a_dia_source(pipeline: Pipeline, result: DetectorResult) -> None:
    _, _, scene = made_up_visit(pipeline.camera)
    inside = (np.minimum(scene.x, scene.y) > 40) & (np.maximum(scene.x, scene.y) < 512 - 40)
    x, y, flux = (v[scene.is_new & inside] for v in (scene.x, scene.y, scene.flux_e))
    found = result.dia_sources
    distance = np.hypot(found["x"][None, :] - x[:, None], found["y"][None, :] - y[:, None])
    assert distance.min(axis=1).max() < 0.3
    measured = found["psfFlux"][distance.argmin(axis=1)]
    np.testing.assert_allclose(measured, flux * NJY_PER_ELECTRON, rtol=0.05)


def test_columns_are_null_only_where_the_documents_say_so(result: DetectorResult) -> None:
    text = (Path(__file__).parents[3] / "docs/alerts.md").read_text(encoding="utf-8")
    section = text.split("## Columns of diaSource that can be null")[1].split("\n## ")[0]
    excused = set(re.findall(r"`(\w+)`", " ".join(line.split("|")[1] for line in section.splitlines() if "|" in line)))
    names = [column.name for column in TABLES["diaSource"]]
    assert excused < set(names)
    assert len(names) == 102
    assert f"{len(names) - len(excused)} of the 102 are filled" in section
    sources = result.dia_sources
    assert sources.size > 5
    for column in TABLES["diaSource"]:
        if column.name not in excused:
            assert not is_null(column, sources[column.name]).any(), column.name


def test_each_stage_is_timed_once_in_its_order(result: DetectorResult) -> None:
    assert [t.name for t in result.timings] == STAGES
    assert all(t.wall_s == 1.0 for t in result.timings)


def test_equal_input_gives_equal_bytes(pipeline: Pipeline, result: DetectorResult) -> None:
    _, again = warm_up(pipeline)
    assert again.dia_sources.tobytes() == result.dia_sources.tobytes()
    assert again.dia_objects.tobytes() == result.dia_objects.tobytes()
    assert again.dia_forced_sources.tobytes() == result.dia_forced_sources.tobytes()


def test_ids_count_the_detection_list_and_objects_begin_with_their_first_source(result: DetectorResult) -> None:
    ids = result.dia_sources["diaSourceId"]
    assert np.unique(ids).size == ids.size
    np.testing.assert_array_equal(result.dia_sources["diaObjectId"], ids)
    assert result.counts["n_detected"] == result.counts["n_flagged"] + ids.size


def first_half(pipeline: Pipeline, *, remaining_s: float = 60.0, **bundle_changes: None) -> FirstHalf:
    raw, bundle, _ = made_up_visit(pipeline.camera)
    return pipeline.measure(raw, replace(bundle, **bundle_changes), lambda: None, lambda: remaining_s, 60000.001)


def test_without_template_single_frame_products_remain(pipeline: Pipeline) -> None:
    first = first_half(pipeline, template=None)
    assert first.outcome is Outcome.NO_TEMPLATE
    assert first.claims is None
    finished = pipeline.finish(first)
    assert finished.outcome is Outcome.NO_TEMPLATE
    assert finished.dia_sources.size == 0
    assert finished.summary["n_sources"] > 100


def test_late_visits_drop_optional_work_and_say_so(pipeline: Pipeline) -> None:
    late = first_half(pipeline, remaining_s=1.0)
    assert late.counts["optional_dropped"] == 1
    assert late.subtraction is not None
    assert np.isnan(late.subtraction.sources["trailFlux"]).all()


def test_claimed_ids_are_adopted(pipeline: Pipeline) -> None:
    first = first_half(pipeline)
    assert first.claims is not None
    answered = first.claims.proposed_id.copy()
    answered[0] = 4242
    finished = pipeline.finish(first, answered)
    assert finished.dia_sources["diaObjectId"][first.claims.row[0]] == 4242
    assert 4242 in finished.dia_objects["diaObjectId"]


def test_unknown_detector_is_rejected(pipeline: Pipeline) -> None:
    raw, bundle, _ = made_up_visit(pipeline.camera)
    with pytest.raises(RejectedInputError, match="no such detector"):
        pipeline.measure(
            replace(raw, visit_info=replace(raw.visit_info, detector=199)), bundle, lambda: None, lambda: 60.0, 60000.0
        )
