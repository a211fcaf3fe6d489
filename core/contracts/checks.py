"""The checks contracts make of their arrays."""

import numpy as np
from numpy.typing import DTypeLike, NDArray

from core.errors import RejectedInputError


def check_array(name: str, array: NDArray[np.generic], dtype: DTypeLike, shape: tuple[int | None, ...]) -> None:
    """Raise unless ``array`` has this dtype, shape (``None`` = any) and C order."""
    if array.dtype != np.dtype(dtype):
        raise RejectedInputError(f"{name} must be {np.dtype(dtype)}, is {array.dtype}", code="bad_array", name=name)
    fits = array.ndim == len(shape) and all(w is None or w == h for w, h in zip(shape, array.shape, strict=True))
    if not fits:
        raise RejectedInputError(f"{name} must have shape {shape}, has {array.shape}", code="bad_array", name=name)
    if not array.flags.c_contiguous:
        raise RejectedInputError(f"{name} must be in C order", code="bad_array", name=name)
