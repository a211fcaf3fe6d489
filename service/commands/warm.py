"""``sub60 warm``: bring tonight's history into the cache before the first visit."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import click

from core.errors import ConfigurationError
from service.access import cache_access
from service.bundle_loader import CACHE_TIMEOUT_S, LazyApdb, apdb_config
from service.clock import SystemClock, mjd_tai
from service.commands.progress import ProgressLine
from service.events import NextVisit, parse_event
from service.settings import read_settings
from service.storage.cache import connect
from service.storage.datastore import Datastore
from service.storage.history import HistoryStore
from service.storage.sky_pixels import HISTORY_ORDER, cone_cells

FIELD_RADIUS_DEG: Final = 1.95
"""Of LSSTCam's corners, and a little."""


@click.command(
    epilog="""\b
Examples:
  sub60 warm --position 53.1 -27.8
  sub60 warm --position 150.1 2.2 --radius 0.5 --hours 4
  sub60 warm --schedule tonight.jsonl"""
)
@click.option("--position", "positions", type=(float, float), multiple=True, help="RA and Dec [deg]; may be repeated.")
@click.option(
    "--schedule", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Next-visit events, one JSON object a line.",
)  # fmt: skip
@click.option("--radius", type=click.FloatRange(0.01, 10), default=FIELD_RADIUS_DEG, show_default=True, help="[deg]")
@click.option("--hours", type=click.FloatRange(0.1, 24), default=12.0, show_default=True, help="How long it stays.")
def command(positions: tuple[tuple[float, float], ...], schedule: Path | None, radius: float, hours: float) -> None:
    """Read the history of fields from the APDB into the cache, where it is not there yet.

    Without it the first visit of each field waits for the APDB, before its clock starts.
    """
    settings = read_settings()
    config = apdb_config(settings)
    if not settings.cache_url or config is None:
        raise ConfigurationError(
            "set SUB60_CACHE_URL and SUB60_APDB_CONFIG (or a dataset with an APDB)", code="nothing_to_warm"
        )
    fields = [*positions, *(_pointings(schedule.read_text().splitlines()) if schedule else ())]
    if not fields:
        raise click.UsageError("give --position RA DEC or --schedule FILE")
    cells = sorted({cell for ra, dec in fields for cell in cone_cells(ra % 360, dec, radius, HISTORY_ORDER)})
    clock = SystemClock()
    client = connect(settings.cache_url, CACHE_TIMEOUT_S, cache_access(settings))
    history = HistoryStore(client, LazyApdb(config), Datastore(settings.dataset).camera, clock.tai_s)
    progress, n_done = ProgressLine(), 0

    def done(n: int) -> None:
        nonlocal n_done
        n_done += n
        progress.show("sky cells", n_done, len(cells))

    n_rows = history.warm(cells, mjd_tai(clock), round(3600 * hours), done)
    click.echo(f"{len(cells)} cells of {len(fields)} fields are in the cache for {hours:g} h; {n_rows} rows were read")


def _pointings(lines: Iterable[str]) -> list[tuple[float, float]]:
    events = (parse_event(NextVisit, json.loads(line)) for line in lines if line.strip())
    return [(event.position[0], event.position[1]) for event in events]
