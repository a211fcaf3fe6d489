"""What Redis and the log may hold: limits on sizes, no objects, no code."""

import tracemalloc
from dataclasses import replace

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.contracts.catalogs import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, EPHEMERIS, REFERENCE_STAR, SS_SOURCE
from core.errors import RejectedInputError
from service.log.contract import Checkpoint
from service.records import unpack_any
from service.storage.codec import PIECE_BYTES, ArrayManifest, PackedArray, pack_array, unpack_array
from service.storage.recipe import unpack_recipe
from service.wire import MAX_DTYPE_TEXT, parse_dtype, unpack_msgpack
from tests.contract.stores_support import KEY

HOSTILE = [
    "'O'",
    "'|O8'",
    "'O,f8'",
    "[('a', 'O')]",
    "[('a', '<f8'), ('b', '|O')]",
    "[('a', [('b', 'O')])]",
    "{'names': ['a'], 'formats': ['O']}",
    "{'names': ['a', 'b'], 'formats': ['<f8', '<f8'], 'offsets': [0, 4]}",
    "'datetime64[s]'",
    "'M8'",
    "'V9'",
    "'S999999999'",
    "'<U999999'",
    "[('a', '<f8', (99999999, 99999999))]",
    "[('a', '<f8', (-1,))]",
    "[('a', '<f8', True)]",
    "[('a', '<f8', (1, 1, 1, 1, 1))]",
    "[]",
    "''",
    "None",
    "5",
    "b'<f8'",
    "__import__('os').system('true')",
    "(lambda: 1)()",
    "'<f8' * 99",
    "[" * 5000,
    "(" * 200 + ")" * 200,
    "-" * 30_000 + "1",
    "'" + "a" * MAX_DTYPE_TEXT + "'",
    "[('a', '<f8'), ('a', '<f8')]",
    "9" * 5000,
    "'\ud800'",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_hostile_dtype_is_taken(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each has another text
        parse_dtype(text)


@pytest.mark.parametrize("dtype", [DIA_SOURCE, DIA_OBJECT, DIA_FORCED_SOURCE, SS_SOURCE, REFERENCE_STAR, EPHEMERIS])
def test_every_table_of_ours_is_taken(dtype: np.dtype[np.void]) -> None:
    assert parse_dtype(repr(dtype.descr)) == dtype


@given(st.text(max_size=40))
def test_any_text_is_a_plain_dtype_or_none(text: str) -> None:
    try:
        dtype = parse_dtype(text)
    except ValueError:
        return
    assert not dtype.hasobject


def bomb(depth: int, count: int) -> bytes:
    """Arrays within arrays, each of which announces ``count`` items."""
    return (b"\xdd" + count.to_bytes(4, "big")) * depth


def test_announced_lengths_take_no_memory() -> None:
    data = bomb(400, 10_000_000) + bytes(10_000_000)
    tracemalloc.start()
    try:
        for read in (unpack_msgpack, ArrayManifest.read, lambda d: unpack_recipe(KEY, d)):
            try:
                assert read(data) is None
            except ValueError:
                continue
        with pytest.raises(RejectedInputError):
            unpack_any(data)
        with pytest.raises(ValueError, match="max_array_len"):
            Checkpoint.unpack(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200 << 20


@pytest.mark.parametrize("dtype", ["'O'", "[('a', 'O')]", "'<f8'.__class__", 5, None])
def test_a_record_with_a_hostile_table_is_rejected(dtype: object) -> None:
    table = {"__dtype__": dtype, "data": bytes(16)}
    with pytest.raises(RejectedInputError):
        unpack_any(msgpack.packb({"format": 1, "record": "Result", "fields": {"dia_sources": table}}))


def manifest(array: PackedArray, **changes: object) -> bytes:
    return replace(array, **changes).manifest()  # type: ignore[arg-type]


def test_a_manifest_that_asks_for_more_than_its_pieces_hold_is_none() -> None:
    rng = np.random.default_rng(2)
    packed = pack_array(rng.normal(size=(1024, 1024)))  # two pieces
    assert len(packed.pieces) == 2 * PIECE_BYTES // PIECE_BYTES
    again = ArrayManifest.read(packed.manifest())
    assert again is not None
    whole = again.with_pieces(packed.pieces)
    assert whole is not None
    assert unpack_array(whole).nbytes == 8 << 20
    for changes in (
        {"shape": (1024, 10**12)},
        {"shape": (1024, -1024)},
        {"shape": (1024, 1024.0)},
        {"shape": (1024, True)},
        {"shape": (1,) * 9},
        {"shape": (1024, 1025)},
        {"dtype": "'O'"},
        {"dtype": "'<f4'"},
        {"codecs": (0, 7)},
        {"codecs": (0,)},
        {"codecs": (0, 0), "pieces": (b"", b"")},
        {"checksums": ()},
        {"digests": ()},
        {"shape": 5},
    ):
        assert ArrayManifest.read(manifest(packed, **changes)) is None, changes
    assert ArrayManifest.read(pack_array(np.empty(0)).manifest()) is not None


@given(st.binary(max_size=120))
def test_garbage_in_the_cache_is_nothing(data: bytes) -> None:
    assert ArrayManifest.read(data) is None
    assert unpack_recipe(KEY, data) is None
