"""Our catalogs against the published schemas: lsst-alert-packet 11.1 and the APDB of lsst-sdm-schemas."""

import json
import re
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
import yaml
from astropy import units

from alerts.schema import NAMESPACE, NEVER_MEASURED, schema_folder
from core.contracts.catalogs import (
    DIA_FORCED_SOURCE,
    DIA_OBJECT,
    DIA_SOURCE,
    MPC_ORBITS,
    NULL_BOOL,
    NULL_INT,
    NULL_LONG,
    SS_SOURCE,
    TABLES,
    empty_catalog,
)

DTYPES = {
    "diaSource": DIA_SOURCE,
    "diaForcedSource": DIA_FORCED_SOURCE,
    "diaObject": DIA_OBJECT,
    "ssSource": SS_SOURCE,
    "mpc_orbits": MPC_ORBITS,
}
APDB_TABLES = {
    "diaSource": "DiaSource",
    "diaForcedSource": "DiaForcedSource",
    "diaObject": "DiaObject",
    "ssSource": "SSSource",
    "mpc_orbits": "mpc_orbits",
}
APDB_ONLY = {
    "diaSource": {"ssObjectReassocTimeMjdTai"},
    "diaObject": {"validityEndMjdTai"},
}
"""Columns of the database that alerts do not have."""

NOT_VOUNIT = {f"mpc_orbits.{name}{suffix}" for name in ("srp", "a1", "a2", "a3") for suffix in ("", "_unc")}
"""Published as ``m2.t-1``: neither FITS nor VOUnit knows ``t``. It means square metres per tonne, right for the
area-to-mass ratio ``srp``, wrong for ``a1``-``a3``, which are accelerations (au/d**2)."""

NOT_FITS = NOT_VOUNIT | {"mpc_orbits.yarkovsky", "mpc_orbits.yarkovsky_unc"}
"""``1e-10.au.d-2`` is a VOUnit with a scale; FITS allows only powers of ten in front, written ``10**-10``."""

TIMES_WITHOUT_UNIT = {
    "diaSource.timeProcessedMjdTai",
    "diaSource.timeWithdrawnMjdTai",
    "diaForcedSource.timeProcessedMjdTai",
    "diaForcedSource.timeWithdrawnMjdTai",
    "diaObject.validityStartMjdTai",
    "diaObject.firstDiaSourceMjdTai",
    "diaObject.lastDiaSourceMjdTai",
}
"""Modified Julian Dates published without their unit, days."""


@cache
def published_fields(record: str) -> list[dict[str, Any]]:
    path = schema_folder() / f"{NAMESPACE}.{record}.avsc"
    fields: list[dict[str, Any]] = json.loads(path.read_text())["fields"]
    return fields


@cache
def apdb_columns(table: str) -> dict[str, dict[str, Any]]:
    schema = yaml.safe_load((files("lsst.sdm.schemas") / "apdb.yaml").read_text())
    assert schema["version"] == "10.0.0"
    columns = next(t["columns"] for t in schema["tables"] if t["name"] == APDB_TABLES[table])
    return {column["name"]: column for column in columns}


def avro_type(published: Any) -> tuple[str, bool]:
    """Type and whether nullable, as our tables have them."""
    if isinstance(published, list):
        assert published[0] == "null"
        return avro_type(published[1])[0], True
    if isinstance(published, dict):
        return published.get("logicalType", published["type"]), False
    return published, False


@pytest.mark.parametrize("table", list(TABLES))
def test_names_order_types_and_nulls_are_the_alert_schemas(table: str) -> None:
    ours = [(column.name, column.avro_type, column.is_nullable) for column in TABLES[table]]
    assert ours == [(field["name"], *avro_type(field["type"])) for field in published_fields(table)]


@pytest.mark.parametrize("table", list(TABLES))
def test_a_nullable_field_defaults_to_null_and_no_other_has_a_default(table: str) -> None:
    for field in published_fields(table):
        if isinstance(field["type"], list):
            assert field["default"] is None
        else:
            assert "default" not in field


@pytest.mark.parametrize("table", list(TABLES))
def test_columns_and_units_are_the_apdbs(table: str) -> None:
    columns = apdb_columns(table)
    assert set(columns) - {column.name for column in TABLES[table]} == APDB_ONLY.get(table, set())
    for column in TABLES[table]:
        published = columns[column.name]
        unit = published.get("fits:tunit") or published.get("ivoa:unit") or ""
        assert (column.name, column.unit) == (column.name, unit)
        assert published.get("nullable", True) is column.is_nullable, column.name


@pytest.mark.parametrize("table", ["diaSource", "diaForcedSource", "diaObject"])
def test_the_units_in_the_alert_schemas_texts_are_ours(table: str) -> None:
    """The texts of ssSource name no units, those of mpc_orbits spell them in words."""
    for field, column in zip(published_fields(table), TABLES[table], strict=True):
        found = re.search(r"\[([^\]]*)\]\.?$", field["doc"])
        assert (field["name"], found.group(1) if found else "") == (column.name, column.unit)


@pytest.mark.parametrize(("form", "known"), [("vounit", NOT_VOUNIT), ("fits", NOT_FITS)])
def test_published_units_parse_but_for_the_known_wrong_ones(form: str, known: set[str]) -> None:
    wrong = set()
    for table, columns in TABLES.items():
        for column in columns:
            try:
                units.Unit(column.unit, format=form)
            except ValueError:
                wrong.add(f"{table}.{column.name}")
    assert wrong == known


def test_times_carry_days_but_for_the_known_ones() -> None:
    times = {f"{t}.{c.name}": c.unit for t, columns in TABLES.items() for c in columns if c.name.endswith("MjdTai")}
    assert {name for name, unit in times.items() if unit != "d"} == TIMES_WITHOUT_UNIT


@pytest.mark.parametrize("table", list(TABLES))
def test_a_new_catalog_is_null_wherever_it_may_be(table: str) -> None:
    row = empty_catalog(DTYPES[table], 1)[0]
    for column in TABLES[table]:
        value = row[column.name]
        if not column.is_nullable:
            assert value in (0, "")
        elif column.avro_type in ("float", "double"):
            assert np.isnan(value)
        else:
            nulls = {"long": NULL_LONG, "timestamp-micros": NULL_LONG, "int": NULL_INT, "boolean": NULL_BOOL}
            assert value == nulls.get(column.avro_type, "")


@pytest.mark.parametrize("table", list(TABLES))
def test_numpy_types_hold_the_avro_types_exactly(table: str) -> None:
    exact = {"long": "<i8", "timestamp-micros": "<i8", "int": "<i4", "float": "<f4", "double": "<f8", "boolean": "i1"}
    for column in TABLES[table]:
        dtype = DTYPES[table][column.name]
        assert dtype.kind == "U" if column.avro_type == "string" else dtype == np.dtype(exact[column.avro_type])


def test_columns_said_never_to_be_measured_exist_and_are_nullable() -> None:
    for table, names in NEVER_MEASURED.items():
        nullable = {column.name for column in TABLES[table] if column.is_nullable}
        assert names <= nullable


@pytest.mark.parametrize("table", ["diaSource", "diaForcedSource", "diaObject"])
def test_strings_are_no_longer_than_the_apdb_takes(table: str) -> None:
    """PostgreSQL refuses a whole visit for one character too many; SQLite does not look."""
    lengths = {name: column.get("length") for name, column in apdb_columns(table).items()}
    for name in DTYPES[table].names or ():
        dtype = DTYPES[table][name]
        if dtype.kind == "U" and lengths.get(name):
            assert dtype.itemsize // 4 <= lengths[name], f"{table}.{name}"
