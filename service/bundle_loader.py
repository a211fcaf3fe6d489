"""How a process of the service gets bundles: its memory, the cache server, the store and the APDB put together."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from core.contracts.bundle import Bundle, BundlePart, History, PartSource
from core.errors import TransientError
from service.access import cache_access
from service.clock import SystemClock
from service.settings import Settings
from service.storage.bundle import DIFFERENCE_PARTS, PackedBundle, load_packed
from service.storage.cache import Cache, connect
from service.storage.datastore import Datastore
from service.storage.history import HistoryStore, RegionReader
from service.storage.memory import MemoryCache
from service.storage.mpsky import MpSky
from service.storage.recipe import BundleKey, PartKind

if TYPE_CHECKING:
    from service.storage.apdb import ApdbStore

CACHE_TIMEOUT_S: Final = 2.0
AFTER_T0_TIMEOUT_S: Final = 1.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleLoader:
    """Loads bundles. ``bounded`` clients answer within the time of a call after t0, the others take theirs."""

    datastore: Datastore
    memory: MemoryCache
    cache: Cache | None
    history: HistoryStore
    bounded_history: HistoryStore | None
    bounded_client: Any | None

    @classmethod
    def open(cls, settings: Settings, *, is_after_t0: bool = False) -> "BundleLoader":
        """Connect to what the settings name; servers may come up later.

        ``is_after_t0``: for one who may have to load while the clock runs, and so waits a second at most for mpSky.
        """
        datastore = Datastore(settings.dataset, open_mpsky(settings, is_after_t0=is_after_t0))
        camera = datastore.camera
        config = apdb_config(settings)
        if config is None:
            log.warning("no_apdb", dataset=str(settings.dataset))
        apdb = LazyApdb(config) if config is not None else None
        now_s = SystemClock().tai_s
        if not settings.cache_url:
            history = HistoryStore(None, apdb, camera, now_s)
            memory = MemoryCache(settings.cache_mb << 20)
            return cls(
                datastore=datastore,
                memory=memory,
                cache=None,
                history=history,
                bounded_history=None,
                bounded_client=None,
            )
        access = cache_access(settings)
        bounded = connect(settings.cache_url, settings.redis_timeout_ms / 1000, access)
        return cls(
            datastore=datastore,
            memory=MemoryCache(settings.cache_mb << 20),
            cache=Cache(settings.cache_url, access, timeout_s=CACHE_TIMEOUT_S),
            history=HistoryStore(
                connect(settings.cache_url, CACHE_TIMEOUT_S, access),
                apdb,
                camera,
                now_s,
                base_ttl_s=settings.history_base_s,
                prune_after_s=settings.history_prune_s,
            ),
            bounded_history=HistoryStore(bounded, None, camera, now_s),
            bounded_client=bounded,
        )

    def warm_up(self) -> None:
        """Open the APDB and read an empty piece of sky: its first use takes seconds, mostly of imports."""
        self.history.warm_up()

    def load(self, key: BundleKey, *, publish: bool = False) -> PackedBundle:
        """Every part of a bundle; with ``publish``, left in the cache for others."""
        packed = load_packed(key, self.memory, self.cache, self.datastore, self.history, publish=publish)
        for part in packed.parts.values():
            if part.error is not None:
                where = {"group": key.group, "detector": key.detector, "code": part.error.code}
                log.warning(f"without_{part.kind.value}", **where, reason=str(part.error))
        return packed

    def load_single_frame(self, key: BundleKey) -> PackedBundle:
        """What single-frame products need: no template, no history."""
        return load_packed(key, self.memory, self.cache, self.datastore, None, without=DIFFERENCE_PARTS)

    def is_published(self, key: BundleKey) -> bool:
        """Whether prefetch has finished with this bundle; a cache that is away has published nothing."""
        try:
            return self.cache is not None and self.cache.get_recipe(key) is not None
        except TransientError:
            return False

    def number(self, bundle: Bundle, key: BundleKey) -> Bundle:
        """A bundle prepared before its visit had a number: add what is filed under it, the dataset's ephemerides."""
        if not self.datastore.has_ephemerides_by_visit:
            return bundle
        part = self.datastore.resolve_ephemerides(key)
        if not part.arrays:
            return bundle
        rows = self.datastore.read(part.arrays[0][1])
        kind = PartKind.EPHEMERIDES.value
        line = BundlePart(kind=kind, source=PartSource.COLD, digest="", nbytes=int(rows.nbytes))
        others = tuple(old for old in bundle.parts if old.kind != kind)
        return replace(bundle, ephemerides=rows, parts=(*others, line))

    def read_tail(self, key: BundleKey) -> History | None:
        """What was appended to the history of a detector's sky since its bundle was made."""
        if self.bounded_history is None:
            return None
        return self.bounded_history.read_tail(self.bounded_history.cells(key))


def open_mpsky(settings: Settings, *, is_after_t0: bool = False) -> MpSky | None:
    """The ephemeris service, None where the dataset's files are used."""
    if not settings.mpsky_url:
        return None
    limit_s = AFTER_T0_TIMEOUT_S if is_after_t0 else settings.mpsky_timeout_s
    return MpSky(settings.mpsky_url, min(settings.mpsky_timeout_s, limit_s))


class LazyApdb:
    """An APDB opened for reading when it is first asked: a warm cache needs none of it."""

    def __init__(self, config: str) -> None:
        self._config = config
        self._regions: RegionReader | None = None

    def read_region(self, ra_deg: float, dec_deg: float, radius_deg: float, mjd_tai: float) -> History:
        """As :meth:`ApdbStore.read_region`."""
        if self._regions is None:
            from service.storage.apdb_rows import SqlRegions

            self._regions = SqlRegions.open(self._config) or open_apdb(self._config)
        return self._regions.read_region(ra_deg, dec_deg, radius_deg, mjd_tai)


def open_apdb(config: str) -> "ApdbStore":
    """Open the APDB of a configuration file."""
    from service.storage.apdb import ApdbStore

    return ApdbStore(config)


def apdb_config(settings: Settings) -> str | None:
    """Configuration of the APDB, the settings' or the dataset's; None where there is none."""
    if settings.apdb_config:
        return settings.apdb_config
    path: Path = settings.dataset / "apdb" / "config.yaml"
    return str(path) if path.is_file() else None
