"""Headers written by an attacker: each lie ends in an error of the data, never in a crash, a wait or foreign bytes."""

import contextlib
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from core.camera import Camera, load_camera
from core.errors import RejectedInputError, UnusableDataError
from core.workspace import Workspace
from service.storage.fits_structure import BLOCK, Hdu, read_structure
from service.storage.raw import RawLimits, read_raw
from tests.unit.storage.test_raw import write_raw

CARD = 80
REFUSED = (UnusableDataError, RejectedInputError)


@pytest.fixture(scope="module")
def camera() -> Camera:
    return load_camera("testcam")


@pytest.fixture(scope="module")
def rice(tmp_path_factory: pytest.TempPathFactory, camera: Camera) -> bytes:
    path = tmp_path_factory.mktemp("rice") / "raw.fits"
    write_raw(path, camera)
    return path.read_bytes()


@pytest.fixture(scope="module")
def gzip(tmp_path_factory: pytest.TempPathFactory, camera: Camera) -> bytes:
    path = tmp_path_factory.mktemp("gzip") / "raw.fits"
    write_raw(path, camera, "GZIP_1")
    return path.read_bytes()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, camera: Camera) -> bytes:
    path = tmp_path_factory.mktemp("plain") / "raw.fits"
    write_raw(path, camera, None)
    return path.read_bytes()


def hdus_of(content: bytes) -> list[Hdu]:
    return read_structure(memoryview(content), max_hdus=64)


def with_card(content: bytes, number: int, key: str, value: str) -> bytes:
    """One card of an HDU changed, or put in the place of a blank or comment card."""
    hdus = hdus_of(content)
    first = 0 if number == 0 else hdus[number - 1].data_start + -(-hdus[number - 1].data_size // BLOCK) * BLOCK
    cards = range(first, hdus[number].data_start, CARD)
    place = next((i for i in cards if content[i : i + 8] == key.encode().ljust(8)), None)
    if place is None:  # before END, which moves into what was blank
        place = next(i for i in cards if content[i : i + 8] == b"END     ")
        assert content[place + CARD : place + 2 * CARD] == b" " * CARD
        content = content[: place + CARD] + b"END".ljust(CARD) + content[place + 2 * CARD :]
    return content[:place] + f"{key:8s}= {value:>20s}".encode().ljust(CARD) + content[place + CARD :]


def read(content: bytes, camera: Camera, folder: Path, workspace: Workspace | None = None) -> None:
    (folder / "raw.fits").write_bytes(content)
    read_raw("raw.fits", camera, RawLimits(roots=(folder,)), workspace or Workspace())


LIES = [
    ("THEAP", "-1"),
    ("THEAP", "-1000000000000000"),
    ("THEAP", "999999999999999999"),
    ("THEAP", "0"),
    ("THEAP", "9" * 40),
    ("PCOUNT", "-8"),
    ("PCOUNT", "999999999999999999"),
    ("PCOUNT", "0"),
    ("GCOUNT", "0"),
    ("GCOUNT", "-1"),
    ("GCOUNT", "2"),
    ("BITPIX", "0"),
    ("BITPIX", "1"),
    ("BITPIX", "-8"),
    ("BITPIX", "7"),
    ("NAXIS", "0"),
    ("NAXIS", "-1"),
    ("NAXIS", "999"),
    ("NAXIS", "1"),
    ("NAXIS1", "-8"),
    ("NAXIS1", "0"),
    ("NAXIS1", "1_0"),
    ("NAXIS1", "999999999999999999"),
    ("NAXIS2", "-512"),
    ("NAXIS2", "0"),
    ("NAXIS2", "999999999999999999"),
    ("TFIELDS", "0"),
    ("TFIELDS", "999"),
    ("ZNAXIS", "3"),
    ("ZNAXIS1", "-1"),
    ("ZNAXIS1", "999999999999999999"),
    ("ZNAXIS2", "0"),
    ("ZTILE1", "0"),
    ("ZTILE1", "-1"),
    ("ZTILE2", "0"),
    ("ZTILE2", "-1"),
    ("ZTILE2", "999999999999999999"),
    ("ZBITPIX", "8"),
    ("ZBITPIX", "-32"),
    ("ZBITPIX", "64"),
    ("ZVAL1", "0"),
    ("ZVAL1", "-32"),
    ("ZVAL1", "2147483648"),
    ("ZVAL2", "8"),
    ("BZERO", "nan"),
    ("BZERO", "1e308"),
    ("BSCALE", "inf"),
    ("BSCALE", "0"),
]


@pytest.mark.parametrize(("key", "value"), LIES)
def test_lies_of_a_compressed_segment(rice: bytes, camera: Camera, tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(REFUSED):
        read(with_card(rice, 1, key, value), camera, tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("GCOUNT", "0"),
        ("PCOUNT", "4"),
        ("BITPIX", "0"),
        ("BITPIX", "-32"),
        ("BITPIX", "64"),
        ("NAXIS", "3"),
        ("NAXIS1", "0"),
    ],
)
def test_lies_of_a_plain_segment(plain: bytes, camera: Camera, tmp_path: Path, key: str, value: str) -> None:
    last = len(hdus_of(plain)) - 1  # nothing behind it: what lies there would be the buffer's former content
    with pytest.raises(REFUSED):
        read(with_card(plain, last, key, value), camera, tmp_path)


def test_two_negative_axes_are_no_size(plain: bytes, camera: Camera, tmp_path: Path) -> None:
    ny, nx = (hdus_of(plain)[1].integer(key) for key in ("NAXIS2", "NAXIS1"))
    content = plain
    first = content.index(b"NAXIS1  =", BLOCK)
    second = content.index(b"NAXIS2  =", BLOCK)
    changed = bytearray(content)
    changed[first : first + CARD] = f"NAXIS1  = {-nx:>20d}".encode().ljust(CARD)
    changed[second : second + CARD] = f"NAXIS2  = {-ny:>20d}".encode().ljust(CARD)
    with pytest.raises(RejectedInputError, match="negative"):
        read(bytes(changed), camera, tmp_path)


@pytest.mark.parametrize("compression", ["rice", "gzip"])
@pytest.mark.parametrize(
    ("size", "offset"),
    [
        (-1, 0),
        (0, -1),
        (2**31 - 1, 0),
        (2**31 - 1, 2**31 - 1),
        (1, 2**31 - 1),
        (-(2**31), -(2**31)),
        (4, -4),
    ],
)
def test_lies_of_a_descriptor(
    request: pytest.FixtureRequest, camera: Camera, tmp_path: Path, compression: str, size: int, offset: int
) -> None:
    content: bytes = request.getfixturevalue(compression)
    start = hdus_of(content)[1].data_start
    with pytest.raises(UnusableDataError):
        read(content[:start] + struct.pack(">ii", size, offset) + content[start + 8 :], camera, tmp_path)


def test_a_sum_that_64_bits_do_not_hold(rice: bytes, camera: Camera, tmp_path: Path) -> None:
    """With 64-bit descriptors, size + offset wraps to a small negative number."""
    hdu = hdus_of(rice)[1]
    n_rows = hdu.integer("NAXIS2")
    table = np.frombuffer(rice, ">i4", n_rows * 2, hdu.data_start).reshape(n_rows, 2).astype(np.int64)
    table[0] = (2**63 - 1, 1)
    heap = rice[hdu.data_start + 8 * n_rows : hdu.data_start + hdu.data_size]
    data = table.astype(">i8").tobytes() + heap
    content = bytearray(rice[: hdu.data_start])
    for key, value in (("NAXIS1", f"{16:>20d}"), ("TFORM1", "'1QB(999)'")):
        place = bytes(content).index(f"{key:8s}=".encode(), BLOCK)
        content[place : place + CARD] = f"{key:8s}= {value}".encode().ljust(CARD)
    rest = rice[hdu.data_start + -(-hdu.data_size // BLOCK) * BLOCK :]
    with pytest.raises(UnusableDataError, match="outside its HDU"):
        read(bytes(content) + data + bytes(-len(data) % BLOCK) + rest, camera, tmp_path)


def test_tiles_on_the_same_bytes_do_not_cost_their_number_times(rice: bytes, camera: Camera, tmp_path: Path) -> None:
    hdu = hdus_of(rice)[1]
    n_rows = hdu.integer("NAXIS2")
    heap = hdu.data_size - 8 * n_rows
    table = struct.pack(">ii", heap, 0) * n_rows
    content = rice[: hdu.data_start] + table + rice[hdu.data_start + len(table) :]
    with pytest.raises(UnusableDataError, match="overlap"):
        read(content, camera, tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("DAYOBS", "'" + "9" * 30 + "'"),
        ("DAYOBS", "-20261122"),
        ("SEQNUM", "9" * 40),
        ("DETECTOR", "9" * 18),
        ("DETECTOR", "-1"),
        ("EXPTIME", "nan"),
        ("RA", "inf"),
        ("DEC", "1e999"),
        ("DATE-BEG", "'9999-12-31T23:59:59.999999999'"),
        ("DATE-END", "'" + "2" * 60 + "'"),
        ("NAXIS", "8"),
    ],
)
def test_lies_of_the_primary_header(rice: bytes, camera: Camera, tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(REFUSED):
        read(with_card(rice, 0, key, value), camera, tmp_path)


def test_headers_have_a_length(rice: bytes, camera: Camera, tmp_path: Path) -> None:
    empty = b"XTENSION= 'IMAGE   '".ljust(CARD) + b"BITPIX  =                    8".ljust(CARD)
    empty += b"NAXIS   =                    0".ljust(CARD)
    long = empty + b"COMMENT x".ljust(CARD) * (BLOCK // CARD * 60 - 4) + b"END".ljust(CARD)
    with pytest.raises(RejectedInputError, match="cards"):
        read(rice + long * 9, camera, tmp_path)
    endless = b"COMMENT x".ljust(CARD) * (BLOCK // CARD) * 100
    with pytest.raises(RejectedInputError, match="END"):
        read(rice + endless, camera, tmp_path)
    with pytest.raises(RejectedInputError, match="HDUs"):
        read(rice + (empty + b"END".ljust(CARD)).ljust(BLOCK) * 100, camera, tmp_path)


def test_a_stream_that_never_ends_a_run_is_refused_soon(rice: bytes, camera: Camera, tmp_path: Path) -> None:
    hdu = hdus_of(rice)[1]
    heap = hdu.data_start + 8 * hdu.integer("NAXIS2")
    content = rice[:heap] + bytes(hdu.data_start + hdu.data_size - heap) + rice[hdu.data_start + hdu.data_size :]
    begin = time.monotonic()
    with contextlib.suppress(REFUSED):
        read(content, camera, tmp_path)
    assert time.monotonic() - begin < 5


def test_a_file_that_shrinks_while_it_is_read_is_truncated(
    rice: bytes, camera: Camera, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace()
    read(rice, camera, tmp_path, workspace)  # the buffer now holds a good file
    real: Callable[..., int] = os.readv

    def shrink(descriptor: int, buffers: list[memoryview]) -> int:
        os.truncate(tmp_path / "raw.fits", len(rice) // 2)
        return real(descriptor, buffers)

    monkeypatch.setattr("service.storage.raw.os.readv", shrink)
    with pytest.raises(UnusableDataError):
        read_raw("raw.fits", camera, RawLimits(roots=(tmp_path,)), workspace)


def test_no_other_unit_is_read(rice: bytes, camera: Camera, tmp_path: Path) -> None:
    """One byte changed anywhere in the headers: an error of the data or the same pixels' shape, nothing else."""
    rng = np.random.default_rng(17)
    hdus = hdus_of(rice)
    starts = [0, *(h.data_start + -(-h.data_size // BLOCK) * BLOCK for h in hdus[:-1])]
    workspace = Workspace()
    for _ in range(250):
        number = int(rng.integers(len(hdus)))
        content = bytearray(rice)
        for _ in range(int(rng.integers(1, 4))):
            place = int(rng.integers(starts[number], hdus[number].data_start))
            content[place] = int(rng.choice(list(b"0123456789-' /=EXNBZ\xff\x00")))
        try:
            read(bytes(content), camera, tmp_path, workspace)
        except REFUSED:
            continue
