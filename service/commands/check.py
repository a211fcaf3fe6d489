"""``sub60 check``: whether the service could run here as configured."""

import click

from service.checks import Level, run_checks
from service.settings import read_settings, use_compiled_cache


@click.command(
    epilog="""\b
Example:
  SUB60_DATASET=var/dataset SUB60_LOG_URL=kafka://broker:9092 sub60 check"""
)
def command() -> None:
    """Check settings, dataset, disk, APDB, log, topics, clock, cache, schema, ephemerides, pipeline configuration.

    Exit 1 if anything failed. The same checks run when the service starts: what cannot heal refuses to start.
    """
    settings = read_settings()
    use_compiled_cache(settings)  # before the first kernel is imported
    has_failed = False
    for finding in run_checks(settings):
        has_failed |= finding.level is Level.FAILED
        click.echo(f"{finding.level.value:8}{finding.name:9} {finding.text}")
    raise SystemExit(1 if has_failed else 0)
