"""Room for alert files and the embedded log."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from core.errors import ConfigurationError
from service.checks.finding import Finding, failed, ok, warning
from service.settings import Settings

LEAST_BYTES: Final = 1_000_000_000
COMFORT_BYTES: Final = 10_000_000_000


def check_disk(settings: Settings) -> Iterator[Finding]:
    """Free space where the state folder lies or will lie."""
    folder = settings.state_dir.absolute()
    place = next((path for path in (folder, *folder.parents) if path.exists()), Path("/"))
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        raise ConfigurationError(f"SUB60_STATE_DIR cannot be looked at: {error}", code="bad_state_dir") from error
    text = f"{free / 1e9:.1f} GB free at {folder}"
    if free < LEAST_BYTES:
        yield failed(
            "disk",
            f"{text}: below 1 GB; move old alert files away or set SUB60_STATE_DIR to a larger disk",
            can_heal=True,
        )
    elif free < COMFORT_BYTES:
        yield warning("disk", f"{text}: below 10 GB, which a busy night may fill; move old alert files away")
    else:
        yield ok("disk", text)
