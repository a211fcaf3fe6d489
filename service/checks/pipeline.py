"""The pipeline's own configuration."""

from collections.abc import Iterator

from service.checks.finding import Finding, ok
from service.settings import Settings


def check_pipeline(settings: Settings) -> Iterator[Finding]:
    """It can be read; which fields it changes."""
    from core.config import PipelineConfig
    from core.overrides import changed_fields
    from service.pipeline_config import pipeline_config

    changed = changed_fields(pipeline_config(settings), PipelineConfig())
    names = ", ".join(f"{name} = {value}" for name, value in changed.items())
    yield ok("pipeline", f"{settings.pipeline}: {names}" if changed else "the survey's")
