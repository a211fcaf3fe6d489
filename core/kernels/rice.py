"""Rice-compressed FITS tiles to integers."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.kernels.decorator import kernel

UInt8 = NDArray[np.uint8]
Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]

TILE_OK: Final = 0
TILE_CORRUPT: Final = 1

READ_AHEAD: Final = 8
"""Bytes that must be readable behind the last tile."""

_RAW: Final = 25
"""Code of a block whose differences are stored as they are."""

# Zeros in front of the first one bit of a byte; 8 for none.
_LEADING_ZEROS: Final = np.array([8] + [8 - i.bit_length() for i in range(1, 256)], np.uint8)


@kernel
def _word(data: UInt8, position: np.int64) -> np.uint64:
    """Four bytes as a big-endian number. Unsigned indices: a signed one costs a test for wrapping a byte."""
    i = np.uint64(position)
    return (
        (np.uint64(data[i]) << np.uint64(24))
        | (np.uint64(data[i + np.uint64(1)]) << np.uint64(16))
        | (np.uint64(data[i + np.uint64(2)]) << np.uint64(8))
        | np.uint64(data[i + np.uint64(3)])
    )


@kernel
def _decode_tile(data: UInt8, start: np.int64, size: np.int64, block: int, out: Int32) -> int:
    """One tile of four-byte pixels. ``bits`` holds ``n_bits`` bits not yet used, the next one on top."""
    if size < 4:
        return TILE_CORRUPT
    last = np.int32(_word(data, start))
    position = start + 4
    # A valid stream never needs a word that begins further out.
    end = start + size + 3
    bits = np.uint64(0)
    n_bits = np.int64(0)
    i = 0
    while i < out.size:
        stop = min(i + block, out.size)
        if n_bits < 32:
            if position > end:
                return TILE_CORRUPT
            bits |= _word(data, position) << np.uint64(32 - n_bits)
            position += 4
            n_bits += 32
        split = np.int64(bits >> np.uint64(59)) - 1
        bits <<= np.uint64(5)
        n_bits -= 5
        if split < 0:
            while i < stop:
                out[i] = last
                i += 1
            continue
        width = np.int64(32) if split == _RAW else split
        while i < stop:
            value = np.uint64(0)
            if split != _RAW:
                run = np.int64(8)
                while run == 8:
                    if n_bits < 32:
                        if position > end:
                            return TILE_CORRUPT
                        bits |= _word(data, position) << np.uint64(32 - n_bits)
                        position += 4
                        n_bits += 32
                    run = np.int64(_LEADING_ZEROS[bits >> np.uint64(56)])
                    used = run + 1 if run < 8 else run
                    bits <<= np.uint64(used)
                    n_bits -= used
                    value += np.uint64(run)
                value <<= np.uint64(split)
            if n_bits < 32:
                if position > end:
                    return TILE_CORRUPT
                bits |= _word(data, position) << np.uint64(32 - n_bits)
                position += 4
                n_bits += 32
            if width > 0:
                value |= bits >> np.uint64(64 - width)
                bits <<= np.uint64(width)
                n_bits -= width
            half = np.int32(value >> np.uint64(1))
            last = np.int32(last + (~half if value & np.uint64(1) else half))
            out[i] = last
            i += 1
    # The words read may reach past the tile, the bits used may not.
    return TILE_CORRUPT if (position - start) * 8 - n_bits > size * 8 else TILE_OK


@kernel
def rice_decode(data: UInt8, start: Int64, size: Int64, tile: int, block: int, out: Int32, status: UInt8) -> None:
    """Decode ``RICE_1`` tiles of four-byte pixels into consecutive pixels.

    Differences of neighbours, zigzag, then a unary high part and ``split`` low bits, chosen anew for each block (FITS
    standard 4.0, section 10.4.1).

    Parameters
    ----------
    data : (n_bytes,) uint8 holding all tiles; ``READ_AHEAD`` readable bytes follow the last.
    start, size : (n_tiles,) int64 place of each tile [byte].
    tile, block : pixels of a tile (the last may be shorter) and of a Rice block.
    out : (n_pixels,) int32 output.    status : (n_tiles,) uint8 output, TILE_*.
    """
    for t in range(start.size):
        first = t * tile
        status[t] = _decode_tile(data, start[t], size[t], block, out[first : min(first + tile, out.size)])
