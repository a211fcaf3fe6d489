"""The shelf of bundles in the child."""

import threading
from dataclasses import dataclass, field, replace
from typing import Any

from core.contracts.bundle import History
from core.workspace import Workspace
from service.bundle_keys import readout_key
from service.bundles import BundleShelf
from service.storage.recipe import BundleKey
from service.storage.tables import empty_history
from tests.support.service.builders import readout

KEY = readout_key(readout())


@dataclass(frozen=True)
class Decoded:
    """As much of a bundle as the shelf looks at."""

    key: BundleKey
    numbered: int | None = None
    history: History = field(default_factory=empty_history)


@dataclass
class Packed:
    """A bundle that counts how often it is decoded."""

    key: BundleKey
    decoded: list[BundleKey]

    def unpack(self, _workspace: Workspace) -> Any:
        self.decoded.append(self.key)
        return Decoded(self.key)


@dataclass
class Store:
    """What the shelf loads from."""

    loads: list[BundleKey] = field(default_factory=list)
    decoded: list[BundleKey] = field(default_factory=list)
    numbered: list[BundleKey] = field(default_factory=list)
    now: float = 0.0

    def shelf(self) -> BundleShelf:
        def load(key: BundleKey) -> Any:
            self.loads.append(key)
            return Packed(key, self.decoded)

        def number(bundle: Any, key: BundleKey) -> Any:
            self.numbered.append(key)
            return replace(bundle, numbered=key.visit)

        def wait(_key: BundleKey, _event: threading.Event) -> None:
            return None

        return BundleShelf(load, wait, number, lambda: self.now, 120.0)


def taken_key(shelf: BundleShelf, key: BundleKey) -> BundleKey:
    bundle: Any = shelf.take(key).bundle
    found: BundleKey = bundle.key
    return found


def test_a_prepared_bundle_is_decoded_before_it_is_taken() -> None:
    store = Store()
    shelf = store.shelf()
    shelf.prepare(KEY)
    assert store.decoded == [KEY]
    assert taken_key(shelf, KEY) == KEY
    assert (store.loads, store.decoded) == ([KEY], [KEY])


def test_current_and_next_are_decoded_and_the_third_when_one_is_released() -> None:
    store = Store()
    shelf = store.shelf()
    keys = [replace(KEY, detector=i) for i in range(3)]
    for key in keys:
        shelf.prepare(key)
    assert store.decoded == keys[:2]
    shelf.take(keys[0])
    shelf.decode_ahead()
    assert store.decoded == keys[:2]
    shelf.release()
    shelf.decode_ahead()
    assert store.decoded == keys


def test_what_was_not_prepared_or_for_another_pointing_is_loaded_at_the_readout() -> None:
    store = Store()
    shelf = store.shelf()
    elsewhere = replace(KEY, ra_deg=KEY.ra_deg + 0.01)
    shelf.prepare(elsewhere)
    assert taken_key(shelf, KEY) == KEY
    assert store.loads == [elsewhere, KEY]


def test_a_bundle_without_visit_number_is_completed() -> None:
    store = Store()
    shelf = store.shelf()
    shelf.prepare(replace(KEY, visit=None))
    bundle: Any = shelf.take(KEY).bundle
    assert bundle.numbered == KEY.visit
    assert (len(store.loads), store.numbered) == (1, [KEY])


def test_bundles_whose_readout_never_came_make_room() -> None:
    store = Store()
    shelf = store.shelf()
    for i in range(2):
        shelf.prepare(replace(KEY, group="never", detector=i))
    store.now = 121.0
    shelf.prepare(KEY)
    assert store.decoded[-1] == KEY
