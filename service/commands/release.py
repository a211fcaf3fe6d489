"""``sub60 release``: send alerts again."""

import click

from service.commands.order import give_order
from service.records import Verb


@click.command(
    epilog="""\b
Example:
  sub60 release && sub60 redrive --held --go"""
)
@click.option("--reason", default="", help="Why; kept with the order.")
@click.option("--log-url", default="", help="redis://, unix:// or kafka://; default: the service on this machine.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0), default=60.0, show_default=True, help="Seconds.")
def command(reason: str, log_url: str, timeout_s: float) -> None:
    """End `sub60 hold`, and wait until every live worker has obeyed.

    What was held meanwhile stays so: `sub60 redrive --held` sends it. Exit 1 as for hold.
    """
    give_order(Verb.RELEASE, reason, log_url, timeout_s)
