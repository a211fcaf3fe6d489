"""``sub60 hold``: stop sending alerts."""

import click

from service.commands.order import give_order
from service.records import Verb


@click.command(
    epilog="""\b
Example:
  sub60 hold --reason "dome flat taken as science"    and later: sub60 release; sub60 redrive --held --go"""
)
@click.option("--reason", required=True, help="Why; kept with the order and shown by the api.")
@click.option("--log-url", default="", help="redis://, unix:// or kafka://; default: the service on this machine.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0), default=60.0, show_default=True, help="Seconds.")
def command(reason: str, log_url: str, timeout_s: float) -> None:
    """Stop sending alerts until `sub60 release`, and wait until every live worker has obeyed.

    Readouts are processed and archived as ever; those that would have sent alerts end as `held` (operator_hold).
    Exit 1 where a worker did not say in time that it has obeyed.
    """
    give_order(Verb.HOLD, reason, log_url, timeout_s)
