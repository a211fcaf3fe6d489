"""Our clock against the log server's: t0, deadlines and latencies are compared over machines."""

from collections.abc import Iterator
from typing import Final

from core.errors import ConfigurationError
from core.timescales import tai_minus_utc_s, unix_tai_to_utc
from service import topics
from service.checks.finding import Finding, failed, ok, warning
from service.clock import Clock, SystemClock
from service.connections import connect_log
from service.log.contract import Log
from service.settings import Settings

LIMIT_S: Final = 1.0
TAI_MARGIN_S: Final = 2.0


def check_clock(settings: Settings) -> Iterator[Finding]:
    """Half-way between question and answer, against the server's time."""
    if not settings.log_url:
        yield ok("clock", "the log is embedded: one clock")
        return
    with connect_log(settings) as log:
        log.ping()
        try:
            log.partitions(topics.STATUS)
        except ConfigurationError:
            yield warning("clock", f"not compared: topic {topics.STATUS} is not there yet; check again after the start")
            return
        yield judge(*measure_offset(log, SystemClock()))


def measure_offset(log: Log, clock: Clock) -> tuple[float | None, float]:
    """Our UTC minus the server's [s], and its uncertainty [s]; None where the server does not tell its time."""
    before = clock.tai_s()
    server_utc_s = log.server_time_s()
    after = clock.tai_s()
    if server_utc_s is None:
        return None, 0.0
    return unix_tai_to_utc((before + after) / 2) - server_utc_s, (after - before) / 2


def judge(offset_s: float | None, uncertainty_s: float) -> Finding:
    """What an offset means."""
    if offset_s is None:
        text = f"the broker's time is not known: set message.timestamp.type=LogAppendTime on topic {topics.STATUS}"
        return warning("clock", text)
    shown = f"ours minus the log server's: {offset_s:+.3f} ± {uncertainty_s:.3f} s"
    if abs(offset_s) - uncertainty_s <= LIMIT_S:
        return ok("clock", shown)
    leap_s = tai_minus_utc_s(2e9)
    if abs(abs(offset_s) - leap_s) < TAI_MARGIN_S:
        return failed(
            "clock",
            f"{shown}: that is TAI-UTC ({leap_s} s); one of the machines keeps TAI where UTC is meant",
            can_heal=True,
        )
    return failed("clock", f"{shown}: more than {LIMIT_S:g} s; start NTP on both machines", can_heal=True)
