"""The one place where time scales are converted: UTC, TAI, MJD, unix and ISO-8601.

The leap-second table ships with the code (IERS Bulletin C; none announced after 2017-01-01), so nothing is downloaded.
"""

from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from typing import Final

from core.errors import RejectedInputError

MJD_UNIX_EPOCH: Final = 40587.0
DAY_S: Final = 86400.0

# unix UTC second from which TAI-UTC holds
_LEAPS: Final[tuple[tuple[int, int], ...]] = (
    (63072000, 10), (78796800, 11), (94694400, 12), (126230400, 13), (157766400, 14), (189302400, 15),
    (220924800, 16), (252460800, 17), (283996800, 18), (315532800, 19), (362793600, 20), (394329600, 21),
    (425865600, 22), (489024000, 23), (567993600, 24), (631152000, 25), (662688000, 26), (709948800, 27),
    (741484800, 28), (773020800, 29), (820454400, 30), (867715200, 31), (915148800, 32), (1136073600, 33),
    (1230768000, 34), (1341100800, 35), (1435708800, 36), (1483228800, 37),
)  # fmt: skip
_LEAP_STARTS: Final = tuple(start for start, _ in _LEAPS)


def tai_minus_utc_s(unix_utc_s: float) -> int:
    """TAI-UTC [s] at a UTC unix time; 1972 or later."""
    index = bisect_right(_LEAP_STARTS, unix_utc_s)
    if index == 0:
        raise RejectedInputError("times before 1972 have no integral TAI-UTC", code="bad_time", unix_utc_s=unix_utc_s)
    return _LEAPS[index - 1][1]


def unix_utc_to_tai(unix_utc_s: float) -> float:
    """TAI unix seconds (seconds since 1970-01-01T00:00:00 TAI) of a UTC unix time."""
    return unix_utc_s + tai_minus_utc_s(unix_utc_s)


def unix_tai_to_utc(unix_tai_s: float) -> float:
    """Inverse of :func:`unix_utc_to_tai` (inside a leap second: its end)."""
    guess = unix_tai_s - tai_minus_utc_s(unix_tai_s - 10)
    return unix_tai_s - tai_minus_utc_s(guess)


def mjd_tai_to_unix_tai(mjd_tai: float) -> float:
    """TAI unix seconds of a MJD TAI (float64 MJD resolves about 1 µs)."""
    return (mjd_tai - MJD_UNIX_EPOCH) * DAY_S


def unix_tai_to_mjd_tai(unix_tai_s: float) -> float:
    """MJD TAI of TAI unix seconds."""
    return unix_tai_s / DAY_S + MJD_UNIX_EPOCH


def mjd_tai_to_mjd_utc(mjd_tai: float) -> float:
    """MJD UTC of a MJD TAI (on a day with a leap second off by up to that second)."""
    unix_tai_s = mjd_tai_to_unix_tai(mjd_tai)
    return mjd_tai - (unix_tai_s - unix_tai_to_utc(unix_tai_s)) / DAY_S


def parse_tai(text: str) -> float:
    """TAI unix seconds of an ISO-8601 TAI time without zone, as events and FITS headers carry it."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise RejectedInputError("not an ISO-8601 time", code="bad_time", text=text[:64]) from error
    if moment.tzinfo is not None:
        raise RejectedInputError("a TAI time carries no zone", code="bad_time", text=text[:64])
    delta = moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return delta / timedelta(seconds=1)


def format_tai(unix_tai_s: float) -> str:
    """ISO-8601 TAI time without zone, to the microsecond; inverse of :func:`parse_tai`."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=unix_tai_s)
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds")
