"""Packed arrays come back bit for bit, or not at all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from core.contracts.catalogs import DIA_SOURCE, EPHEMERIS, REFERENCE_STAR
from core.errors import TransientError
from service.storage import codec
from service.storage.codec import ArrayManifest, pack_array, unpack_array
from service.storage.memory import MemoryCache
from service.storage.recipe import BundleKey, PartKind, PartRecipe, pack_recipe, unpack_recipe


@given(hnp.arrays(st.sampled_from(["f4", "f8", "u2", "u1", "i8"]), hnp.array_shapes(max_dims=3, max_side=40)))
@settings(max_examples=50, deadline=None)
def test_any_array_comes_back(array: np.ndarray) -> None:
    again = unpack_array(pack_array(array))
    assert (again.dtype, again.shape) == (array.dtype, array.shape)
    assert again.tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", [DIA_SOURCE, EPHEMERIS, REFERENCE_STAR])
@pytest.mark.parametrize("n", [0, 1, 1000])
def test_catalogs_come_back(dtype: np.dtype[np.void], n: int) -> None:
    rows = np.frombuffer(np.random.default_rng(1).bytes(n * dtype.itemsize), dtype)
    again = unpack_array(pack_array(rows))
    assert again.dtype == dtype
    assert again.tobytes() == rows.tobytes()


def test_large_arrays_are_cut_and_masks_shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "PIECE_BYTES", 1 << 16)
    rng = np.random.default_rng(2)
    noise = rng.normal(1000, 30, (300, 301)).astype(np.float32)
    packed = pack_array(noise)
    assert len(packed.pieces) == 6
    assert packed.nbytes < 0.85 * noise.nbytes
    out = np.empty_like(noise)
    assert unpack_array(packed, out) is out
    np.testing.assert_array_equal(out, noise)
    mask = np.zeros((300, 301), np.uint16)
    assert pack_array(mask).nbytes < mask.nbytes / 50


def test_the_digest_is_the_contents() -> None:
    a = np.arange(5000, dtype=np.float32)
    assert pack_array(a).digest == pack_array(a.copy()).digest
    assert pack_array(a).digest != pack_array(a.reshape(50, 100)).digest
    assert pack_array(a).digest != pack_array(a + 1).digest


def test_a_spoiled_piece_is_noticed() -> None:
    packed = pack_array(np.arange(5000, dtype=np.float32))
    manifest = ArrayManifest.read(packed.manifest())
    assert manifest is not None
    assert manifest.with_pieces(packed.pieces) is not None
    spoiled = bytearray(packed.pieces[0])
    spoiled[-1] ^= 1
    assert manifest.with_pieces((spoiled,)) is None
    assert manifest.with_pieces((packed.pieces[0][:-1],)) is None
    with pytest.raises(TransientError):
        unpack_array(pack_with(packed, np.zeros(9000, np.uint8)))


def pack_with(packed: codec.PackedArray, other: np.ndarray) -> codec.PackedArray:
    """``packed`` with the pieces of another array."""
    wrong = pack_array(other)
    return codec.PackedArray(
        dtype=packed.dtype,
        shape=packed.shape,
        codecs=wrong.codecs,
        checksums=wrong.checksums,
        digests=wrong.digests,
        pieces=wrong.pieces,
    )


def test_memory_is_bounded_and_forgets_the_oldest() -> None:
    arrays = {str(i): pack_array(np.full(1000, i, np.uint8)) for i in range(4)}
    memory = MemoryCache(3000)
    for name in ("0", "1", "2"):
        memory.put(name, arrays[name])
    assert memory.get("0") is arrays["0"]
    memory.put("3", arrays["3"])
    assert [name for name in arrays if memory.get(name) is None] == ["1"]
    assert memory.nbytes == 3000
    memory.put("0", arrays["0"])
    assert memory.nbytes == 3000
    memory.put("big", pack_array(np.random.default_rng(0).integers(0, 255, 4000).astype(np.uint8)))
    assert memory.get("big") is None


KEY = BundleKey(
    instrument="T", group="g", detector=1, band="r", mjd_tai=61000.0, ra_deg=359.9999, dec_deg=0.0, rot_sky_deg=179.99
)


def test_recipes_come_back_for_their_own_pointing() -> None:
    recipe = (
        PartRecipe(kind=PartKind.CALIBRATIONS, arrays=(("bias", "a@1#bias"),), meta={}),
        PartRecipe(kind=PartKind.EPHEMERIDES, arrays=(), meta={"n": 1, "wcs": {"CRVAL1": 1.5}}),
    )
    data = pack_recipe(KEY, recipe)
    assert unpack_recipe(KEY, data) == recipe

    def moved(ra_deg: float = KEY.ra_deg, rot_sky_deg: float = KEY.rot_sky_deg) -> BundleKey:
        return BundleKey(
            instrument="T", group="g", detector=1, band="r", mjd_tai=61000.1,
            ra_deg=ra_deg, dec_deg=0.0, rot_sky_deg=rot_sky_deg,
        )  # fmt: skip

    assert unpack_recipe(moved(ra_deg=0.0005), data) == recipe
    assert unpack_recipe(moved(rot_sky_deg=-179.99), data) == recipe
    assert unpack_recipe(moved(ra_deg=0.002), data) is None
    assert unpack_recipe(moved(rot_sky_deg=-179.8), data) is None
    for spoiled in (b"", b"\x93\x01\x02\x03", data[:20], b"\x01"):
        assert unpack_recipe(KEY, spoiled) is None
        assert ArrayManifest.read(spoiled) is None
