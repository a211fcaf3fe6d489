"""Packets: decoded by fastavro they are the catalogs they came from, byte for byte fastavro's own encoding."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.check import check_alert
from alerts.codec import FRAME_BYTES, decode_alert, encode_alert
from alerts.files import read_alerts, write_alerts
from alerts.packet import AlertContext, AlertFailure, build_alerts
from alerts.schema import SCHEMA_ID, alert_schema, schema_json
from core.contracts.bundle import History, HistoryIndex
from core.contracts.catalogs import (
    DIA_FORCED_SOURCE,
    DIA_OBJECT,
    DIA_SOURCE,
    MPC_ORBITS,
    NULL_LONG,
    SS_SOURCE,
    Catalog,
    empty_catalog,
)
from core.contracts.exposure import VisitInfo
from core.contracts.results import Cutouts, DetectorResult
from core.contracts.wcs import Wcs
from core.errors import Outcome, RejectedInputError
from core.stages.past import Past
from tests.unit.alerts.records import plain_record, random_catalog

MIDPOINT = 61000.25
WCS = Wcs(crpix=np.array([250.0, 240.0]), crval=np.array([53.1, -27.8]), cd=np.array([[0, 5.6e-5], [5.6e-5, 0]]))


def make_history(objects: list[int], per_object: int) -> History:
    """Rows of some objects: one a day before the visit, the last column of each object too old, one withdrawn."""
    n = len(objects) * per_object
    tables: dict[str, Catalog] = {}
    for table, dtype in (("diaSource", DIA_SOURCE), ("diaForcedSource", DIA_FORCED_SOURCE)):
        rows = random_catalog(table, dtype, n, seed=len(table))
        rows["diaObjectId"] = np.repeat(sorted(objects), per_object)
        days = np.tile(np.concatenate([[400.0], np.arange(per_object - 1, 0, -1.0)]), len(objects))
        rows["midpointMjdTai"] = MIDPOINT - days
        rows["timeWithdrawnMjdTai"] = np.nan
        rows["timeWithdrawnMjdTai"][per_object - 1 :: per_object] = MIDPOINT
        tables[table] = rows
    return History(
        dia_objects=empty_catalog(DIA_OBJECT, 0),
        dia_sources=tables["diaSource"],
        dia_forced_sources=tables["diaForcedSource"],
    )


VISIT = VisitInfo(
    instrument="t", group="g", visit=1, detector=1, band="r", exposure_start_mjd_tai=MIDPOINT - 1e-4,
    exposure_end_mjd_tai=MIDPOINT + 1e-4, exposure_time_s=17.28, ra_deg=53.1, dec_deg=-27.8, rot_sky_deg=0.0,
)  # fmt: skip


def past_of(history: History) -> Past:
    """The history as a visit at the midpoint sees it."""
    return Past.of(history, VISIT)


@given(seed=st.integers(0, 2**32 - 1), fraction=st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_packets_do_not_depend_on_what_is_base_and_what_was_appended(seed: int, fraction: float) -> None:
    """Byte for byte; the appended rows in any order, some of them in the base as well."""
    result, whole = make_result([77, 5, 0, 99, 5], cutouts=False), make_history([5, 77, 99], per_object=6)
    rng = np.random.default_rng(seed)
    base, tail = {}, {}
    for name in ("dia_sources", "dia_forced_sources"):
        rows: Catalog = getattr(whole, name)
        rows[rows.dtype.names[0]] = 1 + np.arange(rows.size)  # type: ignore[index]
        is_appended = rng.random(rows.size) < fraction
        base[name] = rows[~is_appended]
        tail[name] = rng.permutation(rows[is_appended | (rng.random(rows.size) < 0.2)])
    none = whole.dia_objects
    prefetched, appended = History(dia_objects=none, **base), History(dia_objects=none, **tail)
    past = Past(prefetched, HistoryIndex.of(prefetched), appended, VISIT)
    context = AlertContext(wcs=WCS)
    assert build_alerts(result, past, context) == build_alerts(result, past_of(whole), context)


def make_cutouts(n: int, rng: np.random.Generator) -> Cutouts:
    def stamps() -> list[tuple[Any, Any]]:
        sides = [30 + i % 5 for i in range(n)]
        return [(rng.normal(size=(s, s)).astype(np.float32), rng.random((s, s), np.float32)) for s in sides]

    psf = rng.random((3, 11, 11), np.float32)
    psf /= psf.sum(axis=(1, 2), keepdims=True)
    return Cutouts(
        x0=np.arange(n, dtype=np.int32) * 3,
        y0=np.arange(n, dtype=np.int32) * 2,
        difference=stamps(),
        science=stamps(),
        template=stamps(),
        difference_psf=psf[0],
        science_psf=psf[1],
        template_psf=psf[2],
    )


def make_result(object_ids: list[int], cutouts: bool = True) -> DetectorResult:
    """One DIASource an object id; an id of 0 makes it a solar-system match."""
    n = len(object_ids)
    rng = np.random.default_rng(n)
    sources = random_catalog("diaSource", DIA_SOURCE, n, seed=9)
    sources["diaSourceId"] = 1000 + np.arange(n)
    sources["midpointMjdTai"] = MIDPOINT
    sources["x"], sources["y"] = 20 + 3 * np.arange(n), 15.5 + 2 * np.arange(n)
    sources["reliability"] = np.linspace(0.1, 0.9, n)
    ids = np.array(object_ids, np.int64)
    sources["diaObjectId"] = np.where(ids == 0, NULL_LONG, ids)
    objects = random_catalog("diaObject", DIA_OBJECT, int((ids != 0).sum()), seed=4)
    objects["diaObjectId"] = ids[ids != 0]
    matches = random_catalog("ssSource", SS_SOURCE, int((ids == 0).sum()), seed=5)
    matches["diaSourceId"] = sources["diaSourceId"][ids == 0]
    matches["designation"] = [f"2026 AB{i}" for i in range(matches.size)]
    index = np.where(ids == 0, -1, np.cumsum(ids != 0) - 1)
    return DetectorResult(
        outcome=Outcome.ALERTS,
        dia_sources=sources,
        dia_objects=objects,
        dia_forced_sources=empty_catalog(DIA_FORCED_SOURCE, 0),
        ss_sources=matches,
        object_index=index.astype(np.int64),
        cutouts=make_cutouts(n, rng) if cutouts else None,
        counts={},
        summary={},
        timings=(),
    )


def expected_record(result: DetectorResult, history: History, i: int, decoded: dict[str, Any]) -> dict[str, Any]:
    """The record of DIASource ``i`` by plain loops; cutouts as they came."""
    source = result.dia_sources[i]

    def earlier(table: str, rows: Catalog) -> list[dict[str, Any]] | None:
        keep = [
            plain_record(table, row)
            for row in rows
            if row["diaObjectId"] == source["diaObjectId"]
            and MIDPOINT - 365 <= row["midpointMjdTai"] < MIDPOINT
            and np.isnan(row["timeWithdrawnMjdTai"])
        ]
        return keep or None

    index = result.object_index[i]
    matches = [row for row in result.ss_sources if row["diaSourceId"] == source["diaSourceId"]]
    return {
        "diaSourceId": int(source["diaSourceId"]),
        "observation_reason": "science",
        "target_name": None,
        "diaSource": plain_record("diaSource", source),
        "prvDiaSources": earlier("diaSource", history.dia_sources),
        "prvDiaForcedSources": earlier("diaForcedSource", history.dia_forced_sources),
        "diaObject": plain_record("diaObject", result.dia_objects[index]) if index >= 0 else None,
        "ssSource": plain_record("ssSource", matches[0]) if matches else None,
        "mpc_orbits": None,
    } | {key: decoded[key] for key in ("cutoutDifference", "cutoutScience", "cutoutTemplate")}


@pytest.mark.parametrize("with_cutouts", [True, False])
def test_packets_equal_fastavros_encoding_of_the_same_records(with_cutouts: bool) -> None:
    result, history = make_result([77, 5, 0, 99, 5], with_cutouts), make_history([5, 77, 6], per_object=6)
    alerts = build_alerts(result, past_of(history), AlertContext(wcs=WCS, observation_reason="science"))
    assert [i for i, _ in alerts] == [1000, 1001, 1002, 1003, 1004]
    for i, (_, data) in enumerate(alerts):
        decoded = decode_alert(data)
        record = expected_record(result, history, i, decoded)
        assert encode_alert(record) == data
        check_alert(decoded)
        assert (decoded["cutoutScience"] is None) is not with_cutouts
    sizes = [len(decode_alert(data)["prvDiaSources"] or ()) for _, data in alerts]
    assert sizes == [4, 4, 0, 0, 4]


def test_a_match_carries_the_orbit_that_is_known() -> None:
    result = make_result([0, 0], cutouts=False)
    orbits = empty_catalog(MPC_ORBITS, 1)
    orbits["designation"], orbits["id"], orbits["a"] = "2026 AB1", 7, 2.5
    orbits["packed_primary_provisional_designation"] = orbits["unpacked_primary_provisional_designation"] = "K26A01B"
    alerts = build_alerts(result, past_of(make_history([], 1)), AlertContext(wcs=WCS, mpc_orbits=orbits))
    first, second = (decode_alert(data) for _, data in alerts)
    assert first["mpc_orbits"] is None
    assert (second["mpc_orbits"]["id"], second["mpc_orbits"]["a"]) == (7, 2.5)
    assert first["diaObject"] is None
    assert first["ssSource"]["designation"] == "2026 AB0"


def test_a_broken_row_is_reported_and_kept_off_the_wire() -> None:
    result, history = make_result([5, 77], cutouts=False), make_history([5, 77], per_object=4)
    result.dia_sources["ra"][0] = np.nan
    result.dia_objects["dec"][1] = np.inf
    history.dia_sources["x"][5] = np.nan
    failures: list[AlertFailure] = []
    alerts = build_alerts(result, past_of(history), AlertContext(wcs=WCS), failures)
    assert [i for i, _ in alerts] == [1001]
    assert [(f.dia_source_id, f.column) for f in failures] == [(1000, "diaSource.ra"), (1001, "diaObject.dec")]
    record = decode_alert(alerts[0][1])
    assert record["diaObject"] is None
    assert len(record["prvDiaSources"]) == 1
    check_alert(record)


def test_sources_below_the_reliability_are_not_sent() -> None:
    result = make_result([5, 6, 7], cutouts=False)
    result.dia_sources["reliability"] = [0.2, np.nan, 0.8]
    alerts = build_alerts(result, past_of(make_history([], 1)), AlertContext(wcs=WCS, min_reliability=0.5))
    assert [i for i, _ in alerts] == [1001, 1002]


def test_no_sources_no_alerts() -> None:
    assert build_alerts(make_result([], cutouts=False), past_of(make_history([], 1)), AlertContext(wcs=WCS)) == []


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    result, history = make_result([5]), make_history([5], per_object=4)
    return decode_alert(build_alerts(result, past_of(history), AlertContext(wcs=WCS))[0][1])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("diaSource", "snr"), np.nan),
        (("diaSource", "ra"), None),
        (("diaSource", "ra"), 1),
        (("diaSource", "detector"), 2**31),
        (("diaSource", "visit"), 1.0),
        (("diaSource", "visit"), True),
        (("diaSource", "isNegative"), 1),
        (("diaSource", "band"), b"r"),
        (("diaSource", "extra"), 1),
        (("prvDiaSources", 0, "psfFlux"), np.inf),
        (("prvDiaForcedSources",), {}),
        (("diaObject", "nDiaSources"), None),
        (("diaObject",), []),
        (("cutoutScience",), "bytes"),
        (("diaSourceId",), 3),
        (("surprise",), None),
    ],
)
def test_the_check_refuses_what_breaks_the_schema(record: dict[str, Any], path: tuple[Any, ...], value: Any) -> None:
    def replaced(node: Any, rest: tuple[Any, ...]) -> Any:
        if not rest:
            return value
        if isinstance(node, list):
            return [replaced(node[0], rest[1:]), *node[1:]]
        return node | {rest[0]: replaced(node.get(rest[0]), rest[1:])}

    check_alert(record)
    with pytest.raises(RejectedInputError):
        check_alert(replaced(record, path))


@pytest.mark.parametrize("key", ["diaObject", "cutoutTemplate", "target_name"])
def test_the_check_refuses_a_missing_key(record: dict[str, Any], key: str) -> None:
    with pytest.raises(RejectedInputError, match=key):
        check_alert({k: v for k, v in record.items() if k != key})


def test_garbled_packets_are_rejected(record: dict[str, Any]) -> None:
    data = encode_alert(record)
    assert data[:5] == FRAME_BYTES == b"\x00" + (1101).to_bytes(4, "big")
    for bad in (b"", data[:3], b"\x01" + data[1:], data[:-1], data + b"\x00", data[:400]):
        with pytest.raises(RejectedInputError):
            decode_alert(bad)


def test_alert_files_are_read_by_fastavro(tmp_path: Path) -> None:
    result, history = make_result([5, 6, 0]), make_history([5, 6], per_object=4)
    alerts = [data for _, data in build_alerts(result, past_of(history), AlertContext(wcs=WCS))]
    path = tmp_path / "alerts.avro"
    assert write_alerts(path, alerts) == 3
    first = path.read_bytes()
    with path.open("rb") as file:
        records = list(fastavro.reader(file))
    assert records == [decode_alert(data) for data in alerts] == list(read_alerts(path))
    write_alerts(path, alerts)
    assert path.read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == ["alerts.avro"]
    assert write_alerts(tmp_path / "none.avro", []) == 0
    assert list(read_alerts(tmp_path / "none.avro")) == []


def test_the_published_schema_is_complete_json() -> None:
    schema = fastavro.parse_schema(json.loads(schema_json()))
    assert isinstance(schema, dict)
    assert schema["name"] == alert_schema()["name"]
    assert SCHEMA_ID == 1101


@pytest.mark.parametrize("seed", ["0", "1", "2", "3"])
def test_the_schemas_text_is_the_same_in_every_process(seed: str) -> None:
    """A file's header is compared byte by byte with what another process would write."""
    script = "from alerts.schema import schema_json; print(schema_json())"
    environment = dict(os.environ) | {"PYTHONHASHSEED": seed}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == schema_json()
