"""Reliability: the probability that a DIASource is a change of the sky, by a packaged model of boosted trees."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.contracts.tree_model import TreeModel
from core.errors import ConfigurationError
from core.kernels.trees import tree_sums
from core.reliability_model import load_reliability_model
from core.stages.measure import Measurement
from core.stages.reliability_features import FeatureTable, Surroundings, source_features

MAX_LOGIT: Final = 30.0
"""Beyond, float32 knows only 0 and 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """Of n DIASources: ``probability`` (n,) float32 in [0, 1], and the version of the model that says so."""

    probability: NDArray[np.float32]
    version: str


def score_sources(measured: Measurement, around: Surroundings) -> Reliability:
    """Score measured DIASources with the packaged model."""
    return score_reliability(source_features(measured, around))


def score_reliability(table: FeatureTable, model: TreeModel | None = None) -> Reliability:
    """Score every row; the packaged model unless another is given. Always finite, whatever the features are.

    The model knows what it was trained on: other features, or another order, refuse to run.
    """
    model = model or load_reliability_model()
    if table.names != model.feature_names:
        raise ConfigurationError(
            "the reliability model was trained on other features: make train-reliability",
            code="bad_model",
            version=model.version,
        )
    logits = np.empty(table.values.shape[0])
    tree_sums(table.values, model.root, model.feature, model.threshold, model.left, model.right, model.value, logits)
    probability = 1 / (1 + np.exp(-np.clip(logits + model.bias, -MAX_LOGIT, MAX_LOGIT)))
    return Reliability(probability=probability.astype(np.float32), version=model.version)
