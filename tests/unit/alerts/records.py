"""Random catalogs and the plain records they stand for."""

import io
from typing import Any

import fastavro
import numpy as np
from fastavro.schema import load_schema

from alerts.schema import NAMESPACE, schema_folder
from core.contracts.catalogs import NULL_BOOL, NULL_INT, NULL_LONG, TABLES, Catalog, Column

EDGES: dict[str, list[Any]] = {
    "long": [0, -1, 1, 63, 64, -64, -65, 2**31, 2**63 - 1, -(2**63) + 1],
    "timestamp-micros": [0, 1_700_000_000_000_000],
    "int": [0, -1, 64, 2**31 - 1, -(2**31) + 1],
    "float": [0.0, -0.0, 1.5, -3.25e38, 1e-45, 3.25e38],
    "double": [0.0, -1.5, 1e308, 5e-324, 123.456],
    "boolean": [0, 1],
    "string": ["", "r", "lsst", "ä", "€uro", "a\U0001f52d", "\x00x"[1:]],
}
NULLS: dict[str, Any] = {
    "long": NULL_LONG, "timestamp-micros": NULL_LONG, "int": NULL_INT, "float": np.nan, "double": np.nan,
    "boolean": NULL_BOOL, "string": "",
}  # fmt: skip


def random_catalog(table: str, dtype: np.dtype[np.void], n: int, seed: int, null_share: float = 0.3) -> Catalog:
    """Rows drawn from the edges of each type and from the whole range, nulls where allowed."""
    rng = np.random.default_rng(seed)
    rows = np.zeros(n, dtype)
    for column in TABLES[table]:
        edges = EDGES[column.avro_type]
        for i in range(n):
            value = edges[rng.integers(len(edges))]
            if column.avro_type in ("float", "double") and rng.random() < 0.5:
                value = rng.normal() * 10.0 ** rng.integers(-10, 10)
            if column.is_nullable and rng.random() < null_share:
                value = NULLS[column.avro_type]
            rows[column.name][i] = value
    return rows


def plain_value(column: Column, value: Any) -> Any:
    """What a row's value means: the plain twin of the kernel's rules."""
    plain = value.item()
    if column.avro_type in ("float", "double"):
        return None if column.is_nullable and not np.isfinite(plain) else plain
    if column.is_nullable and plain == NULLS[column.avro_type]:
        return None
    return bool(plain) if column.avro_type == "boolean" else plain


def plain_record(table: str, row: Any) -> dict[str, Any]:
    """A row as the record fastavro would be given."""
    return {column.name: plain_value(column, row[column.name]) for column in TABLES[table]}


def record_schema(table: str) -> Any:
    """Parsed schema of one record."""
    return load_schema(schema_folder() / f"{NAMESPACE}.{table}.avsc")


def reference_bytes(schema: Any, record: dict[str, Any]) -> bytes:
    """fastavro's own encoding."""
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, schema, record, strict=True)
    return buffer.getvalue()
