"""The ephemeris service."""

from collections.abc import Iterator
from typing import Final

from core.errors import TransientError
from service.bundle_loader import open_mpsky
from service.checks.finding import Finding, ok, warning
from service.clock import SystemClock, mjd_tai
from service.masking import mask_url
from service.settings import Settings

POLE_DEG: Final = (270.0, 66.56)
"""Of the ecliptic: few objects, a small answer."""
RADIUS_DEG: Final = 0.1


def check_mpsky(settings: Settings) -> Iterator[Finding]:
    """It answers, and what it answers can be read. Without it the service runs, and takes asteroids for new objects."""
    service = open_mpsky(settings)
    if service is None:
        return
    try:
        rows = service.query(mjd_tai(SystemClock()), *POLE_DEG, RADIUS_DEG)
    except TransientError as error:
        yield warning("mpsky", f"{error}; alerts of known asteroids would not name them (by day it may have no answer)")
        return
    yield ok("mpsky", f"{mask_url(settings.mpsky_url)}: answers, {rows.size} objects near the ecliptic's pole")
