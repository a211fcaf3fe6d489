"""The APDB: its version, and whether it takes writes."""

from collections.abc import Iterator

from sqlalchemy.exc import OperationalError

from core.errors import ConfigurationError, TransientError
from service.bundle_loader import apdb_config, open_apdb
from service.checks.finding import Finding, ok, warning
from service.settings import Settings


def check_apdb(settings: Settings) -> Iterator[Finding]:
    """Opened (which compares versions), asked for its version, and written to in its metadata."""
    config = apdb_config(settings)
    if config is None:
        yield warning("apdb", "none: results are not stored, and alerts have no history from before this service")
        return
    try:
        store = open_apdb(config)
    except ConfigurationError as error:
        if is_away(error.__cause__):
            raise TransientError(f"the APDB does not answer: {error}", code="apdb_unavailable") from error
        raise
    version = store.schema_version()
    store.try_write()
    yield ok("apdb", f"{config}: schema {version}, can be written")


def is_away(error: BaseException | None) -> bool:
    """Whether a database was away or locked, which may heal; a wrong file, name or login does not by itself."""
    text = str(error)
    never = ("unable to open", "authentication failed", "does not exist")
    return isinstance(error, OperationalError) and not any(words in text for words in never)
