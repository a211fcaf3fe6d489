"""Pixels of one raw segment: plain or tile-compressed integers, decoded with the file's own bounds checked first."""

import zlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.errors import RejectedInputError
from core.kernels.rice import READ_AHEAD, TILE_OK, rice_decode
from service.storage.fits_structure import Hdu, broken

UInt8 = NDArray[np.uint8]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

MAX_INT32: Final = 2**31 - 1
COMPRESSIONS: Final = ("RICE_1", "GZIP_1", "GZIP_2")


def is_segment(hdu: Hdu) -> bool:
    """Whether an HDU is an image, plain or compressed."""
    return hdu.cards.get("XTENSION") == "IMAGE" or hdu.cards.get("ZIMAGE") == "T"


def check_segment(hdu: Hdu, shape: tuple[int, int]) -> None:
    """Raise unless the segment has the camera's shape, whole ADU and a known compression."""
    prefix = "Z" if hdu.cards.get("ZIMAGE") == "T" else ""
    if prefix and hdu.cards.get("ZCMPTYPE") not in COMPRESSIONS:
        compression = hdu.cards.get("ZCMPTYPE")
        raise RejectedInputError(
            f"compression {compression} is not read, only none and {', '.join(COMPRESSIONS)}",
            code="bad_compression",
            hdu=hdu.name,
        )
    if hdu.integer(f"{prefix}NAXIS") != 2:
        raise broken("a segment is not two-dimensional", hdu=hdu.name)
    found = (hdu.integer(f"{prefix}NAXIS2"), hdu.integer(f"{prefix}NAXIS1"))
    if found != shape:
        raise broken(f"a segment is {found} pixels, the camera's are {shape}", hdu=hdu.name)
    if hdu.integer(f"{prefix}BITPIX") not in (16, 32):
        raise broken("a segment's pixels are not 16- or 32-bit integers", hdu=hdu.name)
    if _number(hdu, "BSCALE", 1.0) != 1 or _number(hdu, "BZERO", 0.0) not in (0, 32768):
        raise broken("a segment's pixels are scaled", hdu=hdu.name)


def read_segment(hdu: Hdu, content: UInt8, out: Int32) -> None:
    """Decode a checked segment of the file ``content`` into ``out`` (ny, nx).

    ``content`` has ``READ_AHEAD`` bytes behind the file's last.
    """
    if hdu.cards.get("ZIMAGE") == "T":
        _read_tiles(hdu, content, out)
    else:
        dtype = np.dtype(">i2" if hdu.integer("BITPIX") == 16 else ">i4")
        if hdu.data_size != out.size * dtype.itemsize:
            raise broken("a segment has more or fewer bytes than pixels", hdu=hdu.name)
        end = hdu.data_start + hdu.data_size
        out[...] = content[hdu.data_start : end].view(dtype).reshape(out.shape)
    zero = _number(hdu, "BZERO", 0.0)
    if zero:
        if int(out.max()) > MAX_INT32 - int(zero):
            raise broken("a segment's pixels do not fit in 32 bits", hdu=hdu.name)
        out += np.int32(zero)


def _number(hdu: Hdu, key: str, default: float) -> float:
    try:
        return float(hdu.cards.get(key, default))
    except ValueError as error:
        raise broken(f"header keyword {key} is not a number", hdu=hdu.name) from error


def _read_tiles(hdu: Hdu, content: UInt8, out: Int32) -> None:
    ny, nx = out.shape
    rows = hdu.integer("ZTILE2", 1)
    if hdu.integer("ZTILE1", nx) != nx or rows < 1 or ny % rows:
        raise broken("tiles do not span whole rows", hdu=hdu.name)
    n_tiles = ny // rows
    start, size = _tile_places(hdu, content, n_tiles)
    if hdu.cards["ZCMPTYPE"] == "RICE_1":
        block, width = _rice_parameters(hdu)
        if width != 4:
            raise broken("only four-byte Rice pixels are read", hdu=hdu.name, bytepix=width)
        status = np.empty(n_tiles, np.uint8)
        rice_decode(content, start, size, rows * nx, block, out.reshape(-1), status)
        if (status != TILE_OK).any():
            raise broken("a Rice tile is corrupt", hdu=hdu.name, tile=int(np.argmax(status != TILE_OK)))
        return
    _gunzip_tiles(hdu, content, (start, size), out.reshape(n_tiles, rows * nx))


def _tile_places(hdu: Hdu, content: UInt8, n_tiles: int) -> tuple[Int64, Int64]:
    """First byte in the file and length of every tile, from the table's descriptors."""
    row_bytes, n_rows = hdu.integer("NAXIS1"), hdu.integer("NAXIS2")
    form = hdu.cards.get("TFORM1", "").lstrip("1")
    width = {"PB": 4, "QB": 8}.get(form[:2])
    is_plain = hdu.integer("TFIELDS") == 1 and hdu.cards.get("TTYPE1") == "COMPRESSED_DATA"
    is_table = hdu.integer("BITPIX") == 8 and hdu.integer("NAXIS") == 2 and hdu.cards.get("XTENSION") == "BINTABLE"
    if width is None or not (is_plain and is_table) or row_bytes != 2 * width or n_rows != n_tiles:
        raise broken("the table of compressed tiles has another layout", hdu=hdu.name)
    table = (
        content[hdu.data_start : hdu.data_start + row_bytes * n_rows].view(np.dtype(f">i{width}")).reshape(n_rows, 2)
    )
    size, offset = table.astype(np.int64).T
    heap_start = hdu.integer("THEAP", row_bytes * n_rows)
    if not row_bytes * n_rows <= heap_start <= hdu.data_size:
        raise broken("the heap of compressed tiles lies outside its HDU", hdu=hdu.name, theap=heap_start)
    heap, heap_bytes = hdu.data_start + heap_start, hdu.data_size - heap_start
    # Each alone before their sum, which 64 bits might not hold.
    is_out = (size < 0) | (offset < 0) | (size > heap_bytes) | (offset > heap_bytes)
    if is_out.any() or (offset + size > heap_bytes).any():
        raise broken("truncated: a tile lies outside its HDU", hdu=hdu.name)
    if int(size.sum()) > heap_bytes:  # thousands of tiles on the same bytes would take hours to decode
        raise broken("tiles overlap", hdu=hdu.name)
    assert content.size >= hdu.data_start + hdu.data_size + READ_AHEAD
    return np.ascontiguousarray(offset + heap), np.ascontiguousarray(size)


def _rice_parameters(hdu: Hdu) -> tuple[int, int]:
    """BLOCKSIZE and BYTEPIX from the ZNAMEn/ZVALn pairs."""
    values = {hdu.cards.get(f"ZNAME{i}", ""): hdu.cards.get(f"ZVAL{i}", "") for i in range(1, 9)}
    block, width = values.get("BLOCKSIZE", "32"), values.get("BYTEPIX", "4")
    if block not in ("16", "32") or width not in ("1", "2", "4"):
        raise broken("odd Rice parameters", hdu=hdu.name, blocksize=block, bytepix=width)
    return int(block), int(width)


def _gunzip_tiles(hdu: Hdu, content: UInt8, places: tuple[Int64, Int64], out: Int32) -> None:
    """GZIP_1 or, with the bytes of the pixels shuffled, GZIP_2; never more bytes than a tile has pixels for."""
    width = hdu.integer("ZBITPIX") // 8
    wanted = out.shape[1] * width
    for i, (start, size) in enumerate(zip(*places, strict=True)):
        unzip = zlib.decompressobj(wbits=31)
        try:
            data = unzip.decompress(content[start : start + size].tobytes(), wanted)
        except zlib.error as error:
            raise broken("a GZIP tile is corrupt", hdu=hdu.name, tile=i) from error
        if len(data) != wanted or unzip.unconsumed_tail.strip(b"\0"):
            raise broken("a GZIP tile has another size than its pixels", hdu=hdu.name, tile=i)
        pixels = np.frombuffer(data, np.uint8)
        if hdu.cards["ZCMPTYPE"] == "GZIP_2":
            pixels = np.ascontiguousarray(pixels.reshape(width, -1).T).reshape(-1)
        out[i] = pixels.view(np.dtype(f">i{width}"))
