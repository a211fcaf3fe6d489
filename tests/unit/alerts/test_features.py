"""Companion records: read by fastavro they are the rows they came from, byte for byte its own encoding."""

import io

import fastavro
import numpy as np
import pytest

from alerts.features import FRAME, SCHEMA_ID, decode_features, encode_features, features_schema
from core.contracts.catalogs import LIGHT_CURVE_FEATURES, OWN_TABLES, empty_catalog
from core.errors import RejectedInputError


def make_rows(n: int) -> "np.ndarray[tuple[int], np.dtype[np.void]]":
    """Every third value of a nullable column null."""
    rng = np.random.default_rng(n)
    rows = empty_catalog(LIGHT_CURVE_FEATURES, n)
    for column in OWN_TABLES["lightCurveFeatures"]:
        values = rng.integers(0, 2**31, n) if column.avro_type in ("long", "int") else rng.normal(0, 1e3, n)
        keep = rng.random(n) < (0.67 if column.is_nullable else 1.1)
        rows[column.name][keep] = values[keep]
    return rows


def test_records_equal_fastavros_encoding_of_the_rows() -> None:
    rows = make_rows(20)
    for row, (number, data) in zip(rows, encode_features(rows), strict=True):
        wanted = {name: row[name].item() for name in rows.dtype.names or ()}
        wanted = {name: None if value != value else value for name, value in wanted.items()}
        assert decode_features(data) == wanted
        assert number == wanted["diaObjectId"]
        body = io.BytesIO()
        fastavro.schemaless_writer(body, features_schema(), wanted, strict=True)
        assert data == FRAME.pack(0, SCHEMA_ID) + body.getvalue()


def test_a_row_that_breaks_the_schema_is_left_out() -> None:
    rows = make_rows(3)
    rows["ra"][1] = np.nan
    assert [number for number, _ in encode_features(rows)] == rows["diaObjectId"][[0, 2]].tolist()


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda data: b"\1" + data[1:], "bad_features_frame"),
        (lambda data: data[:-1], "bad_features"),
        (lambda data: data + b"\0", "bad_features"),
    ],
)
def test_what_is_no_record_is_refused(spoil, code: str) -> None:  # type: ignore[no-untyped-def]
    ((_, data),) = encode_features(make_rows(1))
    with pytest.raises(RejectedInputError) as refused:
        decode_features(spoil(data))
    assert refused.value.code == code
