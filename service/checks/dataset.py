"""The dataset's folder."""

from collections.abc import Iterator

from service.checks.finding import Finding, ok
from service.settings import Settings, allowed_roots


def check_dataset(settings: Settings) -> Iterator[Finding]:
    """It is there, of a known camera."""
    from service.storage.datastore import Datastore

    store = Datastore(settings.dataset)
    allowed_roots(settings)
    yield ok("dataset", f"{settings.dataset}: {store.info.instrument}, {len(store.camera.detectors)} detectors")
