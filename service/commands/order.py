"""What hold and release have in common."""

import getpass
import socket

import click

from service.commands.own_log import open_own_log
from service.commands.progress import ProgressLine
from service.records import Verb
from service.settings import read_settings


def give_order(verb: Verb, reason: str, log_url: str, timeout_s: float) -> None:
    """Append an order, wait until the workers obey it, say who has; exits 1 unless all have."""
    from service.clock import SystemClock
    from service.control import read_control, send_order, wait_until_obeyed

    clock = SystemClock()
    with open_own_log(read_settings(), log_url) as log:
        producer = log.producer()
        send_order(producer, verb, clock.tai_s(), reason, who_am_i())
        producer.close()
        _, offset = read_control(log)
        click.echo(f"{verb.value}: written to the log; waiting for the workers", err=True)
        obeyed, missing = wait_until_obeyed(log, offset, clock, timeout_s, ProgressLine().show)
    state = "held" if verb is Verb.HOLD else "sent again"
    if missing:
        click.echo(f"not obeyed in {timeout_s:g} s: {', '.join(missing)}; look at their logs and /healthz")
        raise SystemExit(1)
    if not obeyed:
        click.echo(f"alerts are {state}; no worker is running: those that start obey before their first commit")
    else:
        click.echo(f"alerts are {state}; obeyed by {', '.join(obeyed)}")


def who_am_i() -> str:
    """User and machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as containers have
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
