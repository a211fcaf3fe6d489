"""Which log an operator's command means."""

import json

from core.errors import ConfigurationError
from service.settings import Settings


def own_log(settings: Settings) -> str:
    """Address of the log of the settings, or of the service whose state folder they name."""
    if settings.log_url:
        return settings.log_url
    path = settings.state_dir / "endpoints.json"
    try:
        return str(json.loads(path.read_text())["log_url"])
    except FileNotFoundError as error:
        raise ConfigurationError(f"no service runs on {settings.state_dir}; give --log-url", code="no_log") from error
