"""The clocks of a process: an argument everywhere else, so that tests can hold them."""

import time
from typing import Protocol

from core.timescales import unix_tai_to_mjd_tai, unix_utc_to_tai


class Clock(Protocol):
    """What the service asks of time."""

    def tai_s(self) -> float:
        """TAI unix seconds now."""

    def monotonic_s(self) -> float:
        """Seconds of a clock that is never set; deadlines count on it."""


class SystemClock:
    """The machine's clocks."""

    def tai_s(self) -> float:
        """TAI unix seconds now, by the system's UTC and the shipped leap-second table."""
        return unix_utc_to_tai(time.time())

    def monotonic_s(self) -> float:
        """The operating system's monotonic clock; the same for all processes of a machine."""
        return time.monotonic()


def mjd_tai(clock: Clock) -> float:
    """MJD TAI now."""
    return unix_tai_to_mjd_tai(clock.tai_s())
