"""``sub60 check``: whether the service could run here as configured."""

from collections.abc import Callable

import click

from core.errors import ConfigurationError, Sub60Error
from service.masking import mask_url
from service.settings import Settings, allowed_roots, read_settings, use_compiled_cache


@click.command(
    epilog="""\b
Example:
  SUB60_DATASET=var/dataset SUB60_LOG_URL=kafka://broker:9092 sub60 check"""
)
def command() -> None:
    """Check settings, dataset, APDB, log, cache, alert schema and pipeline configuration; exit 1 if anything fails."""
    settings = read_settings()
    use_compiled_cache(settings)  # before the first kernel is imported
    checks: dict[str, Callable[[Settings], str]] = {
        "dataset": _dataset,
        "apdb": _apdb,
        "log": _log,
        "cache": _cache,
        "schema": _schema,
        "pipeline": _pipeline,
    }
    failed = False
    for name, run in checks.items():
        try:
            click.echo(f"ok      {name:8} {run(settings)}")
        except Sub60Error as error:
            failed = True
            click.echo(f"failed  {name:8} {error.code}: {error}")
    raise SystemExit(1 if failed else 0)


def _dataset(settings: Settings) -> str:
    from service.storage.datastore import Datastore

    store = Datastore(settings.dataset)
    if absent := [str(root) for root in allowed_roots(settings) if not root.is_dir()]:
        raise ConfigurationError(f"SUB60_RAW_ROOTS names no folder: {', '.join(absent)}", code="bad_setting")
    return f"{settings.dataset}: {store.info.instrument}, {len(store.camera.detectors)} detectors"


def _apdb(settings: Settings) -> str:
    from service.bundle_loader import apdb_config, open_apdb

    config = apdb_config(settings)
    if config is None:
        return "none: alerts will have no history of their own before this service"
    open_apdb(config)
    return config


def _log(settings: Settings) -> str:
    from service.connections import ping_log

    if not settings.log_url:
        return "embedded"
    ping_log(settings)
    return mask_url(settings.log_url)


def _cache(settings: Settings) -> str:
    from service.connections import ping_cache

    if not settings.cache_url:
        return "embedded"
    ping_cache(settings)
    return mask_url(settings.cache_url)


def _schema(_settings: Settings) -> str:
    from alerts.schema import SCHEMA_ID, alert_schema

    alert_schema()
    return f"id {SCHEMA_ID}"


def _pipeline(settings: Settings) -> str:
    from core.config import PipelineConfig
    from core.overrides import changed_fields
    from service.pipeline_config import pipeline_config

    changed = changed_fields(pipeline_config(settings), PipelineConfig())
    if not changed:
        return "the survey's"
    return f"{settings.pipeline}: " + ", ".join(f"{name} = {value}" for name, value in changed.items())
