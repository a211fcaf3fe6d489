"""A classifier of gradient-boosted trees, as arrays."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.errors import ConfigurationError

Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]

MAX_VERSION_LENGTH: Final = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeModel:
    """Trees whose leaves add up to the logit of a probability.

    Parameters
    ----------
    version : at most 16 characters.    feature_names : (m,) what the columns must be, in this order.
    root : (t,) first node of each tree.
    feature, threshold, left, right, value : (nodes,) see :func:`core.kernels.trees.tree_sums`.
    bias : added to each sum.
    """

    version: str
    feature_names: tuple[str, ...]
    root: Int32
    feature: NDArray[np.int16]
    threshold: Float64
    left: Int32
    right: Int32
    value: Float64
    bias: float

    def __post_init__(self) -> None:
        """Children lie behind their parents, so no walk goes in circles or out of the arrays."""
        nodes = np.arange(self.feature.size)
        inner = self.feature >= 0
        children = np.stack([self.left[inner], self.right[inner]])
        is_sound = (
            0 < len(self.version) <= MAX_VERSION_LENGTH
            and all(a.shape == nodes.shape for a in (self.threshold, self.left, self.right, self.value))
            and bool((self.feature < len(self.feature_names)).all())
            and bool(((children > nodes[inner]) & (children < nodes.size)).all())
            and bool(((self.root >= 0) & (self.root < nodes.size)).all())
            and bool(np.isfinite(self.value[~inner]).all())
            and bool(np.isfinite(self.bias))
        )
        if not is_sound:
            raise ConfigurationError("these are no trees", code="bad_model", version=self.version)
