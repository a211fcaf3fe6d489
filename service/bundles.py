"""The bundles a compute child holds: packed for the detectors to come, decoded for the current one and the next.

``prepare`` runs on the loading thread, ``take`` and ``release`` on the computing one.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from alerts.packet import EncodedPast
from core.contracts.bundle import Bundle
from core.contracts.wcs import separation_arcsec
from core.workspace import Workspace
from service.storage.bundle import PackedBundle
from service.storage.recipe import MAX_OFFSET_ARCSEC, MAX_ROTATION_DEG, BundleKey

MAX_PACKED: Final = 64
N_DECODED: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A bundle decoded, and its history as it goes into packets."""

    bundle: Bundle
    encoded: EncodedPast

    @classmethod
    def of(cls, packed: PackedBundle, workspace: Workspace) -> "Ready":
        """Decode into ``workspace``."""
        bundle = packed.unpack(workspace)
        return cls(bundle=bundle, encoded=EncodedPast.of(bundle.history))


@dataclass(slots=True, kw_only=True, eq=False)
class _Entry:
    """One detector of one pointing, on its way into memory."""

    key: BundleKey
    expires_s: float
    is_done: threading.Event = field(default_factory=threading.Event)
    is_wanted: threading.Event = field(default_factory=threading.Event)
    """The readout is here: wait for prefetch no longer."""
    packed: PackedBundle | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class _Slot:
    """Memory for one decoded bundle."""

    workspace: Workspace = field(default_factory=Workspace)
    entry: _Entry | None = None
    ready: Ready | None = None


class BundleShelf:
    """Bundles by (group, detector).

    Parameters
    ----------
    load : finds every part of a bundle (memory, Redis, store).
    wait_for_prefetch : blocks until the bundle is in Redis, the event is set, or it is not worth waiting longer.
    number : a bundle prepared under no visit number, or another, completed with what is filed under the right one.
    monotonic_s, expire_s : a bundle whose readout has not come for this long makes room.
    """

    def __init__(
        self,
        load: Callable[[BundleKey], PackedBundle],
        wait_for_prefetch: Callable[[BundleKey, threading.Event], None],
        number: Callable[[Bundle, BundleKey], Bundle],
        monotonic_s: Callable[[], float],
        expire_s: float,
    ) -> None:
        self._load, self._wait_for_prefetch, self._number = load, wait_for_prefetch, number
        self._monotonic_s, self._expire_s = monotonic_s, expire_s
        self._lock = threading.Lock()
        self._decoding = threading.Lock()
        self._entries: OrderedDict[tuple[str, int], _Entry] = OrderedDict()
        self._taken: _Entry | None = None
        self._slots = [_Slot() for _ in range(N_DECODED)]

    def prepare(self, key: BundleKey) -> None:
        """Bring a bundle into memory; decode it if memory for decoded ones is free."""
        entry = _Entry(key=key, expires_s=self._monotonic_s() + self._expire_s)
        with self._lock:
            self._entries[key.group, key.detector] = entry
            while len(self._entries) > MAX_PACKED:
                self._entries.popitem(last=False)
        try:
            self._wait_for_prefetch(key, entry.is_wanted)
            entry.packed = self._load(key)
        finally:
            entry.is_done.set()
        self.decode_ahead()

    def decode_ahead(self) -> None:
        """Decode the oldest bundle that is still packed into free memory, if there is any."""
        with self._decoding:
            with self._lock:
                self._forget_expired()
                slot = self._free_slot()
                decoded = [slot.entry for slot in self._slots]
                entry = next((e for e in self._entries.values() if e.packed and e not in decoded), None)
                if slot is None or entry is None or entry.packed is None:
                    return
                slot.entry, slot.ready = entry, None
            slot.ready = Ready.of(entry.packed, slot.workspace)

    def take(self, key: BundleKey) -> Ready:
        """The bundle of a readout, valid until :meth:`release`; what is missing is loaded now.

        Raises what loading raises.
        """
        with self._lock:
            entry = self._taken = self._entries.pop((key.group, key.detector), None)
        if entry is not None:
            entry.is_wanted.set()
            entry.is_done.wait()
        if entry is None or entry.packed is None or not _serves(entry.packed.key, key):
            entry = _Entry(key=key, expires_s=0.0, packed=self._load(key))
        assert entry.packed is not None
        with self._decoding, self._lock:
            self._taken = entry
            slot = next((slot for slot in self._slots if slot.entry is entry), None)
            slot = slot or self._free_slot() or self._slots[0]
            if slot.entry is not entry or slot.ready is None:
                slot.entry, slot.ready = entry, Ready.of(entry.packed, slot.workspace)
            if entry.packed.key.visit != key.visit:
                slot.ready = replace(slot.ready, bundle=self._number(slot.ready.bundle, key))
            return slot.ready

    def release(self) -> None:
        """The bundle taken last is not needed any more."""
        with self._lock:
            self._taken = None

    def _free_slot(self) -> _Slot | None:
        held = [*self._entries.values(), self._taken]
        return next((slot for slot in self._slots if slot.entry is None or slot.entry not in held), None)

    def _forget_expired(self) -> None:
        now = self._monotonic_s()
        for name in [name for name, entry in self._entries.items() if entry.expires_s < now and entry.is_done.is_set()]:
            del self._entries[name]


def _serves(prepared: BundleKey, wanted: BundleKey) -> bool:
    """Whether a bundle made for one pointing is good for another."""
    offset = separation_arcsec(prepared.ra_deg, prepared.dec_deg, wanted.ra_deg, wanted.dec_deg)
    turn = (prepared.rot_sky_deg - wanted.rot_sky_deg + 180.0) % 360.0 - 180.0
    return prepared.band == wanted.band and bool(offset <= MAX_OFFSET_ARCSEC) and abs(turn) <= MAX_ROTATION_DEG
