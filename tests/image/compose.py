"""docker/compose.yaml read as data, and held against the Compose Specification's own schema."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from jsonschema import Draft202012Validator

from tests.image.dockerfile import ROOT

COMPOSE: Final = ROOT / "docker" / "compose.yaml"
EXAMPLE: Final = ROOT / "docker" / ".env.example"
SCHEMA: Final = Path(__file__).with_name("data") / "compose-spec.json"
_VARIABLE: Final = re.compile(r"(?<!\$)\$\{(\w+)(?:(:?[-?])([^}]*))?\}")


def read_compose(variables: Mapping[str, str]) -> dict[str, Any]:
    """The file with variables put in; KeyError for a required one that has no value."""
    text = _VARIABLE.sub(lambda match: _value(match, variables), COMPOSE.read_text(encoding="utf-8"))
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def read_example() -> dict[str, str]:
    """Names and values of .env.example."""
    lines = (line.strip() for line in EXAMPLE.read_text(encoding="utf-8").splitlines())
    parts = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in parts}


def filled_example() -> dict[str, str]:
    """.env.example as somebody fills it in: each empty value, passwords all of them, by a name."""
    return {name: value or f"chosen-{name.lower()}" for name, value in read_example().items()}


def problems(loaded: Mapping[str, Any]) -> list[str]:
    """What the schema says against a compose file; nothing where it is valid."""
    validator = Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    errors = validator.iter_errors(loaded)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message[:200]}" for error in errors]


def _value(match: re.Match[str], known: Mapping[str, str]) -> str:
    name, kind, other = match.groups()
    if known.get(name):
        return known[name]
    if kind in (":-", "-"):
        return str(other)
    raise KeyError(f"{name}: {other or 'has no value'}")
