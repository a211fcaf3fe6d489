"""Which log an operator's command means."""

import json
from typing import TYPE_CHECKING

from core.errors import ConfigurationError
from service.settings import Settings

if TYPE_CHECKING:
    from service.log import Log


def open_own_log(settings: Settings, log_url: str = "") -> "Log":
    """The log at ``log_url``, else that of the settings, else that of the service whose state folder they name."""
    from service.log import open_log

    return open_log(log_url or settings.log_url or _running(settings))


def _running(settings: Settings) -> str:
    path = settings.state_dir / "endpoints.json"
    try:
        return str(json.loads(path.read_text())["log_url"])
    except FileNotFoundError as error:
        raise ConfigurationError(f"no service runs on {settings.state_dir}; give --log-url", code="no_log") from error
