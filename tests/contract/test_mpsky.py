"""mpSky over real HTTP: places of known orbits, answers that are none, and bundles with and without it."""

import builtins
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import structlog
from prometheus_client import CollectorRegistry

from core.contracts.bundle import History, PartSource
from core.contracts.catalogs import EPHEMERIS, Catalog
from core.designations import ss_object_id
from core.errors import ConfigurationError, RejectedInputError, Sub60Error, TransientError
from core.stages.solar_system import predict
from core.timescales import mjd_tai_to_unix_tai
from core.workspace import Workspace
from service.bundle_loader import AFTER_T0_TIMEOUT_S, BundleLoader, open_mpsky
from service.checks import Level, run_checks
from service.metrics import Metrics
from service.roles.prefetch import Prefetch
from service.settings import read_settings
from service.storage import mpsky
from service.storage.bundle import PackedBundle, load_packed
from service.storage.cache import Cache
from service.storage.datastore import Datastore
from service.storage.footprint import detector_corners, detector_radius_deg
from service.storage.memory import MemoryCache
from service.storage.mpsky import ERROR_ARCSEC, MARGIN_DEG, MpSky
from service.storage.recipe import BundleKey, PartKind
from service.storage.tables import empty_history
from tests.contract.stores_support import KEY, MJD, cache_url, make_dataset, valkey
from tests.support.mpsky import MpSkyServer, make_answer, make_orbits
from tests.support.service.builders import prepare
from tests.support.service.fakes import FakeClock

__all__ = ["cache_url", "valkey"]

NAMES = ["1998 SV127", "J95X00A", "2008 AA360"]
ORBITS = make_orbits(3, MJD)


class EmptyHistory:
    """A history that Redis has, and that is empty."""

    def load(self, key: BundleKey) -> tuple[History, PartSource]:
        return empty_history(), PartSource.REDIS


@pytest.fixture
def server() -> Iterator[MpSkyServer]:
    with MpSkyServer(body=make_answer(ORBITS, NAMES)) as started:
        yield started


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("dataset"))


def ask(server: MpSkyServer, timeout_s: float = 5.0) -> Catalog:
    return MpSky(server.url, timeout_s).query(MJD, 150.0, 2.0, 0.25)


def assert_places(rows: Catalog, orbits: Any, mjd_tai: float) -> None:
    """RA and Dec of :func:`predict` agree to a microarcsecond with the paths themselves."""
    found = predict(rows, mjd_tai)
    ra, dec = orbits.places(mjd_tai)
    offset = 3600 * np.hypot((found.ra - ra) * np.cos(np.radians(dec)), found.dec - dec)
    assert offset.max() < 1e-6
    late = predict(rows, mjd_tai + 37 / 86400)
    assert (3600 * np.hypot((late.ra - ra) * np.cos(np.radians(dec)), late.dec - dec)).max() > 0.1


@pytest.mark.parametrize("minutes", [-29, 0, 0.25, 29])
def test_places_of_known_orbits(server: MpSkyServer, minutes: float) -> None:
    assert_places(ask(server), ORBITS, MJD + minutes / 1440)


@pytest.mark.parametrize("n_terms", [1, 3, 6, 7, 9])
def test_series_of_any_length(server: MpSkyServer, n_terms: int) -> None:
    orbits = make_orbits(3, MJD, n_terms=max(n_terms, 2))
    if n_terms == 1:
        orbits = dataclasses.replace(orbits, objects=orbits.objects[..., :1])
    server.body = make_answer(orbits, NAMES)
    assert_places(ask(server), orbits, MJD + 0.01)


def test_the_question_is_in_utc(server: MpSkyServer) -> None:
    ask(server)
    (asked,) = server.asked
    assert float(asked["t"]) == pytest.approx(MJD - 37 / 86400, abs=1e-7)
    assert [float(asked[name]) for name in ("ra", "dec", "radius")] == [150.0, 2.0, 0.25]
    assert asked["return_elements"] == "extended"


def test_rows_of_an_answer(server: MpSkyServer) -> None:
    rows = ask(server)
    assert rows.dtype == EPHEMERIS
    assert rows["designation"].tolist() == NAMES
    assert rows["ssObjectId"].tolist() == [ss_object_id(name) for name in NAMES]
    assert np.isnan(rows["ephVmag"]).all()
    assert (rows["errorArcsec"] == ERROR_ARCSEC).all()
    assert (rows["startMjdTai"] < MJD).all()
    server.body = make_answer(
        ORBITS,
        ["x", "y", "1998 SV127"],
        packed_primary_provisional_designation=["J95X00A", "CK12S010", None],
        unpacked_primary_provisional_designation=["1995 XA", "C/2012 S1", None],
        Vmag=np.array([21.5, np.nan, 24.0]),
        q=np.ones(3),
    )
    rows = ask(server)
    assert rows["designation"].tolist() == ["1995 XA", "C/2012 S1", "1998 SV127"]
    assert rows["ssObjectId"].tolist() == [ss_object_id(name) for name in ("J95X00A", "CK12S010", "J98SC7V")]
    np.testing.assert_array_equal(rows["ephVmag"], np.array([21.5, np.nan, 24.0], np.float32))


def test_an_empty_piece_of_sky(server: MpSkyServer) -> None:
    server.body = make_answer(dataclasses.replace(ORBITS, objects=np.zeros((0, 3, 4))), [])
    assert ask(server).size == 0


def changed(**columns: Any) -> Callable[[], bytes]:
    return lambda: make_answer(ORBITS, NAMES, **columns)


def with_objects(value: float, term: int = 0) -> Callable[[], bytes]:
    objects = ORBITS.objects.copy()
    objects[1, 2, term] = value
    return lambda: make_answer(dataclasses.replace(ORBITS, objects=objects), NAMES)


def wild_series() -> bytes:
    """A term that an hour's span cannot do without."""
    orbits = make_orbits(3, MJD, n_terms=9)
    orbits.objects[1, 2, 8] = 1e6
    return make_answer(orbits, NAMES)


@pytest.mark.parametrize(
    "body",
    [
        lambda: make_answer(ORBITS, ["1998 SV127", "433", "2008 AA360"]),
        with_objects(np.nan),
        with_objects(np.inf),
        with_objects(1e308, 3),
        wild_series,
        changed(tmin=np.array([MJD - 0.2, np.nan, MJD - 0.2])),
        changed(tmin=np.array([MJD - 0.2, -np.inf, MJD - 0.2])),
        changed(tmax=np.array([MJD + 0.25, MJD - 0.1, MJD + 0.25])),
        changed(tmin=np.array([MJD - 0.2, MJD + 0.1, MJD - 0.2])),
        changed(tmin=pa.array([MJD - 0.2, None, MJD - 0.2])),
    ],
)
def test_what_cannot_be_used_is_left_out_and_counted(server: MpSkyServer, body: Callable[[], bytes]) -> None:
    server.body = body()
    with structlog.testing.capture_logs() as logged:
        rows = ask(server)
    assert rows["designation"].tolist() == ["1998 SV127", "2008 AA360"]
    assert [(line["event"], line["n"], line["n_left_out"]) for line in logged] == [("mpsky_answered", 2, 1)]


def without(*names: str) -> bytes:
    """An answer whose stream lacks columns."""
    whole = make_answer(ORBITS, NAMES)
    source = pa.BufferReader(whole)
    tensors = [pa.ipc.read_tensor(source), pa.ipc.read_tensor(source)]
    batch = pa.ipc.open_stream(source).read_next_batch().drop_columns(list(names))
    sink = pa.BufferOutputStream()
    for tensor in tensors:
        pa.ipc.write_tensor(tensor, sink)
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue().to_pybytes())


WHOLE = make_answer(ORBITS, NAMES)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>no such page</html>",
        b"\xff" * 1000,
        WHOLE[:40],
        WHOLE[:200],
        WHOLE[: len(WHOLE) // 3],
        WHOLE[: len(WHOLE) // 2],
        WHOLE[:-400],
        WHOLE[100:],
        without("name"),
        without("tmin"),
        make_answer(ORBITS, NAMES, tmax=np.array(["a", "b", "c"])),
        make_answer(dataclasses.replace(ORBITS, objects=ORBITS.objects[:0]), []).replace(b"tmin", b"tmim"),
        WHOLE[8:],
        make_answer(make_orbits(3, MJD, n_terms=33), NAMES),
    ],
)
def test_what_is_no_answer(server: MpSkyServer, body: bytes) -> None:
    server.body = body
    with pytest.raises(RejectedInputError) as caught:
        ask(server)
    assert caught.value.code == "mpsky_garbled"


def test_any_spoiled_answer_is_an_answer_or_garbled(server: MpSkyServer) -> None:
    random = np.random.default_rng(9)
    service = MpSky(server.url, 5.0)
    codes = set()
    for _ in range(150):
        spoiled = bytearray(WHOLE)
        for place in random.integers(0, len(WHOLE), 4):
            spoiled[place] = random.integers(0, 256)
        server.body = bytes(spoiled)
        try:
            service.query(MJD, 150.0, 2.0, 0.25)
        except RejectedInputError as error:
            codes.add(error.code)
    assert codes == {"mpsky_garbled"}


def test_an_answer_has_a_limit(server: MpSkyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mpsky, "MAX_BYTES", 1 << 20)
    server.body = bytes(3 << 20)
    with pytest.raises(RejectedInputError, match="more than 1 MB"):
        ask(server)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"status": 500, "body": b"t=1 not in ranges"}, "500 t=1 not in ranges"),
        ({"status": 404}, "404"),
        ({"delay_s": 5.0}, "timed out|no answer in time"),
        ({"drip_s": 0.05}, "timed out|no answer in time"),
    ],
)
def test_no_answer(server: MpSkyServer, changes: dict[str, Any], says: str) -> None:
    for name, value in changes.items():
        setattr(server, name, value)
    with pytest.raises(TransientError, match=says) as caught:
        ask(server, timeout_s=0.3)
    assert caught.value.code == "mpsky_unavailable"


def test_nobody_listens() -> None:
    with pytest.raises(TransientError, match="refused"):
        MpSky("http://127.0.0.1:1/", 1.0).query(MJD, 0.0, 0.0, 1.0)
    with pytest.raises(TransientError) as caught:
        MpSky("http://127.0.0.1:1/?token=secret", 1.0).query(MJD, 0.0, 0.0, 1.0)
    assert "secret" not in str(caught.value)


def test_a_service_that_let_us_wait_is_left_alone_for_a_while(server: MpSkyServer) -> None:
    service = MpSky(server.url, 0.2)
    server.delay_s = 1.0
    with pytest.raises(TransientError):
        service.query(MJD, 150.0, 2.0, 0.25)
    server.delay_s = 0.0
    with pytest.raises(TransientError, match="a moment ago"):
        service.query(MJD, 150.0, 2.0, 0.25)
    assert len(server.asked) == 1
    service._rests_until_s -= 1.5
    assert service.query(MJD, 150.0, 2.0, 0.25).size == 3


def test_without_pyarrow_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def no_arrow(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", no_arrow)
    with pytest.raises(ConfigurationError, match=r"sub60\[mpsky\]"):
        MpSky("http://127.0.0.1:1/", 1.0)


def test_workers_wait_a_second_at_most() -> None:
    settings = read_settings({}, mpsky_url="http://127.0.0.1:1/")
    timeouts = [open_mpsky(settings, is_after_t0=is_after)._timeout_s for is_after in (False, True)]  # type: ignore[union-attr]
    assert timeouts == [10.0, AFTER_T0_TIMEOUT_S]
    assert open_mpsky(read_settings({})) is None


EARLY = dataclasses.replace(KEY, visit=None, duration_s=30.0)
LATE = dataclasses.replace(KEY, duration_s=30.0, mjd_tai=KEY.mjd_tai + 40 / 86400, ra_deg=KEY.ra_deg + 1 / 3600)


class Place:
    """A process that loads bundles: its own memory, the cache of all."""

    def __init__(self, dataset: Path, url: str, cache: Cache | None) -> None:
        self.datastore = Datastore(dataset, MpSky(url, 1.0))
        self.cache, self.memory = cache, MemoryCache(1 << 28)

    def load(self, key: BundleKey, *, publish: bool = False) -> PackedBundle:
        return load_packed(key, self.memory, self.cache, self.datastore, EmptyHistory(), publish=publish)

    def loader(self) -> BundleLoader:
        history: Any = EmptyHistory()
        return BundleLoader(
            datastore=self.datastore,
            memory=self.memory,
            cache=self.cache,
            history=history,
            bounded_history=None,
            bounded_client=None,
        )


@pytest.fixture
def cache(cache_url: str) -> Iterator[Cache]:
    with closing(Cache(cache_url)) as opened:
        yield opened


def source_of(bundle: PackedBundle) -> tuple[str, int]:
    """Where the ephemerides came from, and how many."""
    return bundle.parts[PartKind.EPHEMERIDES].source.value, int(bundle.unpack(Workspace()).ephemerides.size)


def test_who_finds_them_in_the_cache_does_not_ask(dataset: Path, server: MpSkyServer, cache: Cache) -> None:
    prefetch, worker = Place(dataset, server.url, cache), Place(dataset, server.url, cache)
    bundle = prefetch.load(EARLY, publish=True)
    assert source_of(bundle) == ("cold", 3)
    (asked,) = server.asked
    camera = prefetch.datastore.camera
    ra, dec, radius = detector_radius_deg(
        detector_corners(camera, EARLY.detector, EARLY.ra_deg, EARLY.dec_deg, EARLY.rot_sky_deg)
    )
    circle = [float(asked[name]) for name in ("ra", "dec", "radius")]
    np.testing.assert_allclose(circle, [ra, dec, radius + MARGIN_DEG], atol=1e-4)
    assert float(asked["t"]) == pytest.approx(MJD + (15 - 37) / 86400, abs=1e-5)
    # The visit has its number now, begins later and points a little aside.
    again = worker.load(LATE)
    assert source_of(again) == ("redis", 3)
    assert source_of(worker.load(LATE)) == ("memory", 3)
    numbered = worker.loader().number(bundle.unpack(Workspace()), LATE)
    assert numbered.ephemerides.tobytes() == again.unpack(Workspace()).ephemerides.tobytes()
    assert len(server.asked) == 1


def test_ephemerides_of_another_hour_are_not_used(dataset: Path, server: MpSkyServer, cache: Cache) -> None:
    Place(dataset, server.url, cache).load(EARLY, publish=True)
    later = dataclasses.replace(LATE, mjd_tai=MJD + 0.02)
    assert source_of(Place(dataset, server.url, cache).load(later)) == ("cold", 3)
    assert len(server.asked) == 2


@pytest.mark.parametrize("changes", [{"status": 500}, {"body": b"garbage"}])
def test_without_the_service_a_bundle_is_whole_and_the_next_one_asks_again(
    dataset: Path, server: MpSkyServer, cache: Cache, changes: dict[str, Any]
) -> None:
    whole = server.body
    for name, value in changes.items():
        setattr(server, name, value)
    prefetch = Place(dataset, server.url, cache)
    bundle = prefetch.load(EARLY, publish=True)
    assert source_of(bundle) == ("cold", 0)
    error = bundle.parts[PartKind.EPHEMERIDES].error
    assert error is not None
    assert error.code == ("mpsky_garbled" if "body" in changes else "mpsky_unavailable")
    assert bundle.unpack(Workspace()).template is not None
    recipe = cache.get_recipe(EARLY)
    assert recipe is not None
    assert {part.kind for part in recipe} == set(PartKind) - {PartKind.EPHEMERIDES, PartKind.HISTORY}
    server.body, server.status = whole, 200
    worker = Place(dataset, server.url, cache).load(LATE)
    assert source_of(worker) == ("cold", 3)
    assert worker.parts[PartKind.TEMPLATE].source is PartSource.REDIS
    assert prefetch.load(EARLY, publish=True).parts[PartKind.EPHEMERIDES].error is None
    assert source_of(Place(dataset, server.url, cache).load(LATE)) == ("redis", 3)


def test_single_frame_products_ask_nobody(dataset: Path, server: MpSkyServer) -> None:
    bundle = Place(dataset, server.url, None).loader().load_single_frame(LATE)
    assert source_of(bundle)[1] == 0
    assert server.asked == []


def test_recipes_of_the_other_provider_are_made_anew(dataset: Path, server: MpSkyServer, cache: Cache) -> None:
    Place(dataset, server.url, cache).load(KEY, publish=True)
    files = load_packed(KEY, MemoryCache(1 << 28), None, Datastore(dataset), EmptyHistory())
    cache.client.delete(*cache.client.keys("sub60:array:*"))
    found = load_packed(KEY, MemoryCache(1 << 28), cache, Datastore(dataset), EmptyHistory())
    assert found.unpack(Workspace()).ephemerides.tobytes() == files.unpack(Workspace()).ephemerides.tobytes()


def test_prefetch_goes_on_without_and_counts(dataset: Path, server: MpSkyServer, cache: Cache) -> None:
    server.status = 503
    registry = CollectorRegistry()
    start = mjd_tai_to_unix_tai(MJD)
    nobody: Any = None
    prefetch = Prefetch(
        nobody, Place(dataset, server.url, cache).loader(), FakeClock(start - 20), Metrics(registry), 120.0
    )
    work = prepare(
        instrument=KEY.instrument, start_tai_s=start, ra_deg=KEY.ra_deg, dec_deg=KEY.dec_deg, rot_sky_deg=25.0
    )
    with structlog.testing.capture_logs() as logged:
        prefetch._load(work)
    events = [line for line in logged if line["log_level"] == "warning"]
    assert [(e["event"], e["code"], e["detector"]) for e in events] == [("without_ephemerides", "mpsky_unavailable", 0)]
    assert "503" in events[0]["reason"]
    assert registry.get_sample_value("sub60_failures_total", {"code": "mpsky_unavailable"}) == 1
    assert registry.get_sample_value("sub60_prepares_total", {"state": "prefetched"}) == 1


def test_check(server: MpSkyServer) -> None:
    def check(url: str) -> list[tuple[Level, str]]:
        settings = read_settings({}, mpsky_url=url, mpsky_timeout_s=1.0)
        return [(found.level, found.text) for found in run_checks(settings, ("mpsky",))]

    assert check("") == []
    ((level, text),) = check(server.url)
    assert (level, "answers" in text) == (Level.OK, True)
    server.status = 400
    ((level, text),) = check(server.url)
    assert (level, "400" in text) == (Level.WARNING, True)
    server.status, server.body = 200, b"no Arrow"
    ((level, text),) = check(server.url)
    assert (level, "mpsky_garbled" in text) == (Level.FAILED, True)


def test_a_name_from_the_cache_is_a_question_or_nothing(server: MpSkyServer, dataset: Path) -> None:
    datastore = Datastore(dataset, MpSky(server.url, 1.0))
    for name in ("mpsky@", "mpsky@1#2 3 4&x=y", "mpsky@../x#1 2 3"):
        with pytest.raises((FileNotFoundError, Sub60Error)):
            datastore.read(name)
    assert server.asked == []
