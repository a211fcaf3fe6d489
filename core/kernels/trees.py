"""Sums of decision trees, row by row."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.kernels.decorator import kernel

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int16 = NDArray[np.int16]
Int32 = NDArray[np.int32]

LEAF: Final = -1
"""``feature`` of a node without children."""


@kernel
def tree_sums(
    features: Float32, root: Int32, feature: Int16, threshold: Float64, left: Int32, right: Int32, value: Float64,
    out: Float64,
) -> None:  # fmt: skip
    """Sum over all trees of the value of the leaf that each row falls into.

    Parameters
    ----------
    features : (n, m); a NaN goes left.    root : (t,) first node of each tree.
    feature, threshold, left, right, value : (nodes,) column that a node asks for or :data:`LEAF`; rows at or below the
        threshold go left; children; what a leaf adds.
    out : (n,) sums.
    """
    out[:] = 0.0
    for t in range(root.size):
        for i in range(features.shape[0]):
            node = root[t]
            while feature[node] != LEAF:
                node = right[node] if features[i, feature[node]] > threshold[node] else left[node]
            out[i] += value[node]
