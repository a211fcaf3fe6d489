"""Bytes of the log and of Redis to plain values, with limits: nothing read there can run code or fill the memory."""

import ast
import re
from functools import lru_cache
from typing import Any, Final

import msgpack
import numpy as np

MAX_ITEMS: Final = 65_536
"""Items of one array or map. Without a limit a few bytes announce millions, and every level of nesting again."""
MAX_DTYPE_TEXT: Final = 32_768
MAX_ITEM_BYTES: Final = 1 << 20
"""Of one row of a table."""
_LEAF: Final = re.compile(r"[<>|=]?[biufSU][0-9]{1,6}")
_MAX_DEPTH: Final = 4


def unpack_msgpack(data: bytes, **options: Any) -> Any:
    """The value in ``data``; ValueError or another of msgpack's own errors for what is none or is too large."""
    return msgpack.unpackb(data, max_array_len=MAX_ITEMS, max_map_len=MAX_ITEMS, max_ext_len=0, **options)


@lru_cache(maxsize=256)
def parse_dtype(text: str) -> np.dtype[Any]:
    """The dtype that a text describes (``repr`` of its ``str`` or ``descr``); ValueError for anything else.

    Booleans, numbers and fixed-length strings, alone or as named columns; never objects. A catalog's hundred columns
    take a millisecond, hence the cache.
    """
    if len(text) > MAX_DTYPE_TEXT or _depth(text) > 2 * _MAX_DEPTH:
        raise ValueError("too long a description of a dtype")
    try:
        description = ast.literal_eval(text)
    except (SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError("no description of a dtype") from error
    _check(description, 0)
    dtype: np.dtype[Any] = np.dtype(description)
    if not 0 < dtype.itemsize <= MAX_ITEM_BYTES or dtype.hasobject:
        raise ValueError("a dtype of no or too many bytes")
    return dtype


def _check(description: object, depth: int) -> None:
    if isinstance(description, str):
        if _LEAF.fullmatch(description) is None:
            raise ValueError(f"no type of ours: {description[:40]!r}")
        return
    if not isinstance(description, list) or depth == _MAX_DEPTH:
        raise ValueError("no description of a dtype")
    for column in description:
        if not isinstance(column, tuple) or len(column) not in (2, 3) or not isinstance(column[0], str):
            raise ValueError("no description of a column")
        _check(column[1], depth + 1)
        shape = column[2] if len(column) == 3 else ()
        lengths = shape if isinstance(shape, tuple) else (shape,)
        if not all(type(length) is int and 0 < length <= MAX_ITEM_BYTES for length in lengths) or len(lengths) > 4:
            raise ValueError("no shape of a column")


def _depth(text: str) -> int:
    """Deepest nesting of brackets."""
    depth = deepest = 0
    for sign in text:
        if sign in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif sign in ")]}":
            depth -= 1
    return deepest
