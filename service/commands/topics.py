"""``sub60 topics``: the log's topics, made ahead of the service or looked at."""

import click

from core.errors import ConfigurationError
from service.connections import connect_log
from service.settings import Settings, read_settings
from service.topics import partition_counts, retention


@click.group(
    epilog="""\b
Example:
  SUB60_LOG_URL=kafka://broker:9092 SUB60_PARTITIONS=189 sub60 topics create"""
)
def command() -> None:
    """Make or list the log's topics."""


@command.command(
    epilog="""\b
Example:
  SUB60_LOG_URL=kafka://broker:9092 SUB60_PARTITIONS=189 sub60 topics create"""
)
def create() -> None:
    """Make the topics that are missing; exit 1 where one is there with another number of partitions."""
    settings = _settings()
    counts = partition_counts(settings.log_url, settings.partitions)
    with connect_log(settings) as log:
        log.ensure_topics(counts, retention(settings))
    for topic, count in counts.items():
        click.echo(f"{topic:12} {count:4}")


@command.command(
    "list",
    epilog="""\b
Example:
  SUB60_LOG_URL=kafka://broker:9092 sub60 topics list""",
)
def list_topics() -> None:
    """Topics with their partitions, those that are wanted beside them; exit 1 if any is missing or differs."""
    settings = _settings()
    is_right = True
    with connect_log(settings) as log:
        for topic, wanted in partition_counts(settings.log_url, settings.partitions).items():
            try:
                count = log.partitions(topic)
            except ConfigurationError:
                count = 0
            is_right &= count == wanted
            remark = "" if count == wanted else f"  wanted {wanted}" if count else "  missing: `sub60 topics create`"
            click.echo(f"{topic:12} {count:4}{remark}")
    raise SystemExit(0 if is_right else 1)


def _settings() -> Settings:
    settings = read_settings()
    if not settings.log_url:
        raise ConfigurationError(
            "SUB60_LOG_URL is not set: the embedded log makes its topics itself", code="no_log_url"
        )
    return settings
