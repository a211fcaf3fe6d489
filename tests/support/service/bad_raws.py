"""Raw files spoiled in one way each, from a good one."""

import gzip
import io
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from astropy.io import fits

from service.storage.fits_structure import read_structure

BLOCK = 2880
CARD = 80
PRIMARY_BYTES = 28800


def with_sequence(raw: bytes, sequence: int) -> bytes:
    """The raw of another exposure: its SEQNUM changed, all else alike."""
    for start in range(0, min(len(raw), PRIMARY_BYTES), CARD):
        if raw[start : start + 9] == b"SEQNUM  =":
            return raw[:start] + f"SEQNUM  = {sequence:>20d}".encode().ljust(CARD) + raw[start + CARD :]
    raise ValueError("the raw has no SEQNUM")


def truncated(path: Path) -> None:
    """Half of it has not arrived."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def not_fits(path: Path) -> None:
    """Some other file."""
    path.write_bytes(b"\x89PNG\r\n" + bytes(10_000))


def empty(path: Path) -> None:
    """No bytes at all."""
    path.write_bytes(b"")


def gzipped(path: Path) -> None:
    """A whole file in gzip, which unpacks to a gigabyte of zeros."""
    content = zlib.compressobj(9, wbits=31)
    with path.open("wb") as file:
        file.write(content.compress(bytes(1 << 20)))
        for _ in range(1023):
            file.write(content.compress(bytes(1 << 20)))
        file.write(content.flush())


def missing_segment(path: Path) -> None:
    """The second segment is not there."""
    content = path.read_bytes()
    start, stop = _span(content, 2)
    path.write_bytes(content[:start] + content[stop:])


def wrong_dimensions(path: Path) -> None:
    """Segments of another camera."""
    _replace(path, lambda pixels: pixels[:-8, :-8], "RICE_1")


def all_nan(path: Path) -> None:
    """Floating-point pixels, none of them a number."""
    _replace(path, lambda pixels: np.full(pixels.shape, np.nan, np.float32), None)


def all_saturated(path: Path) -> None:
    """Every pixel, overscan included, at the converter's end."""
    _replace(path, lambda pixels: np.full_like(pixels, 262_143), "RICE_1")


def all_zero(path: Path) -> None:
    """No signal, no bias, no noise."""
    _replace(path, np.zeros_like, "RICE_1")


def saturated_sky(path: Path) -> None:
    """The imaging area saturated, the overscan alive."""

    def fill(pixels: np.ndarray) -> np.ndarray:
        pixels = pixels.copy()
        pixels[:, 8:-24] = 200_000
        return pixels

    _replace(path, fill, "RICE_1")


def hcompress(path: Path) -> None:
    """Compressed in a way that is not read."""
    _replace(path, lambda pixels: pixels, "HCOMPRESS_1")


def gzip_bomb(path: Path) -> None:
    """A first segment whose one small tile unpacks to 256 MB."""
    with fits.open(path) as hdus:
        header, (ny, nx) = hdus[1].header, hdus[1].data.shape
    bomb = np.frombuffer(gzip.compress(bytes(256 << 20), 9), np.uint8)
    table = fits.BinTableHDU.from_columns([fits.Column("COMPRESSED_DATA", "1PB()", array=_one_object(bomb))])
    image = {"ZIMAGE": True, "ZCMPTYPE": "GZIP_1", "ZBITPIX": 32, "ZNAXIS": 2, "ZNAXIS1": nx, "ZNAXIS2": ny}
    geometry = {key: header[key] for key in ("EXTNAME", "DATASEC", "DETSEC", "DETSIZE")}
    for key, value in (image | {"ZTILE1": nx, "ZTILE2": ny} | geometry).items():
        table.header[key] = value
    file = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(file)
    made = file.getvalue()
    content = path.read_bytes()
    start, stop = _span(content, 1)
    first, last = _span(made, 1)
    path.write_bytes(content[:start] + made[first:last] + content[stop:])


def _one_object(value: np.ndarray) -> np.ndarray:
    column = np.empty(1, object)
    column[0] = value
    return column


def _span(content: bytes, number: int) -> tuple[int, int]:
    """First byte of an HDU's header and the one behind its data."""
    hdus = read_structure(memoryview(content), max_hdus=64)
    ends = [hdu.data_start + -(-hdu.data_size // BLOCK) * BLOCK for hdu in hdus]
    return ends[number - 1], ends[number]


def _replace(path: Path, change: Callable[[np.ndarray], np.ndarray], compression: str | None) -> None:
    """Rewrite every segment's pixels; the headers stay."""
    with fits.open(path) as hdus:
        changed = fits.HDUList([fits.PrimaryHDU(header=hdus[0].header)])
        for hdu in hdus[1:]:
            keep = {k: hdu.header[k] for k in ("EXTNAME", "DATASEC", "DETSEC", "DETSIZE")}
            pixels = change(np.asarray(hdu.data, np.int32))
            new = (
                fits.ImageHDU(pixels)
                if compression is None
                else fits.CompImageHDU(pixels, compression_type=compression)
            )
            new.header.update(keep)
            changed.append(new)
        changed.writeto(path, overwrite=True)
