"""Bundles: the same arrays from memory, from Redis and from the store, and each said to come from there."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
import redis

from core.contracts.bundle import Bundle, History, PartSource
from core.contracts.wcs import separation_arcsec
from core.errors import ConfigurationError, RejectedInputError
from core.flags import Mask
from core.workspace import Workspace
from service.storage.bundle import load_bundle, load_packed
from service.storage.cache import Cache
from service.storage.datastore import Datastore
from service.storage.footprint import detector_corners
from service.storage.memory import MemoryCache
from service.storage.recipe import BundleKey
from service.storage.tables import empty_history
from tests.contract.stores_support import KEY, TRACT_CRPIX, cache_url, make_dataset, valkey, write_image

__all__ = ["cache_url", "valkey"]

OpenCache = Callable[..., Cache]


class EmptyHistory:
    """A history that Redis has, and that is empty."""

    def load(self, key: BundleKey) -> tuple[History, PartSource]:
        return empty_history(), PartSource.REDIS


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture
def open_cache(cache_url: str) -> Iterator[Callable[..., Cache]]:
    """Opens caches, and closes them."""
    with ExitStack() as stack:

        def open_one(url: str = cache_url, **options: Any) -> Cache:
            return stack.enter_context(closing(Cache(url, **options)))

        yield open_one


@pytest.fixture
def client(cache_url: str) -> Iterator[Any]:
    """Looks into the cache."""
    with redis.Redis.from_url(cache_url) as opened:
        yield opened


@pytest.fixture
def datastore(dataset: Path) -> Datastore:
    return Datastore(dataset)


def sources(bundle: Bundle) -> dict[str, str]:
    return {part.kind: part.source.value for part in bundle.parts}


def load(cache: Cache | None, datastore: Datastore, memory: MemoryCache | None = None, key: BundleKey = KEY) -> Bundle:
    return load_bundle(key, memory or MemoryCache(1 << 28), cache, datastore, EmptyHistory(), Workspace())


def assert_same(a: Bundle, b: Bundle) -> None:
    assert [(p.kind, p.digest) for p in a.parts] == [(p.kind, p.digest) for p in b.parts]
    for name in ("gain", "linearity", "crosstalk", "bias", "dark", "flat", "defects"):
        np.testing.assert_array_equal(getattr(a.calibrations, name), getattr(b.calibrations, name))
    assert a.template is not None
    assert b.template is not None
    for name in ("image", "variance", "mask"):
        np.testing.assert_array_equal(getattr(a.template.frame, name), getattr(b.template.frame, name))
    np.testing.assert_array_equal(a.template.psf_cells, b.template.psf_cells)
    assert a.reference_stars.tobytes() == b.reference_stars.tobytes()
    assert a.ephemerides.tobytes() == b.ephemerides.tobytes()


def test_memory_then_redis_then_store(open_cache: OpenCache, client: Any, datastore: Datastore) -> None:
    prefetch = open_cache()
    load_packed(KEY, MemoryCache(1 << 28), prefetch, datastore, EmptyHistory(), publish=True)
    worker, memory = open_cache(), MemoryCache(1 << 28)
    from_redis = load(worker, datastore, memory)
    assert set(sources(from_redis).values()) == {"redis"}
    from_memory = load(worker, datastore, memory)
    assert set(sources(from_memory).values()) == {"memory", "redis"}
    assert sources(from_memory)["template"] == "memory"
    client.flushall()
    cold = load(worker, datastore)
    assert {kind for kind, source in sources(cold).items() if source == "cold"} == {
        "calibrations", "template", "reference_stars", "ephemerides",
    }  # fmt: skip
    assert_same(cold, from_redis)
    assert_same(cold, from_memory)


def test_a_workspace_used_again_holds_the_new_bundle(tmp_path: Path) -> None:
    datastore, workspace = Datastore(make_dataset(tmp_path)), Workspace()
    first = load_packed(KEY, MemoryCache(1 << 28), None, datastore, EmptyHistory()).unpack(workspace)
    flat, n_bytes = first.calibrations.flat.copy(), workspace.nbytes
    path = tmp_path / "calib/000/dark_60900_61100.fits"
    with fitsio.FITS(path, "rw") as file:
        file[1].write(np.full((512, 512), 3, np.float32))
    second = load_packed(KEY, MemoryCache(1 << 28), None, datastore, EmptyHistory()).unpack(workspace)
    assert second.calibrations.flat is first.calibrations.flat
    assert workspace.nbytes == n_bytes
    np.testing.assert_array_equal(second.calibrations.flat, flat)
    assert (second.calibrations.dark == 3).all()


def test_no_redis_is_an_empty_one(open_cache: OpenCache, datastore: Datastore) -> None:
    away = open_cache("redis://127.0.0.1:1", timeout_s=0.2)
    assert_same(load(away, datastore), load(None, datastore))


def test_an_evicted_or_spoiled_piece_is_read_from_the_store(
    open_cache: OpenCache, client: Any, datastore: Datastore
) -> None:
    cache = open_cache()
    load_packed(KEY, MemoryCache(1 << 28), cache, datastore, EmptyHistory(), publish=True)
    keys = sorted(client.keys("sub60:piece:*"))
    client.delete(keys[0])
    client.set(keys[1], b"spoiled")
    bundle = load(open_cache(), datastore)
    assert "cold" in sources(bundle).values()
    assert_same(bundle, load(None, datastore))


def test_publishing_again_renews_what_is_there_and_moves_none_of_it(
    open_cache: OpenCache, client: Any, datastore: Datastore
) -> None:
    cache = open_cache()
    first = load_packed(KEY, MemoryCache(0), cache, datastore, EmptyHistory(), publish=True)
    n_bytes = sum(packed.nbytes for part in first.parts.values() for packed in part.arrays.values())
    pieces = list(client.scan_iter("*:piece:*"))
    for key in client.scan_iter("*"):
        client.expire(key, 5)
    before = client.info("stats")
    again = load_packed(KEY, MemoryCache(0), cache, datastore, EmptyHistory(), publish=True)
    after = client.info("stats")
    for direction in ("total_net_input_bytes", "total_net_output_bytes"):
        assert after[direction] - before[direction] < 0.05 * n_bytes
    assert not any(part.arrays for part in again.parts.values())
    assert {part.source.value for part in again.parts.values()} == {"redis"}
    assert min(client.ttl(key) for key in client.scan_iter("*")) > 60
    client.delete(pieces[0])
    load_packed(KEY, MemoryCache(0), cache, datastore, EmptyHistory(), publish=True)
    assert client.exists(pieces[0])
    assert client.ttl(pieces[0]) > 60
    assert set(sources(load(open_cache(), datastore)).values()) == {"redis"}


def test_everything_in_redis_expires(open_cache: OpenCache, client: Any, datastore: Datastore) -> None:
    cache = open_cache(ttl_s=100)
    load_packed(KEY, MemoryCache(1 << 28), cache, datastore, EmptyHistory(), publish=True)
    times = [client.ttl(key) for key in client.keys("*")]
    assert len(times) > 10
    assert min(times) > 0
    assert max(client.memory_usage(key) for key in client.keys("sub60:piece:*")) < 5 << 20


def test_a_recipe_for_another_pointing_is_not_used(open_cache: OpenCache, datastore: Datastore) -> None:
    cache = open_cache()
    load_packed(KEY, MemoryCache(1 << 28), cache, datastore, EmptyHistory(), publish=True)
    assert cache.get_recipe(dataclasses.replace(KEY, ra_deg=KEY.ra_deg + 3 / 3600)) is not None
    for change in ({"ra_deg": KEY.ra_deg + 10 / 3600}, {"rot_sky_deg": KEY.rot_sky_deg + 0.2}, {"band": "i"}):
        assert cache.get_recipe(dataclasses.replace(KEY, **change)) is None


def test_ephemerides_follow_the_visit_when_it_gets_its_number(open_cache: OpenCache, datastore: Datastore) -> None:
    cache = open_cache()
    early = dataclasses.replace(KEY, visit=None)
    packed = load_packed(early, MemoryCache(1 << 28), cache, datastore, EmptyHistory(), publish=True)
    assert packed.unpack(Workspace()).ephemerides.size == 0
    bundle = load(open_cache(), datastore)
    assert bundle.ephemerides["designation"].tolist() == ["2026 AB1", "", "C"]
    assert sources(bundle)["ephemerides"] == "cold"
    assert sources(bundle)["template"] == "redis"


def test_a_rewritten_calibration_is_another_one(open_cache: OpenCache, tmp_path: Path) -> None:
    datastore, cache, memory = Datastore(make_dataset(tmp_path)), open_cache(), MemoryCache(1 << 28)
    load_packed(KEY, memory, cache, datastore, EmptyHistory(), publish=True)
    path = tmp_path / "calib/000/bias_60900_61100.fits"
    with fitsio.FITS(path, "rw") as file:
        file[1].write(np.full((512, 512), 3, np.float32))
    bundle = load(cache, datastore, memory, dataclasses.replace(KEY, group="g2"))
    assert (bundle.calibrations.bias == 3).all()


def test_the_template_is_the_tracts_pixels_around_the_footprint(datastore: Datastore) -> None:
    template = load(None, datastore).template
    assert template is not None
    assert (template.n_inputs, template.epoch_mjd_tai, template.cell_size_pix) == (6, 60000.0, 64)
    camera = datastore.camera
    corners = detector_corners(camera, 0, KEY.ra_deg, KEY.dec_deg, KEY.rot_sky_deg)
    x, y = template.wcs.sky_to_pixel(corners[:, 0], corners[:, 1])
    ny, nx = template.frame.shape
    pad = 50 / 0.2
    assert x.min() >= pad
    assert y.min() >= pad
    assert x.max() <= nx - 1 - pad
    assert y.max() <= ny - 1 - pad
    mask = template.frame.mask
    has_data = (mask & Mask.NODATA) == 0
    assert 0.2 < has_data.mean() < 0.9
    # Each pixel holds its number in the tract; its place there follows from the shift of the reference pixel.
    yy, xx = np.nonzero(has_data)
    number = template.frame.image[yy, xx]
    x0, y0 = np.round(TRACT_CRPIX - template.wcs.crpix)
    np.testing.assert_array_equal(number, 2048 * (yy + y0) + xx + x0)
    assert np.isfinite(template.frame.variance).all()
    assert (template.frame.variance > 0).all()
    # The PSF cell of a pixel is that of its patch.
    for i in (0, yy.size // 2, yy.size - 1):
        cy = (yy[i] + template.cell_offset_pix[0]) // 64
        cx = (xx[i] + template.cell_offset_pix[1]) // 64
        row, column = int(number[i] // 2048) // 256, int(number[i] % 2048) // 256
        assert template.psf_cells[cy, cx, 2, 2] == 1 + row * 16 + column


def test_sky_without_template_has_none(datastore: Datastore) -> None:
    assert load(None, datastore, key=dataclasses.replace(KEY, ra_deg=80.0)).template is None


def test_reference_stars_are_those_of_the_footprint(datastore: Datastore) -> None:
    stars = load(None, datastore).reference_stars
    corners = detector_corners(datastore.camera, 0, KEY.ra_deg, KEY.dec_deg, KEY.rot_sky_deg)
    center = corners.mean(axis=0)
    distance = separation_arcsec(stars["ra"], stars["dec"], *center)
    assert stars.size > 0
    assert distance.max() < 3600 * 0.05
    assert np.isnan(stars["g_flux"]).all()


@pytest.mark.parametrize("mjd", [60899.0, 61100.0])
def test_no_calibration_is_refused(datastore: Datastore, mjd: float) -> None:
    with pytest.raises(RejectedInputError, match="valid at MJD"):
        load(None, datastore, key=dataclasses.replace(KEY, mjd_tai=mjd))
    with pytest.raises(RejectedInputError, match="flat-i"):
        load(None, datastore, key=dataclasses.replace(KEY, band="i"))


def test_a_misplaced_calibration_is_refused(tmp_path: Path) -> None:
    datastore = Datastore(make_dataset(tmp_path))
    folder = tmp_path / "calib/000"
    (folder / "dark_60900_61100.fits").write_bytes((folder / "bias_60900_61100.fits").read_bytes())
    with pytest.raises(RejectedInputError, match="not what its name says"):
        load(None, datastore)


def test_no_dataset_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        Datastore(tmp_path)


def test_memory_drops_the_least_recently_used(datastore: Datastore) -> None:
    memory = MemoryCache(1_500_000)
    first = load(None, datastore, memory)
    assert memory.nbytes <= 1_500_000
    assert_same(first, load(None, datastore, memory))


def test_amplifiers_without_the_brighter_fatter_column_have_none(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "old")
    path = next((root / "calib/000").glob("amplifiers_*.fits"))
    table, header = fitsio.read(path, ext=1), fitsio.read_header(path, ext=0)
    keywords = {name: header[name] for name in ("KIND", "DETECTOR", "VALIDSTA", "VALIDEND")}
    table["brighter_fatter"] = 4e-7
    without = [name for name in table.dtype.names if name != "brighter_fatter"]
    for names, expected in ((list(table.dtype.names), 4e-7), (without, 0.0)):
        rows = np.zeros(table.size, [(name, table.dtype[name]) for name in names])
        for name in names:
            rows[name] = table[name]
        write_image(path, {"DATA": rows}, **keywords)
        calibrations = load(None, Datastore(root)).calibrations
        assert calibrations.brighter_fatter.dtype == np.float32
        np.testing.assert_allclose(calibrations.brighter_fatter, np.full(table.size, expected), rtol=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd@1-1#",
        "calib/../../secret.fits@1-1#bias",
        "calib/000/bias_60900_61100.fits[1][col x=1]@1-1#bias",
        "calib/000/bias_60900_61100.fits.gz@1-1#bias",
        "http://host/x.fits@1-1#",
        "template/0/r/000_000.fits;x@1-1#IMAGE",
    ],
)
def test_a_name_from_outside_reads_no_file(tmp_path: Path, name: str) -> None:
    store = Datastore(make_dataset(tmp_path / "dataset"))
    (tmp_path / "secret.fits").write_bytes((tmp_path / "dataset/calib/000/bias_60900_61100.fits").read_bytes())
    with pytest.raises(FileNotFoundError):
        store.read(name)
