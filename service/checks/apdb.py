"""The APDB: its version, and whether it takes writes."""

from collections.abc import Iterator

from service.bundle_loader import apdb_config, open_apdb
from service.checks.finding import Finding, ok, warning
from service.settings import Settings


def check_apdb(settings: Settings) -> Iterator[Finding]:
    """Opened (which compares versions), asked for its version, and written to in its metadata."""
    config = apdb_config(settings)
    if config is None:
        yield warning("apdb", "none: results are not stored, and alerts have no history from before this service")
        return
    store = open_apdb(config)
    version = store.schema_version()
    store.try_write()
    yield ok("apdb", f"{config}: schema {version}, can be written")
