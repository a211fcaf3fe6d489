"""``sub60 tail``: print or save alerts as they come, from either transport."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from service.commands.own_log import open_own_log
from service.settings import read_settings

POLL_S = 0.5


@click.command(
    epilog="""\b
Examples:
  sub60 tail                              one line an alert, as they come
  sub60 tail --from earliest -n 10 --full the first ten, all fields
  sub60 tail --log-url kafka://localhost:9092 --save night.avro -n 1000"""
)
@click.option("--log-url", default="", help="redis://, unix:// or kafka://; default: the service on this machine.")
@click.option("--from", "start", type=click.Choice(["latest", "earliest"]), default="latest", show_default=True)
@click.option("-n", "count", type=click.IntRange(1), help="Stop after so many alerts.")
@click.option("--full", is_flag=True, help="Every field as JSON; cutouts as base64.")
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Write an Avro file instead of lines.")
def command(log_url: str, start: str, count: int | None, full: bool, save: Path | None) -> None:
    """Print alerts as they are committed, until Ctrl-C."""
    from alerts.codec import decode_alert
    from alerts.files import write_alerts
    from service.handlers.alerts import jsonable

    saved: list[bytes] = []
    try:
        for i, value in enumerate(_alerts(log_url, start), start=1):
            if save is not None:
                saved.append(value)
            else:
                alert = decode_alert(value)
                click.echo(json.dumps(jsonable(alert) if full else brief(alert)))
            if i == count:
                break
    except KeyboardInterrupt:
        pass
    if save is not None:
        click.echo(f"{write_alerts(save, saved)} alerts in {save}")


def brief(alert: dict[str, Any]) -> dict[str, Any]:
    """What one line says of an alert."""
    source = alert["diaSource"]
    names = ("visit", "detector", "band", "midpointMjdTai", "ra", "dec", "psfFlux", "psfFluxErr", "snr", "reliability")
    return {
        "diaSourceId": str(alert["diaSourceId"]),
        **{name: source[name] for name in names},
        "nPrvDiaSources": len(alert["prvDiaSources"] or ()),
        "ssObjectId": source["ssObjectId"],
    }


def _alerts(log_url: str, start: str) -> Iterator[bytes]:
    from service import topics

    with open_own_log(read_settings(), log_url) as log:
        reader = log.reader(topics.ALERTS, start="latest" if start == "latest" else "earliest")
        while True:
            yield from (message.value for message in reader.poll(POLL_S))
