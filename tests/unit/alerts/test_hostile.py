"""Values at the edge of their types: kept off the wire, or refused, never half written."""

import io
from pathlib import Path

import fastavro
import numpy as np
import pytest

from alerts.check import check_alert
from alerts.codec import FRAME, decode_alert, encode_alert, zigzag
from alerts.files import read_alerts, write_alerts
from alerts.packet import AlertContext, AlertFailure, build_alerts
from alerts.rows import encode_catalog
from core.contracts.catalogs import MPC_ORBITS, empty_catalog
from core.errors import RejectedInputError
from tests.unit.alerts.records import record_schema
from tests.unit.alerts.test_packet import WCS, make_history, make_result, past_of

YEAR_10000_MICROS = 253_402_300_800_000_000


def orbits(**values: object) -> np.ndarray:
    rows = empty_catalog(MPC_ORBITS, 1)
    for name in rows.dtype.names:
        if rows.dtype[name].kind == "U":
            rows[name] = "x"
    for name, value in values.items():
        rows[name] = value
    return rows


@pytest.mark.parametrize(
    ("micros", "year"),
    [
        (YEAR_10000_MICROS - 1, 9999),
        (-62_135_596_800_000_000, 1),
        (YEAR_10000_MICROS, None),
        (-62_135_596_800_000_001, None),
        (2**62, None),
    ],
)
def test_a_time_that_no_reader_can_make_is_null(micros: int, year: int | None) -> None:
    row = encode_catalog("mpc_orbits", orbits(created_at=micros)).row(0)
    assert row is not None
    read = fastavro.schemaless_reader(io.BytesIO(bytes(row)), record_schema("mpc_orbits"), None)
    assert isinstance(read, dict)
    assert (read["created_at"] and read["created_at"].year) == year


def test_a_source_too_far_out_for_a_wcs_is_a_failure_and_the_others_are_sent() -> None:
    result, history = make_result([5, 6, 7]), make_history([5], per_object=3)
    result.dia_sources["x"][1] = 3e38
    failures: list[AlertFailure] = []
    alerts = build_alerts(result, past_of(history), AlertContext(wcs=WCS), failures)
    assert [number for number, _ in alerts] == [1000, 1002]
    assert failures == [AlertFailure(dia_source_id=1001, column="diaSource.x")]


def test_the_check_refuses_what_the_wire_cannot_hold() -> None:
    result, history = make_result([5]), make_history([5], per_object=3)
    ((_, data),) = build_alerts(result, past_of(history), AlertContext(wcs=WCS))
    for column, value in (("snr", 1e300), ("snr", 3.4028236e38), ("band", "\ud800")):
        record = decode_alert(data)
        record["diaSource"][column] = value
        with pytest.raises(RejectedInputError, match=column):
            check_alert(record)
    record = decode_alert(data)
    record["diaSource"]["snr"] = 3.4028234663852886e38
    assert decode_alert(encode_alert(record))["diaSource"]["snr"] == 3.4028234663852886e38


def test_a_time_out_of_range_in_a_packet_is_rejected() -> None:
    result, history = make_result([0]), make_history([5], per_object=3)
    known = orbits(designation=result.ss_sources["designation"][0])
    known["created_at"] = known["updated_at"] = 1_700_000_000_000_000
    ((_, data),) = build_alerts(result, past_of(history), AlertContext(wcs=WCS, mpc_orbits=known))
    assert decode_alert(data)["mpc_orbits"] is not None
    body = data[FRAME.size :]
    spoiled = body.replace(zigzag(1_700_000_000_000_000), zigzag(2**62))
    assert spoiled != body
    with pytest.raises(RejectedInputError):
        decode_alert(data[: FRAME.size] + spoiled)


def test_a_file_that_is_cut_or_of_another_schema_is_rejected(tmp_path: Path) -> None:
    result, history = make_result([5, 6]), make_history([5], per_object=3)
    path = tmp_path / "alerts.avro"
    write_alerts(path, [data for _, data in build_alerts(result, past_of(history), AlertContext(wcs=WCS))])
    whole = path.read_bytes()
    for spoiled in (whole[:-40], whole[:100], b"", whole.replace(b'"name"', b'"nane"', 1)):
        path.write_bytes(spoiled)
        with pytest.raises(RejectedInputError):
            list(read_alerts(path))
