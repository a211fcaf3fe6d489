"""``sub60 recall``: which alerts were made with wrong calibrations, templates, …"""

from pathlib import Path
from typing import Final

import click

from service.commands.audit import moment
from service.commands.own_log import open_own_log
from service.commands.progress import ProgressLine
from service.settings import read_settings
from service.storage.recipe import PartKind

SHORT: Final = 12
"""Characters of a digest shown: enough to name it."""


@click.command(
    epilog="""\b
Examples:
  sub60 recall --kind calibrations --detector 12                 which contents were in use, from which visit to which
  sub60 recall --kind calibrations --digest 3fa9c1d2 --ids bad.txt
  sub60 recall --kind template --from 6h --ids bad.txt"""
)
@click.option("--log-url", default="", help="redis://, unix:// or kafka://; default: the service on this machine.")
@click.option("--kind", type=click.Choice([kind.value for kind in PartKind]), required=True, help="Part of the bundle.")
@click.option(
    "--digest", "digests", multiple=True, help="Begin of a content's digest; may be repeated.  [default: all]"
)
@click.option("--detector", "detectors", type=int, multiple=True, help="May be repeated.  [default: all]")
@click.option("--from", "start", default="", help="End of readout: ISO-8601 UTC, or an age: 30m, 2h.  [default: all]")
@click.option("--to", "end", default="", help="The same.  [default: now]")
@click.option("--ids", type=click.Path(dir_okay=False, path_type=Path), help="Write their diaSourceIds, one a line.")
def command(
    log_url: str,
    kind: str,
    digests: tuple[str, ...],
    detectors: tuple[int, ...],
    start: str,
    end: str,
    ids: Path | None,
) -> None:
    """Say which visits' alerts were made with which content of a part of their bundles, and name those alerts.

    Nothing is sent or changed. Exit 1: fewer alerts were found for --ids than the manifests announced.
    """
    from service.clock import SystemClock
    from service.recall import find_uses, ids_of

    settings, now_s = read_settings(), SystemClock().tai_s()
    begin_s, end_s = (moment(text, now_s) if text else limit for text, limit in ((start, 0.0), (end, now_s)))
    progress = ProgressLine().show
    with open_own_log(settings, log_url) as log:
        uses = [
            use
            for use in find_uses(log, kind, begin_s, end_s, progress)
            if (not digests or use.digest.startswith(digests)) and (not detectors or use.detector in detectors)
        ]
        wanted = {key: n for use in uses for key, n in use.n_alerts.items()}
        found = ids_of(log, settings.state_dir / "alerts", wanted, progress) if ids is not None else []
    for use in uses:
        n_alerts = sum(use.n_alerts.values())
        span = f"{use.visits[0]} to {use.visits[-1]}"
        what = f"{use.kind} {use.digest[:SHORT]:{SHORT}}"
        click.echo(f"{what} detector {use.detector:3} {use.band}: {n_alerts:8} alerts of {span}")
    n_announced = sum(wanted.values())
    click.echo(f"{n_announced} alerts of {len(wanted)} visit-detectors")
    if ids is not None:
        ids.write_text("".join(f"{number}\n" for number in found))
        click.echo(f"{len(found)} diaSourceIds in {ids}")
        raise SystemExit(1 if len(found) < n_announced else 0)
