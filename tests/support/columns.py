"""Nulls in the columns of the catalogs."""

import numpy as np
from numpy.typing import NDArray

from core.contracts.catalogs import Column


def is_null(column: Column, values: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Where a column's value is the one that goes out as null."""
    if column.avro_type == "string":
        return np.asarray(values == "")
    if column.avro_type == "boolean":
        return np.asarray(values == -1)
    if column.avro_type in ("float", "double"):
        return np.isnan(values.astype(np.float64))
    return np.asarray(values == np.iinfo(values.dtype).min)
