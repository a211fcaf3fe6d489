"""The Rice kernel against its plain twin and against cfitsio's encoder."""

import io

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.kernels.rice import READ_AHEAD, TILE_CORRUPT, TILE_OK, rice_decode
from tests.support.reference.rice import rice_decode_tile

NX = 70


def compress(image: NDArray[np.int32]) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Row tiles of an image as cfitsio writes them: all bytes with room behind, place and size of each."""
    buffer = io.BytesIO()
    hdu = fits.CompImageHDU(image, compression_type="RICE_1", tile_shape=(1, image.shape[1]))
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(buffer)
    buffer.seek(0)
    with fits.open(buffer, disable_image_compression=True) as hdus:
        tiles = [np.array(row, np.uint8) for row in hdus[1].data["COMPRESSED_DATA"]]
    size = np.array([tile.size for tile in tiles], np.int64)
    start = np.concatenate([[0], np.cumsum(size)[:-1]]).astype(np.int64)
    return np.concatenate([*tiles, np.zeros(READ_AHEAD, np.uint8)]), start, size


def decode(
    data: NDArray[np.uint8], start: NDArray[np.int64], size: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    out = np.empty(start.size * NX, np.int32)
    status = np.empty(start.size, np.uint8)
    rice_decode(data, start, size, NX, 32, out, status)
    return out.reshape(-1, NX), status


def hard_image(seed: int, width: int) -> NDArray[np.int32]:
    """Rows of noise of a given width, constant rows, full-range rows, steps."""
    rng = np.random.default_rng(seed)
    image = rng.integers(-(1 << width) // 2, (1 << width) // 2 + 1, (6, NX)).astype(np.int32)
    image[1] = 5
    image[2, 30:] += 100_000
    image[3] = rng.integers(-(2**31), 2**31 - 1, NX)
    return image


@given(st.integers(0, 2**32 - 1), st.integers(0, 30))
@settings(max_examples=40, deadline=None)
def test_decodes_what_cfitsio_encodes(seed: int, width: int) -> None:
    image = hard_image(seed, width)
    decoded, status = decode(*compress(image))
    np.testing.assert_array_equal(decoded, image)
    assert (status == TILE_OK).all()


@pytest.mark.parametrize("width", [0, 3, 10, 24])
def test_equals_its_plain_twin(width: int) -> None:
    data, start, size = compress(hard_image(width, width))
    decoded, _ = decode(data, start, size)
    for i, row in enumerate(decoded):
        tile = data[start[i] : start[i] + size[i]].tobytes()
        np.testing.assert_array_equal(row, rice_decode_tile(tile, NX, 32))


@given(st.binary(min_size=0, max_size=200))
@settings(max_examples=200, deadline=None)
def test_garbage_never_reads_outside(garbage: bytes) -> None:
    """The bytes behind the tile are in the array but must not be needed: a tile that uses them is corrupt."""
    for filling in (0, 255):
        data = np.frombuffer(garbage + bytes([filling]) * READ_AHEAD, np.uint8)
        _, status = decode(data, np.zeros(1, np.int64), np.array([len(garbage)], np.int64))
        assert status[0] in (TILE_OK, TILE_CORRUPT)


def test_a_cut_tile_is_corrupt() -> None:
    data, start, size = compress(hard_image(1, 12))
    for lost in (1, 2, 5, int(size[0])):
        _, status = decode(data, start[:1], size[:1] - lost)
        assert status[0] == TILE_CORRUPT
