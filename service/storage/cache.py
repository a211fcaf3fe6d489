"""The Redis cache: content-addressed pieces first, the manifests that name them last."""

import hashlib
from collections.abc import Iterable, Mapping
from threading import Lock
from typing import Any, Final

import redis
from redis.connection import (
    Connection,
    PythonRespSerializer,
    SSLConnection,
    UnixDomainSocketConnection,
)

from core.errors import TransientError
from service.access import NOBODY, Access
from service.redis_access import client_options
from service.storage.bulk import BulkReader
from service.storage.codec import ArrayManifest, PackedArray
from service.storage.recipe import BundleKey, Recipe, pack_recipe, unpack_recipe

PIECES_PER_READ: Final = 16
"""Pieces (at most 4 MB each) asked for in one command, so that no other client waits for longer than a few of them."""


class Cache:
    """Parts of bundles in Redis, all with a time to live. Every failure of the server is a ``TransientError``."""

    def __init__(
        self,
        url: str,
        access: Access = NOBODY,
        *,
        namespace: str = "sub60",
        ttl_s: int = 1800,
        timeout_s: float = 2.0,
    ) -> None:
        self._namespace = namespace
        self._ttl_s = ttl_s
        self.client = connect(url, timeout_s, access)
        self._bulk = BulkReader(url, timeout_s, access)
        self._lock = Lock()

    def put_arrays(self, arrays: Mapping[str, PackedArray]) -> None:
        """Publish arrays by name; pieces already there get a new time to live."""
        try:
            self._put_pieces(arrays.values())
            pipeline = self.client.pipeline(transaction=False)
            for name, packed in arrays.items():
                pipeline.set(self._array_key(name), packed.manifest(), ex=self._ttl_s)
            pipeline.execute()
        except redis.RedisError as error:
            raise _unavailable() from error

    def renew(self, names: Iterable[str]) -> set[str]:
        """Those arrays that are there with all their pieces; they get a new time to live, and nothing large is read."""
        wanted = list(dict.fromkeys(names))
        if not wanted:
            return set()
        try:
            manifests = self.client.mget([self._array_key(name) for name in wanted])
            read = {n: m for n, data in zip(wanted, manifests, strict=True) if data and (m := ArrayManifest.read(data))}
            keys = {d: self._piece_key(d) for manifest in read.values() for d in manifest.digests}
            pipeline = self.client.pipeline(transaction=False)
            for key in (*keys.values(), *(self._array_key(name) for name in read)):
                pipeline.expire(key, self._ttl_s)
            is_there = dict(zip((*keys, *read), pipeline.execute(), strict=True))
        except redis.RedisError as error:
            raise _unavailable() from error
        return {n for n, m in read.items() if is_there[n] and all(is_there[d] for d in m.digests)}

    def get_arrays(self, names: Iterable[str]) -> dict[str, PackedArray]:
        """Those arrays that are there, whole and unspoiled."""
        wanted = list(names)
        if not wanted:
            return {}
        try:
            manifests = self.client.mget([self._array_key(name) for name in wanted])
        except redis.RedisError as error:
            raise _unavailable() from error
        read = ((n, ArrayManifest.read(data)) for n, data in zip(wanted, manifests, strict=True) if data is not None)
        found = {name: manifest for name, manifest in read if manifest is not None}
        pieces = self._get_pieces(digest for manifest in found.values() for digest in manifest.digests)
        arrays = {}
        for name, manifest in found.items():
            values = tuple(piece for digest in manifest.digests if (piece := pieces.get(digest)) is not None)
            packed = manifest.with_pieces(values) if len(values) == len(manifest.digests) else None
            if packed is not None:
                arrays[name] = packed
        return arrays

    def put_recipe(self, key: BundleKey, recipe: Recipe) -> None:
        """Publish what a bundle is made of, after its arrays."""
        try:
            self.client.set(self._bundle_key(key), pack_recipe(key, recipe), ex=self._ttl_s)
        except redis.RedisError as error:
            raise _unavailable() from error

    def get_recipe(self, key: BundleKey) -> Recipe | None:
        """What a bundle is made of, if somebody has prepared it for this pointing."""
        try:
            data = self.client.get(self._bundle_key(key))
        except redis.RedisError as error:
            raise _unavailable() from error
        return None if data is None else unpack_recipe(key, data)

    def close(self) -> None:
        """Drop all connections."""
        self._bulk.close()
        self.client.close()

    def _put_pieces(self, arrays: Iterable[PackedArray]) -> None:
        pieces = {self._piece_key(d): piece for a in arrays for d, piece in zip(a.digests, a.pieces, strict=True)}
        pipeline = self.client.pipeline(transaction=False)
        for key in pieces:
            pipeline.expire(key, self._ttl_s)
        for (key, piece), is_there in zip(pieces.items(), pipeline.execute(), strict=True):
            if not is_there:
                self.client.set(key, memoryview(piece), ex=self._ttl_s)

    def _get_pieces(self, digests: Iterable[str]) -> dict[str, bytearray | None]:
        unique = list(dict.fromkeys(digests))
        pieces: dict[str, bytearray | None] = {}
        with self._lock:
            for i in range(0, len(unique), PIECES_PER_READ):
                some = unique[i : i + PIECES_PER_READ]
                pieces.update(zip(some, self._bulk.get_many([self._piece_key(d) for d in some]), strict=True))
        return pieces

    def _array_key(self, name: str) -> str:
        return f"{self._namespace}:array:{hashlib.sha256(name.encode()).hexdigest()[:32]}"

    def _piece_key(self, digest: str) -> str:
        return f"{self._namespace}:piece:{digest}"

    def _bundle_key(self, key: BundleKey) -> str:
        return f"{self._namespace}:bundle:{key.instrument}:{key.group}:{key.detector}"


def connect(url: str, timeout_s: float, access: Access = NOBODY) -> Any:
    """A redis-py client that reads with hiredis and writes without copying.

    redis-py with hiredis installed also packs commands with it, which copies every value and is 5-10 times slower.
    """
    bases: dict[str, type[Any]] = {"unix": UnixDomainSocketConnection, "rediss": SSLConnection}
    base = bases.get(url.partition(":")[0], Connection)
    pool = redis.ConnectionPool.from_url(
        url,
        connection_class=_no_copy(base),
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        **client_options(url, access),
    )
    return redis.Redis(connection_pool=pool)


def _no_copy(base: type[Any]) -> type[Any]:
    class NoCopyConnection(base):  # type: ignore[misc]
        """Sends large values from where they are."""

        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self._command_packer = PythonRespSerializer(self._buffer_cutoff, self.encoder.encode)

    return NoCopyConnection


def _unavailable() -> TransientError:
    return TransientError("the cache does not answer", code="cache_unavailable")
