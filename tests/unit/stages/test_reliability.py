"""Reliability: the kernel against its twin, features that hold no place or time, and a number for every source."""

import hashlib
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.packet import AlertContext, build_alerts
from core.camera import load_camera
from core.config import PipelineConfig
from core.contracts.catalogs import SOURCE
from core.contracts.results import DetectorResult
from core.contracts.tree_model import MAX_VERSION_LENGTH, TreeModel
from core.errors import ConfigurationError
from core.kernels.trees import LEAF, tree_sums
from core.pipeline import FirstHalf, Pipeline
from core.reliability_model import load_reliability_model
from core.stages.measure import MeasureConfig, Measurement, ProcessingStamp, measure
from core.stages.reliability import score_reliability
from core.stages.reliability_features import (
    MISSING,
    FeatureTable,
    StarResiduals,
    Surroundings,
    source_features,
    star_residuals,
)
from core.stopwatch import Clock
from core.warm_up import warm_up
from core.workspace import Workspace
from tests.support.reference import trees as twin
from tests.support.sky_scene import Scene, detections_at, psf_image


def random_trees(seed: int, n_trees: int, n_features: int, depth: int) -> TreeModel:
    """Full trees, each cut at random."""
    random = np.random.default_rng(seed)
    rows: list[tuple[int, float, int, int, float]] = []

    def grow(level: int) -> int:
        at = len(rows)
        rows.append((LEAF, 0.0, 0, 0, float(random.normal())))
        if level < depth and random.random() < 0.8:
            left = grow(level + 1)
            right = grow(level + 1)
            rows[at] = (int(random.integers(n_features)), float(random.normal()), left, right, 0.0)
        return at

    root = [grow(0) for _ in range(n_trees)]
    feature, threshold, left, right, value = zip(*rows, strict=True)
    return TreeModel(
        version="random",
        feature_names=tuple(f"f{i}" for i in range(n_features)),
        root=np.array(root, np.int32),
        feature=np.array(feature, np.int16),
        threshold=np.array(threshold),
        left=np.array(left, np.int32),
        right=np.array(right, np.int32),
        value=np.array(value),
        bias=0.25,
    )


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), n=st.integers(0, 40), depth=st.integers(0, 6))
def test_the_kernel_equals_its_twin(seed: int, n: int, depth: int) -> None:
    model = random_trees(seed, 7, 5, depth)
    random = np.random.default_rng(seed)
    values = random.normal(size=(n, 5)).astype(np.float32)
    values[random.random(values.shape) < 0.1] = np.nan
    if n and (model.feature >= 0).any():
        # equal to a threshold goes left
        node = np.flatnonzero(model.feature >= 0)[0]
        model.threshold[node] = np.float32(model.threshold[node])
        values[0, model.feature[node]] = model.threshold[node]
    nodes = (model.root, model.feature, model.threshold, model.left, model.right, model.value)
    out = np.full(n, np.nan)
    tree_sums(values, *nodes, out)
    np.testing.assert_allclose(out, twin.tree_sums(values, *nodes), atol=1e-12)


def test_trees_that_go_in_circles_are_refused() -> None:
    model = random_trees(1, 3, 4, 4)
    left = model.left.copy()
    left[np.flatnonzero(model.feature >= 0)[1]] = 0
    with pytest.raises(ConfigurationError, match="no trees"):
        replace(model, left=left)
    with pytest.raises(ConfigurationError, match="no trees"):
        replace(model, version="v" * (MAX_VERSION_LENGTH + 1))


def measured() -> tuple[Measurement, Surroundings]:
    """Points, a dipole, and a peak where nothing is."""
    scene = Scene(fwhm=4.0)
    for i, snr in enumerate((8.0, 20.0, 60.0)):
        scene.add_point(60.0 + 50 * i, 60.3, scene.flux_of_snr(snr))
    difference, exposure, template = scene.build()
    detections = detections_at([60.0, 110.0, 160.0, 60.0], [60.0, 60.0, 60.0, 180.0], [8.0, 20.0, 60.0, 5.1])
    stamp = ProcessingStamp(release=1, time_processed_mjd_tai=61000.2)
    found = measure(difference, exposure, template, detections, Workspace(), MeasureConfig(), stamp)
    stars = np.zeros(4, SOURCE)
    stars["x"], stars["y"], stars["psfFlux"], stars["apFlux"] = [90, 150, 40, 200], [90, 30, 200, 200], 1e5, np.nan
    x, y = found.sources["x"].astype(np.float64), found.sources["y"].astype(np.float64)
    random = np.random.default_rng(2)
    residuals = StarResiduals(
        x=random.uniform(0, 256, 30), y=random.uniform(0, 256, 30), share=random.normal(0, 0.01, 30)
    )
    return found, Surroundings(x=x, y=y, sources=stars, residuals=residuals, pixel_scale_arcsec=0.2)


def test_core_and_ring_of_a_point_are_its_flux_and_of_a_wrong_width_are_not() -> None:
    scene = Scene(fwhm=4.0, noise=1.0)
    flux = scene.flux_of_snr(500.0)
    scene.add_point(100.3, 100.7, flux)
    residual = 0.3 * flux * (psf_image(3.4) - psf_image(4.4))
    scene.science[165:196, 85:116] += residual.astype(scene.science.dtype)
    difference, exposure, template = scene.build()
    stamp = ProcessingStamp(release=1, time_processed_mjd_tai=61000.2)
    detections = detections_at([100.0, 100.0], [101.0, 180.0], [500.0, 50.0])
    found = measure(difference, exposure, template, detections, Workspace(), MeasureConfig(), stamp)
    point, wrong = found.quality
    for name in ("coreFlux", "wideFlux"):
        assert point[name] == pytest.approx(flux, rel=0.02)
    assert wrong["wideFlux"] < 0.3 * wrong["coreFlux"]


def test_stars_left_in_the_difference_are_shares_of_theirs() -> None:
    scene = Scene(fwhm=4.0, noise=1.0)
    stars = np.zeros(3, SOURCE)
    stars["x"], stars["y"], stars["isPsfStar"] = [80.0, 120.0, 160.0], 100.0, [True, True, False]
    stars["psfFlux"] = scene.flux_of_snr(5000.0)
    for x in stars["x"]:
        scene.add_point(float(x), 100.0, 0.04 * float(stars["psfFlux"][0]))
    residuals = star_residuals(scene.build()[0], stars)
    assert residuals.x.tolist() == [80.0, 120.0]
    np.testing.assert_allclose(residuals.share, 0.04, rtol=0.05)


def test_features_are_finite_and_the_packaged_model_knows_them() -> None:
    found, around = measured()
    table = source_features(found, around)
    assert np.isfinite(table.values).all()
    assert table.names == load_reliability_model().feature_names
    assert len(set(table.names)) == table.values.shape[1]


def test_place_time_identity_and_sign_of_the_axes_are_no_features() -> None:
    found, around = measured()
    before = source_features(found, around)
    moved = Measurement(sources=found.sources.copy(), quality=found.quality)
    for name in ("ra", "dec", "midpointMjdTai", "timeProcessedMjdTai", "diaSourceId", "visit", "detector"):
        moved.sources[name] += 3
    moved.sources["x"] += 50
    moved.sources["y"] += 50
    moved.sources["band"] = "z"
    moved.sources["pixelFlags_injected"] = 1 - moved.sources["pixelFlags_injected"]
    stars = around.sources.copy()
    stars["x"] += 50
    stars["y"] += 50
    residuals = replace(around.residuals, x=around.residuals.x + 50, y=around.residuals.y + 50)
    elsewhere = replace(around, x=around.x + 50, y=around.y + 50, sources=stars, residuals=residuals)
    after = source_features(moved, elsewhere)
    np.testing.assert_allclose(after.values, before.values, rtol=1e-5, atol=1e-5)


def test_the_scale_of_fluxes_is_no_feature() -> None:
    found, around = measured()
    before = source_features(found, around)
    brighter = Measurement(sources=found.sources.copy(), quality=found.quality.copy())
    stars = around.sources.copy()
    for rows in (brighter.sources, brighter.quality):
        for name in rows.dtype.names:
            if "Flux" in name and "flag" not in name:
                rows[name] *= 8
    for name in ("psfFlux", "apFlux"):
        stars[name] *= 8
    after = source_features(brighter, replace(around, sources=stars))
    np.testing.assert_allclose(after.values, before.values, rtol=1e-4, atol=1e-4)


def test_no_source_no_star_and_nothing_measured() -> None:
    found, around = measured()
    empty = found.take(np.zeros(0, np.int64))
    assert score_reliability(source_features(empty, around)).probability.size == 0
    none = np.zeros(0)
    lonely = replace(around, sources=around.sources[:0], residuals=StarResiduals(x=none, y=none, share=none))
    unknown = Measurement(sources=found.sources.copy(), quality=found.quality.copy())
    for rows in (unknown.sources, unknown.quality):
        for name in rows.dtype.names:
            if rows.dtype[name].kind == "f" and name not in ("x", "y"):
                rows[name] = np.nan
    for table in (source_features(found, lonely), source_features(unknown, lonely)):
        assert np.isfinite(table.values).all()
        score = score_reliability(table).probability
        assert np.isfinite(score).all()
        assert ((score >= 0) & (score <= 1)).all()


@pytest.mark.parametrize("fill", [np.nan, np.inf, -np.inf, MISSING, 0.0])
def test_the_score_is_a_probability_whatever_the_features(fill: float) -> None:
    names = load_reliability_model().feature_names
    table = FeatureTable(names=names, values=np.full((3, len(names)), fill, np.float32))
    score = score_reliability(table)
    assert ((score.probability >= 0) & (score.probability <= 1)).all()
    assert score.probability.dtype == np.float32


def test_a_model_of_other_features_is_refused() -> None:
    found, around = measured()
    with pytest.raises(ConfigurationError, match="other features"):
        score_reliability(source_features(found, around), random_trees(1, 2, 3, 2))


def test_the_packaged_model_is_small_and_is_the_one_its_card_describes() -> None:
    model = load_reliability_model()
    assert 0 < len(model.version) <= MAX_VERSION_LENGTH
    file = Path(str(files("core").joinpath("data"))) / f"reliability-{model.version}.npz"
    assert file.stat().st_size < 1_000_000
    card = file.with_suffix(".md").read_text(encoding="utf-8")
    assert hashlib.sha256(file.read_bytes()).hexdigest() in card
    assert all(name in card for name in model.feature_names)
    assert load_reliability_model() is model


@pytest.fixture(scope="module")
def visit() -> tuple[FirstHalf, DetectorResult]:
    pipeline = Pipeline(load_camera("testcam"), PipelineConfig(), Clock(lambda: 0.0, lambda: 0.0))
    return warm_up(pipeline)


def test_every_kept_source_has_a_reliability_and_its_version(visit: tuple[FirstHalf, DetectorResult]) -> None:
    sources = visit[1].dia_sources
    assert sources.size > 5
    assert ((sources["reliability"] >= 0) & (sources["reliability"] <= 1)).all()
    assert np.isfinite(sources["reliability"]).all()
    assert set(sources["reliabilityVersion"]) == {load_reliability_model().version}


def test_alerts_below_min_reliability_are_not_sent(visit: tuple[FirstHalf, DetectorResult]) -> None:
    first, result = visit
    assert first.subtraction is not None
    limit = float(np.median(result.dia_sources["reliability"]))
    context = AlertContext(wcs=first.exposure.wcs, min_reliability=limit)
    sent = [i for i, _ in build_alerts(result, first.subtraction.past, context)]
    assert sent == result.dia_sources["diaSourceId"][result.dia_sources["reliability"] >= limit].tolist()
    assert 0 < len(sent) <= result.dia_sources.size
