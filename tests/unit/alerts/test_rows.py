"""The row kernel against fastavro."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.codec import zigzag
from alerts.rows import encode_catalog
from core.contracts.catalogs import (
    DIA_FORCED_SOURCE,
    DIA_OBJECT,
    DIA_SOURCE,
    MPC_ORBITS,
    NULL_LONG,
    SS_SOURCE,
    TABLES,
    empty_catalog,
)
from tests.unit.alerts.records import plain_record, random_catalog, record_schema, reference_bytes

DTYPES = {
    "diaSource": DIA_SOURCE,
    "diaForcedSource": DIA_FORCED_SOURCE,
    "diaObject": DIA_OBJECT,
    "ssSource": SS_SOURCE,
    "mpc_orbits": MPC_ORBITS,
}


@pytest.mark.parametrize("table", list(TABLES))
def test_rows_equal_fastavros_encoding(table: str) -> None:
    schema = record_schema(table)
    rows = random_catalog(table, DTYPES[table], n=30, seed=3)
    encoded = encode_catalog(table, rows)
    for i, row in enumerate(rows):
        assert bytes(encoded.row(i) or b"") == reference_bytes(schema, plain_record(table, row))


@given(
    seed=st.integers(0, 2**32 - 1),
    band=st.text(max_size=1),
    version=st.text(max_size=16).filter(lambda text: not text.endswith("\0")),
    number=st.integers(-(2**63) + 1, 2**63 - 1),
    real=st.floats(width=32),
)
@settings(max_examples=60, deadline=None)
def test_any_value_encodes_as_fastavro_does(seed: int, band: str, version: str, number: int, real: float) -> None:
    rows = random_catalog("diaSource", DIA_SOURCE, n=2, seed=seed)
    rows["band"], rows["reliabilityVersion"], rows["ssObjectId"], rows["snr"] = band.rstrip("\0"), version, number, real
    encoded = encode_catalog("diaSource", rows)
    schema = record_schema("diaSource")
    for i, row in enumerate(rows):
        assert bytes(encoded.row(i) or b"") == reference_bytes(schema, plain_record("diaSource", row))


@pytest.mark.parametrize(
    ("column", "value"), [("ra", np.nan), ("x", np.inf), ("midpointMjdTai", -np.inf), ("visit", NULL_LONG)]
)
def test_a_row_without_a_required_value_has_no_bytes(column: str, value: float) -> None:
    rows = random_catalog("diaSource", DIA_SOURCE, n=3, seed=1)
    rows[column][1] = value
    encoded = encode_catalog("diaSource", rows)
    assert encoded.row(1) is None
    assert encoded.problem(1) == f"diaSource.{column}"
    count, content = encoded.span(0, 3)
    assert count == 2
    assert bytes(content) == bytes(encoded.row(0) or b"") + bytes(encoded.row(2) or b"")


def test_a_lone_surrogate_has_no_bytes() -> None:
    rows = empty_catalog(MPC_ORBITS, 1)
    rows["designation"] = "\ud800"
    assert encode_catalog("mpc_orbits", rows).row(0) is None


def test_no_rows_are_no_bytes() -> None:
    encoded = encode_catalog("diaSource", empty_catalog(DIA_SOURCE, 0))
    assert encoded.span(0, 0) == (0, b"")


@given(st.integers(-(2**63), 2**63 - 1))
def test_zigzag_equals_fastavro(value: int) -> None:
    assert zigzag(value) == reference_bytes("long", value)  # type: ignore[arg-type]
