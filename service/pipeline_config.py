"""The pipeline's configuration: the survey's defaults, changed by the file that ``SUB60_PIPELINE`` names."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from core.config import PipelineConfig
from core.errors import ConfigurationError
from core.overrides import with_changes
from service.settings import Settings

DATASET_FIELDS: Final = frozenset({"release"})
"""Fields that the dataset decides."""
SETTING_FIELDS: Final = frozenset({"n_threads"})
"""Fields that a setting decides."""


def pipeline_config(settings: Settings, release: int | None = None) -> PipelineConfig:
    """Configuration of this process's pipeline; a wrong file is a ``ConfigurationError`` before any visit.

    ``release`` is the dataset's, None where only the file is checked. The file is TOML or, with the ending ``.json``,
    JSON; sections may be nested or dotted (``subtract.kernel.half_width_pix = 16``).
    """
    config = PipelineConfig(n_threads=settings.compute_threads)
    if release is not None:
        config = replace(config, release=release)
    if not settings.pipeline:
        return config
    path = Path(settings.pipeline)
    changes = _flat(_read(path))
    if taken := DATASET_FIELDS & changes.keys():
        raise ConfigurationError(f"{path}: {', '.join(taken)} is the dataset's to say", code="bad_pipeline_field")
    if SETTING_FIELDS & changes.keys():
        raise ConfigurationError(f"{path}: n_threads is set by SUB60_COMPUTE_THREADS", code="bad_pipeline_field")
    try:
        config = with_changes(config, changes)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}", code=error.code) from error
    if config.psf.determiner == "piff":
        from core.stages.psf_piff import import_piff

        import_piff()
    return config


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"SUB60_PIPELINE: {path} cannot be read: {error}", code="bad_pipeline_file") from error
    try:
        values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise ConfigurationError(f"SUB60_PIPELINE: {path} is not {kind}: {error}", code="bad_pipeline_file") from error
    if not isinstance(values, dict):
        raise ConfigurationError(f"SUB60_PIPELINE: {path} holds no sections", code="bad_pipeline_file")
    return values


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
