"""``sub60 redrive``: dead letters and held visits go back to work."""

from collections import Counter
from typing import TYPE_CHECKING

import click

from service.commands.audit import moment
from service.commands.order import who_am_i
from service.commands.own_log import open_own_log
from service.commands.progress import ProgressLine
from service.settings import read_settings

if TYPE_CHECKING:
    from service.redrive import Item

SHOWN = 200


@click.command(
    epilog="""\b
Examples:
  sub60 redrive --held                        what is held, and whether it can go back
  sub60 redrive --held --code storm --go      send the storms
  sub60 redrive --dead-letters --code crashed --visit 2026113000012 --go"""
)
@click.option("--dead-letters", is_flag=True, help="Events that were refused, readouts that were given up.")
@click.option("--held", is_flag=True, help="Storms, and what `sub60 hold` kept back.")
@click.option("--code", "codes", multiple=True, help="Only these codes (storm, operator_hold, crashed, …).")
@click.option("--visit", "visits", multiple=True, type=int, help="Only these visits.")
@click.option("--detector", "detectors", multiple=True, type=int, help="Only these detectors.")
@click.option("--from", "start", default="", help="Ended since: ISO-8601 UTC, or an age: 90s, 30m, 2h, 1d.")
@click.option("--to", "end", default="", help="Ended until: the same.")
@click.option("--log-url", default="", help="redis://, unix:// or kafka://; default: the service on this machine.")
@click.option("--list/--go", "only_list", default=True, help="Show what would be done (default), or do it.")
def command(
    dead_letters: bool,
    held: bool,
    codes: tuple[str, ...],
    visits: tuple[int, ...],
    detectors: tuple[int, ...],
    start: str,
    end: str,
    log_url: str,
    only_list: bool,
) -> None:
    """Send dead letters and held visits to work again, once each, however often this is run.

    What has alerts is never sent again. Refused while alerts are held, and while another redrive runs.
    """
    from service.clock import SystemClock
    from service.redrive import Wanted, only_one, plan_redrive, send_back

    if not (dead_letters or held):
        raise click.UsageError("say what: --dead-letters, --held or both")
    clock, progress = SystemClock(), ProgressLine().show
    wanted = Wanted(
        dead_letters=dead_letters,
        held=held,
        codes=frozenset(codes),
        visits=frozenset(visits),
        detectors=frozenset(detectors),
        start_tai_s=moment(start, clock.tai_s()) if start else None,
        end_tai_s=moment(end, clock.tai_s()) if end else None,
    )
    with open_own_log(read_settings(), log_url) as log:
        if only_list:
            show(plan_redrive(log, wanted, progress))
            click.echo("nothing was done; add --go to do it")
            return
        with only_one(log, clock, who_am_i()):
            items = plan_redrive(log, wanted, progress)
            n_sent = send_back(log, items, progress)
    show(items)
    click.echo(f"{n_sent} sent back; what becomes of them stands in /visits and in `sub60 audit`")


def show(items: "list[Item]") -> None:
    """A line each, then the totals."""
    for item in items[:SHOWN]:
        place = f"visit {item.key[0]} detector {item.key[1]}" if item.key else f"event of {item.topic}"
        click.echo(f"{'stays' if item.refusal else 'back':6} {place:38} {item.what:12} {item.code:16} {item.refusal}")
    if len(items) > SHOWN:
        click.echo(f"… and {len(items) - SHOWN} more")
    totals = Counter(item.refusal or f"can go back to {item.topic}" for item in items)
    for text, count in totals.most_common():
        click.echo(f"{count:6} {text}")
    if not items:
        click.echo("nothing matches")
