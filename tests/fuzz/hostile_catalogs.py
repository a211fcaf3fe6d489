"""Catalogs from bytes and back, and what each of their rows means on the wire: plain Python, no code of ours."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from math import isfinite
from random import Random
from typing import Any, Final

import numpy as np

from core.contracts.catalogs import (
    DIA_FORCED_SOURCE,
    DIA_OBJECT,
    DIA_SOURCE,
    MPC_ORBITS,
    NULL_INT,
    NULL_LONG,
    SS_SOURCE,
    TABLES,
    Catalog,
    Column,
)

DTYPES: Final = {
    "diaSource": DIA_SOURCE,
    "diaObject": DIA_OBJECT,
    "ssSource": SS_SOURCE,
    "mpc_orbits": MPC_ORBITS,
    "previous": DIA_SOURCE,
    "diaForcedSource": DIA_FORCED_SOURCE,
}
MAX_ROWS: Final = 6
MIDPOINT: Final = 61000.25
OBJECTS: Final = (11, 12, 13)
NOT_FINITE: Final = (float("nan"), float("inf"), float("-inf"))
EDGES: Final[dict[str, tuple[Any, ...]]] = {
    "long": (0, -1, 63, 64, -65, 2**31, 2**63 - 1, -(2**63) + 1, NULL_LONG),
    "timestamp-micros": (0, -1, 1_700_000_000_000_000, 2**62, -(2**62), 253402300799999999, 253402300800000000,
                         NULL_LONG),
    "int": (0, -1, 64, 2**31 - 1, -(2**31) + 1, NULL_INT),
    "float": (0.0, -0.0, 1.5, -3.25e38, 1e-45, 3.4e38, *NOT_FINITE),
    "double": (0.0, -1.5, 1e308, 5e-324, 360.0, *NOT_FINITE),
    "boolean": (0, 1, -1, 2, 127, -128),
    "string": ("", "r", "lsst", "ä", "€uro", "a\U0001f52d", "\x00x", "x\x00", "\ud800", "x" * 40),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tables:
    """The catalogs of one input, and a byte of choices."""

    rows: Mapping[str, Catalog]
    choices: int


def pack_tables(rows: Mapping[str, Catalog], choices: int) -> bytes:
    """Numbers of rows, choices, then the catalogs' memory."""
    counts = struct.pack("7B", *(rows[name].size for name in DTYPES), choices)
    return counts + b"".join(rows[name].tobytes() for name in DTYPES)


def unpack_tables(data: bytes) -> Tables:
    """Inverse, of any bytes: what is missing is zero; a character is one that Python's strings can hold."""
    *counts, choices = struct.unpack("7B", data[:7].ljust(7, b"\0"))
    rows, position = {}, 7
    for (name, dtype), count in zip(DTYPES.items(), counts, strict=True):
        size = count % (MAX_ROWS + 1) * dtype.itemsize
        memory = bytearray(data[position : position + size].ljust(size, b"\0"))
        rows[name] = catalog = np.frombuffer(memory, dtype)
        for column in dtype.names if catalog.size else ():
            if dtype[column].kind == "U":
                offset = dtype.fields[column][1]
                shape = catalog.size, dtype[column].itemsize // 4
                points = np.ndarray(shape, np.uint32, memory, offset, (dtype.itemsize, 4))
                points %= 0x110000
        position += size
    return Tables(rows, choices)


@cache
def ordinary_rows(table: str) -> Catalog:
    """A store of rows of ordinary values, made once."""
    random = Random(len(table))
    rows = np.ones(64, DTYPES[table])
    for column in columns(table):
        if column.avro_type in ("float", "double"):
            rows[column.name] = [random.gauss(0, 1) * 10.0 ** random.randrange(-8, 8) for _ in rows]
    return rows


def hostile_rows(table: str, n: int, random: Random, trouble: float) -> Catalog:
    """Rows of ordinary values, a share of them taken from the edges of their type and beyond."""
    store, kinds = ordinary_rows(table), columns(table)
    rows = store.take([random.randrange(store.size) for _ in range(n)])
    n_values = n * len(kinds) * trouble
    for _ in range(int(n_values) + (random.random() < n_values % 1) if n else 0):
        column = random.choice(kinds)
        rows[column.name][random.randrange(n)] = random.choice(EDGES[column.avro_type])
    return rows


def make_tables(random: Random, troubles: tuple[float, ...] = (0.0, 0.005, 0.02, 0.5)) -> bytes:
    """Catalogs of one small visit-detector: sources of a few objects, matches, history."""
    trouble = random.choice(troubles)
    counts = {name: random.randrange(4) for name in DTYPES} | {"diaSource": random.randrange(1, 4)}
    rows = {name: hostile_rows(name, n, random, trouble) for name, n in counts.items()}
    sources = rows["diaSource"]
    if random.random() < 0.9:
        sources["diaSourceId"] = 1000 + np.arange(sources.size)
        sources["midpointMjdTai"] = MIDPOINT
        sources["x"], sources["y"] = 20 + 3 * np.arange(sources.size), 15.5
        rows["ssSource"]["diaSourceId"] = 1000 + np.arange(rows["ssSource"].size)
        rows["ssSource"]["designation"] = rows["mpc_orbits"]["designation"] = "2026 AB1"
    if random.random() < 0.8:
        sources["diaObjectId"] = [random.choice((*OBJECTS, NULL_LONG)) for _ in sources]
        for name in ("previous", "diaForcedSource"):
            rows[name]["diaObjectId"] = [random.choice(OBJECTS) for _ in rows[name]]
            rows[name]["midpointMjdTai"] = [MIDPOINT - random.choice((-1, 0, 1, 20, 365, 366)) for _ in rows[name]]
            rows[name]["timeWithdrawnMjdTai"] = [random.choice((np.nan, np.nan, 1.0)) for _ in rows[name]]
    return pack_tables(rows, random.randrange(256))


def meaning(column: Column, value: Any) -> tuple[Any, bool]:
    """What fastavro must read for a value, and whether the row may be written with it."""
    kind = column.avro_type
    if kind in ("float", "double"):
        is_known = isfinite(value)
    elif kind == "boolean":
        is_known, value = value in (0, 1), bool(value)
    elif kind == "timestamp-micros":
        is_known = -62135596800_000000 <= value <= 253402300799_999999  # the years 1 to 9999
        value = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=value) if is_known else None
    elif kind == "string":
        is_known = not any(0xD800 <= ord(c) <= 0xDFFF for c in value) and (value != "" or not column.is_nullable)
        if value == "" and column.is_nullable:
            return None, True
        return (value, True) if is_known else (None, False)
    else:
        is_known = value != (NULL_LONG if kind == "long" else NULL_INT)
    if not is_known:
        return None, column.is_nullable
    return value, True


@cache
def columns(table: str) -> tuple[Column, ...]:
    """Columns of a table of :data:`DTYPES`."""
    return TABLES["diaSource" if table == "previous" else table]


def meanings(table: str, row: Any) -> tuple[dict[str, Any], str]:
    """The record of a row; the first column that keeps it off the wire, or nothing."""
    record = {}
    for column, value in zip(columns(table), row.item(), strict=True):
        record[column.name], is_fit = meaning(column, value)
        if not is_fit:
            return {}, column.name
    return record, ""
