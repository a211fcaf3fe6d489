"""Light-curve features as records of a schema of our own: what the alert schema has no room for."""

import io
import json
import struct
from functools import cache
from typing import Any, Final

import fastavro

from alerts.codec import GARBLED
from alerts.rows import encode_catalog
from core.contracts.catalogs import OWN_TABLES, Catalog, Column
from core.errors import RejectedInputError

TABLE: Final = "lightCurveFeatures"
MAJOR: Final = 1
MINOR: Final = 0
SCHEMA_ID: Final = 600_000 + 100 * MAJOR + MINOR
"""Far from the ids of the survey's alert schemas."""
NAMESPACE: Final = f"sub60.v{MAJOR}_{MINOR}"

FRAME: Final = struct.Struct(">bi")
_FRAME_BYTES: Final = FRAME.pack(0, SCHEMA_ID)


@cache
def features_schema() -> Any:
    """The parsed schema; a column's unit is its ``doc``."""
    return fastavro.parse_schema(json.loads(features_schema_json()))


@cache
def features_schema_json() -> str:
    """The schema as JSON text, for registries."""
    schema = {
        "type": "record",
        "namespace": NAMESPACE,
        "name": TABLE,
        "doc": "Features of a DIAObject's light curve of forced fluxes on difference images over 365 days.",
        "fields": [_field(column) for column in OWN_TABLES[TABLE]],
    }
    return json.dumps(schema, separators=(",", ":"))


def encode_features(rows: Catalog) -> list[tuple[int, bytes]]:
    """(diaObjectId, framed record) of each row; one that breaks the schema is left out."""
    encoded = encode_catalog(TABLE, rows)
    bodies = ((int(rows["diaObjectId"][i]), encoded.row(i)) for i in range(rows.size))
    return [(number, _FRAME_BYTES + body) for number, body in bodies if body is not None]


def decode_features(data: bytes) -> dict[str, Any]:
    """One framed record; every byte must be used."""
    body = io.BytesIO(data)
    if body.read(FRAME.size) != _FRAME_BYTES:
        raise RejectedInputError("not a features record of this schema", code="bad_features_frame")
    try:
        record = fastavro.schemaless_reader(body, features_schema(), None)
    except GARBLED as error:
        raise RejectedInputError("a features record is cut short or garbled", code="bad_features") from error
    if body.tell() != len(data):
        raise RejectedInputError("bytes behind a features record's end", code="bad_features")
    assert isinstance(record, dict)
    return record


def _field(column: Column) -> dict[str, Any]:
    described: dict[str, Any] = {"name": column.name, "type": column.avro_type}
    if column.is_nullable:
        described |= {"type": ["null", column.avro_type], "default": None}
    return described | {"doc": column.unit} if column.unit else described
