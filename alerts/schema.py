"""The LSST alert schema, as the ``lsst-alert-packet`` package publishes it; parsed once a process."""

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from fastavro.schema import load_schema

from core.errors import ConfigurationError

MAJOR: Final = 11
MINOR: Final = 1
SCHEMA_ID: Final = 100 * MAJOR + MINOR
"""Id on the wire and in schema registries (the survey's rule: major, then two digits of minor)."""

NAMESPACE: Final = f"lsst.v{MAJOR}_{MINOR}"

NEVER_MEASURED: Final[dict[str, frozenset[str]]] = {
    "diaSource": frozenset({"parentDiaSourceId", "timeWithdrawnMjdTai", "glint_trail"}),
    "diaForcedSource": frozenset({"timeWithdrawnMjdTai"}),
    "mpc_orbits": frozenset({"mpc_orb_jsonb"}),
}
"""Columns this pipeline always sends as null: peaks of one footprint have no parent row, an alert is sent before
anything can be withdrawn, and nobody looks for glints."""


def schema_folder(number: int = SCHEMA_ID) -> Path:
    """Folder of a schema's ``.avsc`` files."""
    # Looked up, not imported: the package's own modules pull in a web client.
    spec = find_spec("lsst.alert.packet")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError("lsst-alert-packet is not installed", code="no_alert_schema")
    major, minor = divmod(number, 100)
    return Path(next(iter(spec.submodule_search_locations))) / "schema" / str(major) / str(minor)


@cache
def known_ids() -> tuple[int, ...]:
    """Ids of our schema and of those of its major version that the package has, ours first: what can be read."""
    minors = (int(folder.name) for folder in schema_folder().parent.iterdir() if folder.name.isdecimal())
    return SCHEMA_ID, *sorted({100 * MAJOR + minor for minor in minors} - {SCHEMA_ID}, reverse=True)


@cache
def alert_schema(number: int = SCHEMA_ID) -> Any:
    """The parsed schema of an alert, its records nested."""
    major, minor = divmod(number, 100)
    return load_schema(schema_folder(number) / f"lsst.v{major}_{minor}.alert.avsc")


@cache
def schema_json(number: int = SCHEMA_ID) -> str:
    """The whole alert schema of an id as one JSON text, for registries and file headers.

    The parser leaves a field's attributes in an order that changes from process to process; here they are sorted.
    """
    return json.dumps(_published(alert_schema(number)), separators=(",", ":"), sort_keys=True)


def _published(schema: Any) -> Any:
    """The schema without what the parser added."""
    if isinstance(schema, list):
        return [_published(item) for item in schema]
    if isinstance(schema, dict):
        return {key: _published(value) for key, value in schema.items() if not key.startswith("__")}
    return schema
