"""Ids of alert files: those of the alerts, from whole files only."""

import io
from pathlib import Path

import fastavro
import numpy as np
import pytest

from alerts import files
from alerts.codec import FRAME, decode_alert, encode_alert
from alerts.files import read_alerts, read_ids, write_alerts
from alerts.packet import AlertContext, build_alerts
from alerts.schema import SCHEMA_ID, alert_schema
from core.errors import RejectedInputError
from tests.unit.alerts.test_packet import WCS, make_history, make_result, past_of

IDS = [7, -1, 1 << 62, 300, 5, 6]


@pytest.fixture
def alerts() -> list[bytes]:
    result, history = make_result([5]), make_history([5], per_object=4)
    ((_, alert),) = build_alerts(result, past_of(history), AlertContext(wcs=WCS))
    record = decode_alert(alert)
    source = record["diaSource"]
    return [
        encode_alert(record | {"diaSourceId": number, "diaSource": source | {"diaSourceId": number}}) for number in IDS
    ]


@pytest.mark.parametrize("block_bytes", [1, 3000, 1 << 22])
def test_ids_are_those_of_the_alerts(
    tmp_path: Path, alerts: list[bytes], block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_BLOCK_BYTES", block_bytes)
    path = tmp_path / "alerts.avro"
    assert write_alerts(path, alerts) == len(alerts)
    assert read_ids(path).tolist() == IDS
    assert list(read_alerts(path)) == [decode_alert(alert) for alert in alerts]
    write_alerts(path, [])
    assert read_ids(path).size == 0


def test_the_id_is_the_first_field_of_an_alert() -> None:
    assert alert_schema()["fields"][0]["name"] == "diaSourceId"


def test_a_file_without_an_index_is_decoded(tmp_path: Path, alerts: list[bytes]) -> None:
    path = tmp_path / "other.avro"
    with path.open("wb") as file:
        fastavro.writer(file, alert_schema(), [decode_alert(alert) for alert in alerts])
    assert read_ids(path).tolist() == IDS


def test_alerts_of_the_minor_version_before_are_filed_with_their_schema(tmp_path: Path, alerts: list[bytes]) -> None:
    older = SCHEMA_ID - 1
    framed = []
    for alert in alerts:
        plain = io.BytesIO()
        fastavro.schemaless_writer(plain, alert_schema(older), decode_alert(alert))
        framed.append(FRAME.pack(0, older) + plain.getvalue())
    path = tmp_path / "older.avro"
    assert write_alerts(path, framed) == len(alerts)
    with path.open("rb") as file:
        reader = fastavro.reader(file)
        assert reader.writer_schema["name"] == "lsst.v11_0.alert"  # type: ignore[index, call-overload]
        assert [record["diaSourceId"] for record in reader] == IDS  # type: ignore[index, call-overload]
    assert [record["diaSourceId"] for record in read_alerts(path)] == IDS
    assert read_ids(path).tolist() == IDS
    with pytest.raises(RejectedInputError, match="several schemas"):
        write_alerts(tmp_path / "both.avro", [*framed, *alerts])
    with pytest.raises(RejectedInputError, match="schemas"):
        write_alerts(tmp_path / "later.avro", [FRAME.pack(0, SCHEMA_ID + 1) + alerts[0][FRAME.size :]])


def test_no_byte_of_an_alert_may_change_and_none_be_missing(tmp_path: Path, alerts: list[bytes]) -> None:
    path = tmp_path / "alerts.avro"
    write_alerts(path, alerts)
    whole = path.read_bytes()
    body = whole.index(alerts[0][FRAME.size :])
    rng = np.random.default_rng(1)
    places = rng.integers(body, len(whole), 200)
    for place in places.tolist():
        spoiled = bytearray(whole)
        spoiled[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(spoiled)
        with pytest.raises(RejectedInputError):
            read_ids(path)
    for end in rng.integers(0, len(whole), 100).tolist():
        path.write_bytes(whole[:end])
        with pytest.raises(RejectedInputError):
            read_ids(path)
    path.write_bytes(whole + b"x")
    with pytest.raises(RejectedInputError):
        read_ids(path)


@pytest.mark.parametrize("size", [b"0", b"1", b"-1", b"99999", b"9" * 5, b"x"])
def test_lengths_that_cannot_be_are_refused(tmp_path: Path, alerts: list[bytes], size: bytes) -> None:
    path = tmp_path / "alerts.avro"
    write_alerts(path, alerts)
    whole = path.read_bytes()
    length = b" %d" % (len(alerts[0]) - FRAME.size)
    assert length in whole
    path.write_bytes(whole.replace(length, b" " + size, 1))
    with pytest.raises(RejectedInputError):
        read_ids(path)
