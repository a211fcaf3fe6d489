"""Classes of DIASources, and the parts of the training that need no package beyond the tests'."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.quality.evaluate import evaluate
from benchmarks.quality.reliability import BOGUS, CLASSES, UNJUDGED, classify, count, summarize_reliability
from benchmarks.quality.summary import summarize
from benchmarks.reliability.evaluation import figures, missed
from benchmarks.reliability.examples import Examples
from benchmarks.reliability.sets import SETS
from benchmarks.reliability.training import best_bias, flatten, version_of, weights
from core.kernels.trees import tree_sums
from tests.unit.benchmarks.scenes import detect, draw, make_products, make_truth


def test_every_class_is_told_from_the_truth() -> None:
    x = np.array([100.0, 200.0, 300.0, 400.0, 500.0, 600.0])
    truth = make_truth(x, np.full(6, 150.0), np.array([30.0, 30.0, -30.0, 30.0, 30.0, 30.0]))
    kind = np.array(["transient", "variable", "variable", "mover", "star", "galaxy"])
    truth = replace(truth, kind=kind)
    truth.rows["moved_px"][4] = 0.2
    products = make_products(*(lambda image: (image, detect(image, 10.0)))(draw(truth, 768, np.random.default_rng(5))))
    order = np.argsort(products.dia_sources["x"])
    products = replace(products, dia_sources=products.dia_sources[order])
    label = classify(products, truth)
    assert label[:4].tolist() == list(range(len(CLASSES)))
    # a star that moved is a change too; a galaxy does not change
    assert label[5] == BOGUS
    near = products.dia_sources[:1].copy()
    near["dec"] += 0.8 / 3600
    crowded = replace(products, dia_sources=np.concatenate([products.dia_sources, near]))
    assert classify(crowded, truth)[-1] == UNJUDGED


def test_figures_count_bright_sources_at_one_half() -> None:
    label = np.array([0, 0, 1, 2, 3, BOGUS, BOGUS, BOGUS, UNJUDGED], np.int8)
    snr = np.array([7.0, 8.0, 9.0, 9.0, 9.0, 7.0, 8.0, 5.5, 9.0])
    reliability = np.array([0.9, 0.4, np.nan, 0.5, 0.1, 0.6, 0.2, 0.9, 0.0])
    found = summarize_reliability([count(label, snr, reliability), count(label[:1], snr[:1], reliability[:1])])
    assert found["recall"] == {
        "transient": pytest.approx(2 / 3), "variable_positive": 1.0, "variable_negative": 1.0, "mover": 0.0,
    }  # fmt: skip
    assert found["bogus_pass"] == 0.5
    assert found["false_positives_snr6"] == 0.5
    assert found["n"] == {
        "transient": 3, "variable_positive": 1, "variable_negative": 1, "mover": 1, "bogus": 2,
    }  # fmt: skip


def test_the_summary_has_a_section() -> None:
    truth = make_truth(np.array([100.0, 200.0]), np.array([150.0, 150.0]), np.array([30.0, 40.0]))
    image = draw(truth, 512, np.random.default_rng(5))
    sources = detect(image, 10.0)
    sources["reliability"] = [0.9, 0.2]
    section = summarize([evaluate(make_products(image, sources), truth)])["reliability"]
    assert section["recall"]["transient"] == 0.5
    assert section["recall"]["mover"] is None
    assert section["bogus_pass"] is None


def some_examples(n: int = 400) -> Examples:
    random = np.random.default_rng(3)
    label = random.choice([0, 0, 0, 1, 2, 3, BOGUS, UNJUDGED], n).astype(np.int8)
    return Examples(
        names=np.array(["a", "b"]),
        features=random.normal(size=(n, 2)).astype(np.float32),
        label=label,
        cause=np.zeros(n, np.int8),
        snr=random.uniform(5, 20, n).astype(np.float32),
        visit=np.arange(n) % 3,
        is_kept=random.random(n) < 0.9,
    )


def test_each_class_weighs_the_same_and_bogus_as_much_as_all() -> None:
    examples = some_examples()
    weight = weights(examples)
    totals = [weight[examples.label == i].sum() for i in range(BOGUS + 1)]
    np.testing.assert_allclose(totals[:BOGUS], totals[BOGUS] / len(CLASSES))
    assert weight[examples.label == UNJUDGED].sum() == 0


def test_one_half_lies_between_the_classes() -> None:
    examples = some_examples()
    logit = np.where(examples.label == BOGUS, 3.0, 5.0) + np.linspace(0, 0.1, examples.label.size)
    bias = best_bias(examples, logit)
    assert -5.0 < bias < -3.0
    found = figures(examples, 1 / (1 + np.exp(-(logit + bias))))
    assert missed(found) == []
    assert found["detector_visits"] == 3
    assert len(missed(figures(examples, np.full(logit.size, 0.9)))) == 2
    assert len(missed(figures(examples, np.full(logit.size, 0.1)))) == len(CLASSES)


def test_trees_come_as_arrays() -> None:
    leaf = [{"leaf_value": value} for value in (0.5, -0.25, 0.125, 1.0)]
    inner = {
        "split_feature": 1, "threshold": 0.0, "decision_type": "<=", "left_child": leaf[0], "right_child": leaf[1],
    }  # fmt: skip
    root = {"split_feature": 0, "threshold": 0.5, "decision_type": "<=", "left_child": inner, "right_child": leaf[2]}
    trees = [{"tree_structure": root}, {"tree_structure": leaf[3]}]
    model = flatten(trees, ("a", "b"), "v")
    rows = np.array([[0.5, 0.0], [0.0, 1.0], [0.6, 0.0]], np.float32)
    out = np.empty(3)
    tree_sums(rows, model.root, model.feature, model.threshold, model.left, model.right, model.value, out)
    np.testing.assert_array_equal(out, [1.5, 0.75, 1.125])
    assert version_of(model) != version_of(replace(model, bias=0.1))
    assert version_of(model) == version_of(replace(model, version="other"))


def test_the_test_skies_are_of_another_make() -> None:
    train, test = ([s.config() for s in SETS if s.is_test is is_test] for is_test in (False, True))
    assert {c.psf_family for c in test}.isdisjoint({c.psf_family for c in train})
    assert {c.cosmic_ray_model for c in test}.isdisjoint({c.cosmic_ray_model for c in train})
    for figure in ("seed", "ra_deg", "dec_deg"):
        values = [getattr(c, figure) for c in (*train, *test)]
        assert len(set(values)) == len(values)
