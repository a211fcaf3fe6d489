"""Arrays as content-addressed pieces of at most 4 MB, compressed where it pays."""

import hashlib
import math
import zlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final

import blosc2
import msgpack
import numpy as np
from numpy.typing import NDArray

from core.errors import TransientError
from service.wire import parse_dtype, unpack_msgpack

Array = NDArray[Any]

PIECE_BYTES: Final = 4 * 1024 * 1024
"""Of the array in memory; a larger value would hold up everybody else at the cache."""
_COMPRESS_FROM_BYTES: Final = 4096
_WORTH: Final = 0.95
SPOILED: Final = (ValueError, TypeError, KeyError, msgpack.UnpackException)
"""What reading a record raises that is not ours or not whole."""
MAX_AXES: Final = 8
RAW: Final = 0
BLOSC2: Final = 1


@dataclass(frozen=True, kw_only=True)
class PackedArray:
    """One array: how to rebuild it, and its pieces.

    Lossless: byte shuffle and lz4 (blosc2), measured on float noise at 1.33 times smaller, 3 GB/s in and 12 GB/s out;
    masks shrink to nothing. A piece that does not shrink is kept as it is.
    """

    dtype: str
    """``repr`` of the dtype's description; no code is run to read it."""
    shape: tuple[int, ...]
    codecs: tuple[int, ...]
    checksums: tuple[int, ...]
    """crc32 of each piece as stored."""
    digests: tuple[str, ...]
    """First half of each piece's sha256: its address."""
    pieces: tuple[bytes | bytearray | memoryview, ...]

    @cached_property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(len(piece) for piece in self.pieces)

    @cached_property
    def digest(self) -> str:
        """Address of the whole array."""
        text = "|".join((self.dtype, str(self.shape), str(self.codecs), *self.digests))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def manifest(self) -> bytes:
        """Everything but the pieces."""
        fields = (self.dtype, self.shape, self.codecs, self.checksums, self.digests, [len(p) for p in self.pieces])
        return bytes(msgpack.packb(fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayManifest:
    """A packed array whose pieces are elsewhere."""

    dtype: str
    shape: tuple[int, ...]
    codecs: tuple[int, ...]
    checksums: tuple[int, ...]
    digests: tuple[str, ...]
    sizes: tuple[int, ...]

    @classmethod
    def read(cls, data: bytes) -> "ArrayManifest | None":
        """Inverse of :meth:`PackedArray.manifest`; None for what is none."""
        try:
            dtype, shape, codecs, checksums, digests, sizes = unpack_msgpack(data, use_list=False)
            made = cls(dtype=dtype, shape=shape, codecs=codecs, checksums=checksums, digests=digests, sizes=sizes)
            return made if made._is_consistent() else None
        except SPOILED:
            return None

    def _is_consistent(self) -> bool:
        """Whether the array is as large as its pieces: else a line in Redis could ask for any amount of memory."""
        if not all(type(length) is int and length >= 0 for length in self.shape):
            return False
        n_bytes = math.prod(self.shape) * parse_dtype(self.dtype).itemsize
        lengths = {len(self.codecs), len(self.checksums), len(self.digests), len(self.sizes)}
        is_whole = lengths == {-(-n_bytes // PIECE_BYTES)} and len(self.shape) <= MAX_AXES
        raw = (min(PIECE_BYTES, n_bytes - i * PIECE_BYTES) for i in range(len(self.codecs)))
        sized = zip(self.codecs, self.sizes, raw, strict=True)
        return is_whole and all(size == n if codec == RAW else codec == BLOSC2 for codec, size, n in sized)

    def with_pieces(self, pieces: tuple[bytes | bytearray | memoryview, ...]) -> PackedArray | None:
        """The packed array, None where a piece is not what was stored."""
        for piece, size, checksum in zip(pieces, self.sizes, self.checksums, strict=True):
            if len(piece) != size or zlib.crc32(piece) != checksum:
                return None
        return PackedArray(
            dtype=self.dtype,
            shape=self.shape,
            codecs=self.codecs,
            checksums=self.checksums,
            digests=self.digests,
            pieces=pieces,
        )


def pack_array(array: Array) -> PackedArray:
    """Cut and compress one array."""
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    packed = [_pack_piece(flat[i : i + PIECE_BYTES], array.dtype) for i in range(0, flat.size, PIECE_BYTES)]
    return PackedArray(
        dtype=_describe_dtype(array.dtype),
        shape=array.shape,
        codecs=tuple(codec for codec, _ in packed),
        checksums=tuple(zlib.crc32(piece) for _, piece in packed),
        digests=tuple(hashlib.sha256(piece).hexdigest()[:32] for _, piece in packed),
        pieces=tuple(piece for _, piece in packed),
    )


def array_dtype(packed: PackedArray) -> np.dtype[Any]:
    """The dtype of a packed array."""
    return parse_dtype(packed.dtype)


def unpack_array(packed: PackedArray, out: Array | None = None) -> Array:
    """Rebuild an array, in ``out`` if given (same dtype and shape, C order)."""
    dtype = array_dtype(packed)
    if out is None:
        out = np.empty(packed.shape, dtype)
    assert out.dtype == dtype
    assert out.shape == packed.shape
    flat = out.reshape(-1).view(np.uint8)
    for i, (codec, piece) in enumerate(zip(packed.codecs, packed.pieces, strict=True)):
        target = flat[i * PIECE_BYTES : (i + 1) * PIECE_BYTES]
        if codec == RAW:
            target[:] = np.frombuffer(piece, np.uint8)
        else:
            if blosc2.get_cbuffer_sizes(piece)[0] != target.size:
                raise TransientError("a piece of a packed array is corrupt", code="bad_piece", piece=i)
            blosc2.decompress2(piece, dst=target, nthreads=1)
    return out


@lru_cache(maxsize=256)
def _describe_dtype(dtype: np.dtype[Any]) -> str:
    return repr(dtype.descr if dtype.names else dtype.str)


def _pack_piece(raw: NDArray[np.uint8], dtype: np.dtype[Any]) -> tuple[int, bytes]:
    if raw.size < _COMPRESS_FROM_BYTES:
        return RAW, raw.tobytes()
    filters = [blosc2.Filter.SHUFFLE]
    packed = blosc2.compress2(
        raw, codec=blosc2.Codec.LZ4, clevel=1, filters=filters, typesize=min(dtype.itemsize, 255), nthreads=1
    )
    return (BLOSC2, packed) if len(packed) < _WORTH * raw.size else (RAW, raw.tobytes())
