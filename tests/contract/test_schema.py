"""The alert schema we send by is the published one, and the package's own tools read what we write."""

import io
import json
from pathlib import Path

import fastavro
import numpy as np
import pytest
from lsst.alert.packet import Schema

from alerts.check import check_alert
from alerts.codec import decode_alert, encode_alert
from alerts.packet import AlertContext, build_alerts
from alerts.schema import NAMESPACE, SCHEMA_ID, alert_schema, schema_folder, schema_json
from core.contracts.wcs import Wcs
from core.errors import RejectedInputError
from tests.unit.alerts.test_packet import make_history, make_result, past_of

WCS = Wcs(crpix=np.zeros(2), crval=np.array([10.0, 20.0]), cd=np.eye(2) * 5e-5)


def test_the_schemas_name_fields_and_id_are_the_published_ones() -> None:
    schema = alert_schema()
    assert schema["name"] == f"{NAMESPACE}.alert"
    published = json.loads((schema_folder() / f"{NAMESPACE}.alert.avsc").read_text())
    assert [field["name"] for field in schema["fields"]] == [field["name"] for field in published["fields"]]
    source = json.loads((schema_folder() / f"{NAMESPACE}.diaSource.avsc").read_text())
    assert source["confluent:version"] == SCHEMA_ID


def test_the_packages_own_reader_decodes_our_alerts() -> None:
    result, history = make_result([5, 0]), make_history([5], per_object=4)
    schema = Schema.from_file(str(schema_folder() / f"{NAMESPACE}.alert.avsc"))
    for _, data in build_alerts(result, past_of(history), AlertContext(wcs=WCS)):
        assert schema.deserialize(data[5:]) == decode_alert(data)


def test_the_published_sample_goes_through_our_codec() -> None:
    samples = sorted((schema_folder() / "sample_data").glob("*.avro"))
    if not samples:
        pytest.skip("the installed lsst-alert-packet has no sample alerts")
    for path in samples:
        with Path(path).open("rb") as file:
            for record in fastavro.reader(file):
                assert isinstance(record, dict)
                try:
                    check_alert(record)
                except RejectedInputError:
                    continue  # The package's samples hold NaN, which this house does not send.
                assert decode_alert(encode_alert(record)) == record


def test_a_reader_with_only_the_json_decodes_an_alert() -> None:
    result, history = make_result([5]), make_history([5], per_object=4)
    data = build_alerts(result, past_of(history), AlertContext(wcs=WCS))[0][1]
    schema = fastavro.parse_schema(json.loads(schema_json()))
    record = fastavro.schemaless_reader(io.BytesIO(data[5:]), schema, None)
    assert record == decode_alert(data)
