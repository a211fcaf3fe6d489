"""Slow twin of the tree kernel, one row and one tree at a time."""

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


def tree_sums(
    features: NDArray[np.float32],
    root: NDArray[np.int32],
    feature: NDArray[np.int16],
    threshold: Float64,
    left: NDArray[np.int32],
    right: NDArray[np.int32],
    value: Float64,
) -> Float64:
    """(n,) sums of the leaves' values."""

    def leaf(row: NDArray[np.float32], node: int) -> float:
        if feature[node] < 0:
            return float(value[node])
        is_above = float(row[feature[node]]) > threshold[node]
        return leaf(row, int(right[node] if is_above else left[node]))

    return np.array([sum(leaf(row, int(first)) for first in root) for row in features], np.float64)
