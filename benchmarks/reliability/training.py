"""Boosted trees from examples: weights, fit, where a half lies, and the arrays that the pipeline reads."""

import hashlib
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.reliability import BOGUS, CLASSES, MIN_SNR, UNJUDGED
from benchmarks.reliability.examples import Examples
from core.contracts.tree_model import TreeModel
from core.errors import ConfigurationError
from core.kernels.trees import LEAF, tree_sums

Float64 = NDArray[np.float64]

SEED: Final = 60
N_TREES: Final = 200
FAINT_WEIGHT: Final = 0.3
"""Of sources under six sigma: noise peaks and faint changes, which nothing can tell apart."""
PARAMETERS: Final[dict[str, Any]] = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 12,
    "min_data_in_leaf": 8,
    "min_sum_hessian_in_leaf": 1e-3,
    "feature_fraction": 0.4,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 2.0,
    "max_bin": 255,
    "seed": SEED,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}
ALLOWED_LOSS: Final = 0.03
ALLOWED_BOGUS: Final = 0.03
AIMED_LOSS: Final = 0.02
AIMED_BOGUS: Final = 0.005
"""On the training skies, held out: with PSFs of another make more is left of stars, and the room is needed there."""


def lightgbm() -> Any:
    """The optional package that grows the trees."""
    try:
        import lightgbm as found
    except ImportError as error:
        raise ConfigurationError('lightgbm is not installed: pip install "sub60[train]"') from error
    return found


def weights(examples: Examples) -> Float64:
    """(n,) real and bogus weigh the same in all, and so do the four classes of real ones."""
    weight = np.where(np.abs(examples.snr) > MIN_SNR, 1.0, FAINT_WEIGHT)
    weight[examples.label == UNJUDGED] = 0.0
    half = examples.label.size / 2
    for label in range(BOGUS + 1):
        rows = examples.label == label
        share = half if label == BOGUS else half / len(CLASSES)
        weight[rows] *= share / max(weight[rows].sum(), 1e-9)
    return weight


def fit(examples: Examples, version: str = "draft") -> TreeModel:
    """Trees fitted to the examples; no bias yet."""
    package = lightgbm()
    weight = weights(examples)
    rows = weight > 0
    data = package.Dataset(
        examples.features[rows].astype(np.float64),
        label=(examples.label[rows] != BOGUS).astype(np.float64),
        weight=weight[rows],
        params={"max_bin": PARAMETERS["max_bin"], "verbosity": -1},
    )
    booster = package.train(PARAMETERS, data, num_boost_round=N_TREES)
    model = flatten(booster.dump_model()["tree_info"], tuple(str(name) for name in examples.names), version)
    expected = booster.predict(examples.features.astype(np.float64), raw_score=True)
    np.testing.assert_allclose(logits(model, examples), expected, atol=1e-9)
    return model


def logits(model: TreeModel, examples: Examples) -> Float64:
    """(n,) as the pipeline computes them."""
    out = np.empty(examples.label.size)
    tree_sums(examples.features, model.root, model.feature, model.threshold, model.left, model.right, model.value, out)
    return out + model.bias


def held_out_logits(examples: Examples, sky: NDArray[np.int64]) -> Float64:
    """(n,) logits of models that did not see the row's sky."""
    out = np.empty(examples.label.size)
    for number in np.unique(sky):
        held = sky == number
        out[held] = logits(fit(take(examples, ~held)), take(examples, held))
    return out


def best_bias(examples: Examples, logit: Float64) -> float:
    """What to add so that at one half the worst class's loss and the passing bogus are equally near their aims."""
    bright = (np.abs(examples.snr) > MIN_SNR) & examples.is_kept
    groups = [np.sort(logit[bright & (examples.label == label)]) for label in range(BOGUS + 1)]
    cuts = np.quantile(np.concatenate(groups), np.linspace(0.002, 0.998, 2000))
    lost = [np.searchsorted(group, cuts) / max(group.size, 1) / AIMED_LOSS for group in groups[:BOGUS]]
    passed = (1 - np.searchsorted(groups[BOGUS], cuts) / max(groups[BOGUS].size, 1)) / AIMED_BOGUS
    worst = np.maximum(np.max(lost, axis=0), passed)
    best = np.flatnonzero(worst <= worst.min() + 1e-9)
    # of equals the strictest: skies of another make have more that is bogus, not less that is real
    return -float(cuts[best[-1]])


def arrays(model: TreeModel) -> dict[str, NDArray[Any]]:
    """What the model's file holds."""
    names = ("root", "feature", "threshold", "left", "right", "value")
    return {
        **{name: getattr(model, name) for name in names},
        "feature_names": np.array(model.feature_names),
        "bias": np.array(model.bias),
    }


def version_of(model: TreeModel) -> str:
    """Name that changes with the content; the APDB has seven characters for it."""
    digest = hashlib.sha256()
    for name, values in sorted(arrays(model).items()):
        digest.update(name.encode() + np.ascontiguousarray(values).tobytes())
    return f"g{digest.hexdigest()[:6]}"


def take(examples: Examples, rows: NDArray[np.bool_]) -> Examples:
    """Some of the rows."""
    picked = {n: getattr(examples, n)[rows] for n in Examples.__dataclass_fields__ if n != "names"}
    return Examples(names=examples.names, **picked)


def flatten(trees: list[dict[str, Any]], names: tuple[str, ...], version: str) -> TreeModel:
    """Nodes of all dumped trees one after the other, parents before children."""
    rows: list[tuple[int, float, int, int, float]] = []
    roots = []
    for tree in trees:
        roots.append(len(rows))
        rows.extend(_walk(tree["tree_structure"], len(rows)))
    feature, threshold, left, right, value = zip(*rows, strict=True)
    return TreeModel(
        version=version,
        feature_names=names,
        root=np.array(roots, np.int32),
        feature=np.array(feature, np.int16),
        threshold=np.array(threshold, np.float64),
        left=np.array(left, np.int32),
        right=np.array(right, np.int32),
        value=np.array(value, np.float64),
        bias=0.0,
    )


def _walk(node: dict[str, Any], at: int) -> Iterator[tuple[int, float, int, int, float]]:
    """The node, which is number ``at``, and all below it."""
    if "leaf_value" in node:
        yield LEAF, 0.0, 0, 0, float(node["leaf_value"])
        return
    if node["decision_type"] != "<=":
        raise ValueError(f"a split of another kind: {node['decision_type']}")
    below = list(_walk(node["left_child"], at + 1))
    right = at + 1 + len(below)
    yield int(node["split_feature"]), float(node["threshold"]), at + 1, right, 0.0
    yield from below
    yield from _walk(node["right_child"], right)
