"""``sub60 audit``: whether log, APDB and alert files agree."""

import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import click

from core.errors import ConfigurationError
from core.timescales import unix_utc_to_tai
from service.audit.report import AuditReport, iso
from service.commands.own_log import open_own_log
from service.commands.progress import ProgressLine
from service.settings import read_settings

UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
SHOWN: Final = 50


@click.command(
    epilog="""\b
Examples:
  sub60 audit                                        everything that is still held
  sub60 audit --from 2h                              the last two hours
  sub60 audit --from 2026-11-30T00:00:00Z --to 2026-11-30T12:00:00Z --report audit.json"""
)
@click.option("--log-url", default="", help="redis://, unix:// or kafka://; default: the service on this machine.")
@click.option("--from", "start", default="", help="ISO-8601 UTC, or an age: 90s, 30m, 2h, 1d.  [default: all held]")
@click.option("--to", "end", default="", help="The same.  [default: now, behind --settle]")
@click.option("--settle", "settle_s", type=click.FloatRange(0), default=120.0, show_default=True, help="Seconds.")
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Write the findings as JSON.")
def command(log_url: str, start: str, end: str, settle_s: float, report: Path | None) -> None:
    """Hold events, manifests, alerts, results, dead letters, APDB and alert files against each other.

    Exit 0: they agree. Exit 1: something differs; each difference is named with its visit and detector.
    """
    from service.audit.run import audit
    from service.bundle_loader import apdb_config, open_apdb
    from service.clock import SystemClock

    settings, clock = read_settings(), SystemClock()
    config = apdb_config(settings)
    with open_own_log(settings, log_url) as log:
        found = audit(
            log,
            settings,
            clock,
            apdb=open_apdb(config) if config is not None else None,
            start_tai_s=moment(start, clock.tai_s()) if start else None,
            end_tai_s=moment(end, clock.tai_s()) if end else None,
            settle_s=settle_s,
            progress=ProgressLine().show,
        )
    if report is not None:
        report.write_text(json.dumps(found.to_json(), indent=1))
    show(found)
    raise SystemExit(0 if found.is_clean else 1)


def moment(text: str, now_tai_s: float) -> float:
    """TAI unix seconds of an ISO-8601 UTC time, or of an age before now."""
    if (age := re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)) is not None:
        return now_tai_s - float(age[1]) * UNITS_S[age[2]]
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(
            f"{text!r} is no time: give ISO-8601 UTC (2026-11-30T12:00:00Z) or an age (90s, 30m, 2h, 1d)",
            code="bad_time",
        ) from error
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when
    return unix_utc_to_tai((when - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(seconds=1))


def show(found: AuditReport) -> None:
    """A table of the sources, then the findings."""
    click.echo(f"{'source':14} {'records':>10}  {'from (UTC)':24}  {'to (UTC)':24}")
    for source in found.sources:
        first, last = (iso(source.first_ms) or "-"), (iso(source.last_ms) or "-")
        remark = "older ones are gone" if source.is_trimmed and not source.note else source.note
        click.echo(f"{source.name:14} {source.n_records:10}  {first:24}  {last:24}  {remark}".rstrip())
    started = iso(found.start_ms) or "the oldest"
    click.echo(
        f"compared: {found.n_visit_detectors} visit-detectors, {found.n_alerts} alerts, from {started} to "
        f"{iso(found.watermark_ms)} ({found.watermark})"
    )
    shown: Counter[str] = Counter()
    for item in found.discrepancies:
        shown[item.kind.value] += 1
        if shown[item.kind.value] <= SHOWN:
            place = "" if item.visit is None else f"visit {item.visit} detector {item.detector}: "
            click.echo(f"{item.kind.value:28} {place}{item.detail}")
    for kind, count in found.counts.items():
        more = f" ({SHOWN} shown; --report has all)" if count > SHOWN else ""
        click.echo(f"total {count:6} {kind}{more}")
    click.echo("clean" if found.is_clean else f"{len(found.discrepancies)} discrepancies")
