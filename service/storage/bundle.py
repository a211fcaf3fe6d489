"""The one way to a bundle: memory, then Redis, then the store. Prefetch uses it to make the worker's turn fast."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from core.contracts.bundle import Bundle, BundlePart, Calibrations, History, PartSource
from core.contracts.catalogs import EPHEMERIS, REFERENCE_STAR
from core.errors import Sub60Error, TransientError
from core.workspace import Workspace
from service.failpoints import Failpoint, reach
from service.storage.cache import Cache
from service.storage.codec import PackedArray, array_dtype, pack_array, unpack_array
from service.storage.datastore import IMAGE_KINDS, Datastore
from service.storage.memory import MemoryCache
from service.storage.mpsky import is_of_service
from service.storage.recipe import BundleKey, PartKind, PartRecipe, Recipe
from service.storage.tables import empty_history
from service.storage.template import unpack_template

Array = NDArray[Any]

DIFFERENCE_PARTS = frozenset({PartKind.TEMPLATE, PartKind.EPHEMERIDES})
"""Parts that are needed only once there is a difference image."""
_ORDER = (PartSource.MEMORY, PartSource.REDIS, PartSource.COLD)


class HistorySource(Protocol):
    """Where the history of a detector's sky comes from."""

    def load(self, key: BundleKey) -> tuple[History, PartSource]:
        """Twelve months before the visit, and whether Redis had them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedPart:
    """One part, still packed."""

    kind: PartKind
    meta: dict[str, Any]
    arrays: dict[str, PackedArray]
    source: PartSource
    error: Sub60Error | None = None
    """Why it is empty although it should not be: the visit goes on without."""

    def line(self) -> BundlePart:
        """The part's line in the bundle's manifest."""
        text = "|".join(f"{role}={packed.digest}" for role, packed in sorted(self.arrays.items()))
        digest = hashlib.sha256(f"{self.kind}|{sorted(self.meta.items())}|{text}".encode()).hexdigest()[:32]
        nbytes = sum(packed.nbytes for packed in self.arrays.values())
        return BundlePart(kind=self.kind.value, source=self.source, digest=digest, nbytes=nbytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedBundle:
    """A bundle as it is held for detectors whose turn has not come."""

    key: BundleKey
    parts: Mapping[PartKind, PackedPart]
    history: History
    history_line: BundlePart

    def unpack(self, workspace: Workspace) -> Bundle:
        """Decode into ``workspace`` (names ``bundle.*``), overwriting what it held; about 0.15 s for a full detector.

        Nobody may write to the arrays of the bundle: calibrations that are there already are not decoded again.
        """
        parts = self.parts
        stars, ephemerides = parts[PartKind.REFERENCE_STARS].arrays, parts[PartKind.EPHEMERIDES].arrays
        return Bundle(
            calibrations=_unpack_calibrations(parts[PartKind.CALIBRATIONS], workspace),
            template=unpack_template(parts[PartKind.TEMPLATE].meta, parts[PartKind.TEMPLATE].arrays, workspace),
            reference_stars=unpack_array(stars["table"]) if stars else np.empty(0, REFERENCE_STAR),
            history=self.history,
            ephemerides=unpack_array(ephemerides["table"]) if ephemerides else np.empty(0, EPHEMERIS),
            parts=(*(part.line() for part in parts.values()), self.history_line),
        )


def load_bundle(
    key: BundleKey,
    memory: MemoryCache,
    cache: Cache | None,
    datastore: Datastore,
    history: HistorySource | None,
    workspace: Workspace,
) -> Bundle:
    """Everything a detector needs before its pixels: :func:`load_packed`, unpacked into ``workspace``."""
    return load_packed(key, memory, cache, datastore, history).unpack(workspace)


def load_packed(
    key: BundleKey,
    memory: MemoryCache,
    cache: Cache | None,
    datastore: Datastore,
    history: HistorySource | None,
    *,
    publish: bool = False,
    without: Collection[PartKind] = (),
) -> PackedBundle:
    """Find every part in memory, in Redis or in the store.

    With ``publish``, leave all of it in Redis: what is there gets a new time to live and is not fetched, so the answer
    has the arrays that were missing there and no others.

    Parts ``without`` which the caller can do are empty and nothing is read for them.

    A Redis that does not answer is the same as an empty one. Where a service does not answer its part is empty, says so
    in ``error``, and is not published: the next one who needs it asks again. Raises ``RejectedInputError`` where the
    store has no valid calibration, ``TransientError`` where it cannot be read.
    """
    recipe, recipe_source = _recipe(key, cache, datastore, without)
    find = _find_missing if publish else _arrays
    try:
        arrays, sources, errors = find(_names(recipe), memory, cache, datastore)
    except FileNotFoundError:
        # A recipe older than a change of the store.
        recipe, recipe_source = _resolve(key, datastore, without), PartSource.COLD
        arrays, sources, errors = find(_names(recipe), memory, cache, datastore)
    parts = {
        part.kind: PackedPart(
            kind=part.kind,
            meta=part.meta,
            arrays={role: arrays[name] for role, name in part.arrays if name in arrays},
            source=_worst(part, sources, recipe_source),
            error=next((errors[name] for _, name in part.arrays if name in errors), None),
        )
        for part in recipe
    }
    rows, history_source = _history(key, history)
    if publish and cache is not None:
        cache.put_arrays(arrays)
        reach(Failpoint.PREFETCH_ARRAYS)
        cache.put_recipe(key, tuple(part for part in recipe if parts[part.kind].error is None))
    return PackedBundle(key=key, parts=parts, history=rows, history_line=_history_line(rows, history_source))


def _recipe(
    key: BundleKey, cache: Cache | None, datastore: Datastore, without: Collection[PartKind]
) -> tuple[Recipe, PartSource]:
    try:
        recipe = cache.get_recipe(key) if cache is not None else None
    except TransientError:
        recipe = None
    if recipe is None:
        return _resolve(key, datastore, without), PartSource.COLD
    if not any(part.kind is PartKind.EPHEMERIDES for part in recipe):
        recipe = (*recipe, datastore.resolve_ephemerides(key))
    return tuple(replace(part, arrays=()) if part.kind in without else part for part in recipe), PartSource.REDIS


def _resolve(key: BundleKey, datastore: Datastore, without: Collection[PartKind]) -> Recipe:
    try:
        return datastore.resolve(key, without)
    except OSError as error:
        raise TransientError("the store cannot be read", code="store_unreadable", detector=key.detector) from error


def _names(recipe: Recipe) -> list[str]:
    return [name for part in recipe for _, name in part.arrays]


Found = tuple[dict[str, PackedArray], dict[str, PartSource], dict[str, Sub60Error]]


def _find_missing(names: list[str], memory: MemoryCache, cache: Cache | None, datastore: Datastore) -> Found:
    """As :func:`_arrays`, but what Redis holds stays there with a new time to live: a bundle is hundreds of MB."""
    try:
        kept = cache.renew(names) if cache is not None else set()
    except TransientError:
        kept = set()
    arrays, sources, errors = _arrays([name for name in names if name not in kept], memory, None, datastore)
    return arrays, sources | dict.fromkeys(kept, PartSource.REDIS), errors


def _arrays(names: list[str], memory: MemoryCache, cache: Cache | None, datastore: Datastore) -> Found:
    """Every array by name, where it was found, and why those that a service should have given are not there."""
    errors: dict[str, Sub60Error] = {}
    arrays = {name: packed for name in names if (packed := memory.get(name)) is not None}
    sources = dict.fromkeys(arrays, PartSource.MEMORY)
    missing = [name for name in names if name not in arrays]
    if cache is not None and missing:
        try:
            found = cache.get_arrays(missing)
        except TransientError:
            found = {}
        arrays |= found
        sources |= dict.fromkeys(found, PartSource.REDIS)
    for name in names:
        if name not in arrays:
            sources[name] = PartSource.COLD
            try:
                arrays[name] = _read_cold(name, datastore)
            except Sub60Error as error:
                if not is_of_service(name):
                    raise
                errors[name] = error
                continue
        if sources[name] is not PartSource.MEMORY:
            memory.put(name, arrays[name])
    return arrays, sources, errors


def _read_cold(name: str, datastore: Datastore) -> PackedArray:
    try:
        return pack_array(datastore.read(name))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise TransientError("the store cannot be read", code="store_unreadable", name=name) from error


def _worst(part: PartRecipe, sources: Mapping[str, PartSource], recipe_source: PartSource) -> PartSource:
    """The slowest place any of the part's arrays came from; an empty part came with its recipe."""
    places = [sources[name] for _, name in part.arrays] or [recipe_source]
    return max(places, key=_ORDER.index)


def _history(key: BundleKey, history: HistorySource | None) -> tuple[History, PartSource]:
    if history is None:
        return empty_history(), PartSource.COLD
    return history.load(key)


def _history_line(rows: History, source: PartSource) -> BundlePart:
    tables = (rows.dia_objects, rows.dia_sources, rows.dia_forced_sources)
    digest = hashlib.sha256(b"|".join(hashlib.sha256(table.view(np.uint8).data).digest() for table in tables))
    nbytes = sum(table.nbytes for table in tables)
    return BundlePart(kind=PartKind.HISTORY.value, source=source, digest=digest.hexdigest()[:32], nbytes=nbytes)


def _unpack_calibrations(part: PackedPart, workspace: Workspace) -> Calibrations:
    values: dict[str, Any] = {}
    for role, packed in part.arrays.items():
        if role in IMAGE_KINDS:
            values[role] = _unpack_once(f"bundle.{role}", packed, workspace)
        else:
            values[role] = unpack_array(packed)
    return Calibrations(**values)


def _unpack_once(name: str, packed: PackedArray, workspace: Workspace) -> Array:
    """Decode into a buffer unless it holds just this: the detector's last visit had the same calibrations."""
    out = workspace.array(name, packed.shape, array_dtype(packed))
    held = workspace.array(f"{name}.digest", (len(packed.digest),), np.uint8)
    wanted = np.frombuffer(packed.digest.encode("ascii"), np.uint8)
    if not np.array_equal(held, wanted):
        held[:] = 0
        unpack_array(packed, out)
        held[:] = wanted
    return out
