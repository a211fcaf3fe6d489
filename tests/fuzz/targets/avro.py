"""Catalogs to alerts and alert bytes to records.

The first byte says what an input is: ``c`` catalogs, ``f`` a framed alert, ``r`` a record (msgpack),
``o`` an alert file.
"""

import io
import zlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any, Final

import fastavro
import msgpack
import numpy as np
from astropy import wcs as astropy_wcs
from astropy.io import fits

from alerts.check import check_alert
from alerts.codec import FRAME_BYTES, decode_alert, encode_alert, zigzag
from alerts.files import read_alerts, write_alerts
from alerts.packet import AlertContext, AlertFailure, build_alerts
from alerts.schema import NAMESPACE, schema_folder
from core.contracts.bundle import History
from core.contracts.catalogs import NULL_LONG, Catalog, empty_catalog
from core.contracts.exposure import VisitInfo
from core.contracts.results import Cutouts, DetectorResult
from core.contracts.wcs import Wcs
from core.errors import Outcome, RejectedInputError
from core.stages.past import Past
from tests.fuzz.hostile_catalogs import DTYPES, Tables, make_tables, meanings, unpack_tables
from tests.fuzz.mutate import spoil_bytes, spoil_object
from tests.fuzz.target import ACCEPTED, Target

WCS: Final = Wcs(crpix=np.array([250.0, 240.0]), crval=np.array([53.1, -27.8]), cd=np.array([[0, 5.6e-5], [5.6e-5, 0]]))
HUGE: Final = (*(zigzag(n) for n in (-1, -(2**63), 2**62, 2**40, 2**31, 10**6, -(10**6))), b"\xff" * 12)


class Avro(Target):
    """An alert that fastavro reads with the catalogs' values, or a recorded failure."""

    def __init__(self, scratch: Path) -> None:
        self._path = scratch / "alerts.avro"
        self._schema = fastavro.schema.load_schema(schema_folder() / f"{NAMESPACE}.alert.avsc")
        self._seeds: list[bytes] = []
        random = Random(1)
        while len(self._seeds) < 24:
            self._seeds += [alert for _, alert in build(unpack_tables(make_tables(random, (0.0,))), [])]
        self._records = [msgpack.packb(decode_alert(seed), default=_to_wire) for seed in self._seeds]
        write_alerts(self._path, self._seeds[:3])
        self._file = self._path.read_bytes()
        self._checks: dict[bytes, Callable[[bytes], str]] = {
            b"c": self._check_catalogs, b"f": self._check_frame, b"r": self._check_record, b"o": self._check_file,
        }  # fmt: skip

    def make(self, random: Random) -> bytes:
        """Catalogs, or something broken."""
        kind = random.choices(b"cfro", (35, 45, 18, 2))[0]
        head = bytes([kind])
        if kind == ord("c"):
            data = make_tables(random)
            return head + (spoil_bytes(data, random) if random.random() < 0.2 else data)
        if kind == ord("r"):
            record = msgpack.unpackb(random.choice(self._records), ext_hook=_from_wire)
            for _ in range(random.choice((0, 1, 1, 2))):
                record = spoil_object(record, random)
            try:
                return head + msgpack.packb(record, default=_to_wire, unicode_errors="surrogatepass")
            except (ValueError, TypeError):
                return head + random.choice(self._records)
        data = random.choice(self._seeds) if kind == ord("f") else self._file
        for _ in range(random.choice((0, 1, 1, 2, 5))):
            at = random.randrange(len(data) + 1)
            is_length = random.random() < 0.3
            data = data[:at] + random.choice(HUGE) + data[at + 1 :] if is_length else spoil_bytes(data, random)
        return head + (FRAME_BYTES + data[5:] if kind == ord("f") and random.random() < 0.9 else data)

    def check(self, data: bytes) -> str:
        """See the module."""
        return self._checks.get(data[:1], self._check_frame)(data[1:])

    def _check_frame(self, data: bytes) -> str:
        try:
            record = decode_alert(data)
        except RejectedInputError as error:
            return error.code
        return self._check_encoding(record)

    def _check_record(self, data: bytes) -> str:
        try:
            record = msgpack.unpackb(data, ext_hook=_from_wire, unicode_errors="surrogatepass", strict_map_key=False)
        except (ValueError, msgpack.UnpackException):
            return "no_input"
        return self._check_encoding(record) if isinstance(record, dict) else "no_input"

    def _check_encoding(self, record: dict[str, Any]) -> str:
        """What the check lets pass can be written and read again, twice alike."""
        try:
            data = encode_alert(record)
        except RejectedInputError as error:
            return error.code
        again = decode_alert(data)
        check_alert(again)
        assert encode_alert(again) == data, "an alert that was read is written in another way"
        return ACCEPTED

    def _check_file(self, data: bytes) -> str:
        self._path.write_bytes(data)
        try:
            records = list(read_alerts(self._path))
        except RejectedInputError as error:
            return error.code
        assert all(isinstance(record, dict) for record in records)
        return ACCEPTED

    def _check_catalogs(self, data: bytes) -> str:
        tables, failures = unpack_tables(data), list[AlertFailure]()
        built = build(tables, failures)
        sources = tables.rows["diaSource"]
        told = {(failure.dia_source_id, failure.column) for failure in failures}
        alerts = iter(built)
        for i, source in enumerate(sources):
            if source["reliability"] < 0:  # below the context's least one: kept, not sent
                continue
            number = int(source["diaSourceId"])
            expected, problem = meanings("diaSource", source)
            if problem:
                assert (number, f"diaSource.{problem}") in told, f"nobody said that {problem} keeps an alert back"
                continue
            if (number, "diaSource.x") in told and tables.choices % 4 == 0 and is_far(source):
                continue
            found, alert = next(alerts)
            assert found == number
            self._compare(alert, {"diaSource": expected} | self._others(tables, i, told), tables)
        assert next(alerts, None) is None, "more alerts than sources"
        if zlib.crc32(data) % 32 == 0:
            self._check_written([alert for _, alert in built])
        return "alert_failure" if failures else ACCEPTED

    def _others(self, tables: Tables, i: int, told: set[tuple[int, str]]) -> dict[str, Any]:
        """Object, match, orbit and history that belong to source ``i``."""
        rows, source = tables.rows, tables.rows["diaSource"][i]
        number = int(source["diaSourceId"])
        match = next(
            (k for k in reversed(range(rows["ssSource"].size)) if rows["ssSource"]["diaSourceId"][k] == number), -1
        )
        index = {"diaObject": i if i < rows["diaObject"].size else -1, "ssSource": match, "mpc_orbits": -1}
        name = str(rows["ssSource"]["designation"][match]) if match >= 0 else ""
        orbits = [k for k, orbit in enumerate(rows["mpc_orbits"]["designation"]) if name and str(orbit) == name]
        index["mpc_orbits"] = orbits[-1] if orbits else -1
        expected: dict[str, Any] = {}
        for table, k in index.items():
            record, problem = meanings(table, rows[table][k]) if k >= 0 else (None, "")
            assert not problem or (number, f"{table}.{problem}") in told, f"nobody said that {problem} is bad"
            expected[table] = None if problem else record
        midpoint = float(rows["diaSource"]["midpointMjdTai"].max())
        expected["prvDiaSources"] = earlier("previous", rows["previous"], source, midpoint)
        expected["prvDiaForcedSources"] = earlier("diaForcedSource", rows["diaForcedSource"], source, midpoint)
        return expected

    def _compare(self, alert: bytes, expected: dict[str, Any], tables: Tables) -> None:
        assert alert[:5] == FRAME_BYTES
        body = io.BytesIO(alert[5:])
        record: Any = fastavro.schemaless_reader(body, self._schema, None)
        assert body.tell() == len(alert) - 5, "bytes behind the alert"
        check_alert(record)
        for name, value in expected.items():
            assert record[name] == value, f"{name} is not what the catalog says: {different(record[name], value)}"
        for name in ("cutoutDifference", "cutoutScience", "cutoutTemplate"):
            content = record[name]
            if content is not None:
                header = content[:2880]
                assert b"NAN" not in header, "a cutout's header has a NaN"
                assert b"INF" not in header, "a cutout's header has an infinity"
        if record["cutoutDifference"] is not None and zlib.crc32(alert) % 16 == 0:
            with fits.open(io.BytesIO(record["cutoutDifference"])) as hdus:
                hdus.verify("exception")
                astropy_wcs.WCS(hdus[0].header)

    def _check_written(self, alerts: list[bytes]) -> None:
        assert write_alerts(self._path, alerts) == len(alerts)
        assert list(read_alerts(self._path)) == [decode_alert(alert) for alert in alerts]


def is_far(source: Any) -> bool:
    """Whether a position is so far out that a cutout can have no WCS there."""
    return bool(abs(source["x"]) > 1e6 or abs(source["y"]) > 1e6)


def different(found: Any, expected: Any) -> str:
    """The first column that differs."""
    if not isinstance(found, dict) or not isinstance(expected, dict):
        return f"{found!r:.40} for {expected!r:.40}"
    return next(
        (f"{k} {found[k]!r:.40} for {expected.get(k)!r:.40}" for k in found if found[k] != expected.get(k)), "?"
    )


def earlier(table: str, rows: Catalog, source: Any, midpoint: float) -> list[dict[str, Any]] | None:
    """Rows of a source's object in the year before the visit, not withdrawn, that can be written."""
    found = [] if source["diaObjectId"] == NULL_LONG else [r for r in rows if r["diaObjectId"] == source["diaObjectId"]]
    found = [
        r for r in found if midpoint - 365 <= r["midpointMjdTai"] < midpoint and np.isnan(r["timeWithdrawnMjdTai"])
    ]
    records = [record for record, problem in (meanings(table, r) for r in found) if not problem]
    return records or None


def build(tables: Tables, failures: list[AlertFailure]) -> list[tuple[int, bytes]]:
    """Alerts of the catalogs, with cutouts now and then; history in the order that its contract asks for."""
    rows = tables.rows
    for name in ("previous", "diaForcedSource"):
        rows[name][:] = rows[name][np.lexsort((rows[name]["midpointMjdTai"], rows[name]["diaObjectId"]))]
    n, n_objects = rows["diaSource"].size, rows["diaObject"].size
    if np.unique(rows["diaSource"]["diaSourceId"]).size < n:  # two sources never have one id
        rows["diaSource"]["diaSourceId"] = 1000 + np.arange(n)
    history = History(
        dia_objects=empty_catalog(DTYPES["diaObject"], 0),
        dia_sources=rows["previous"],
        dia_forced_sources=rows["diaForcedSource"],
    )
    result = DetectorResult(
        outcome=Outcome.ALERTS, dia_sources=rows["diaSource"], dia_objects=rows["diaObject"],
        dia_forced_sources=empty_catalog(DTYPES["diaForcedSource"], 0), ss_sources=rows["ssSource"],
        object_index=np.where(np.arange(n) < n_objects, np.arange(n), -1), counts={}, summary={}, timings=(),
        cutouts=small_cutouts(n, tables.choices) if tables.choices % 4 == 0 else None,
    )  # fmt: skip
    return build_alerts(
        result,
        Past.of(history, visit_of(rows["diaSource"])),
        AlertContext(wcs=WCS, mpc_orbits=rows["mpc_orbits"]),
        failures,
    )


def visit_of(sources: Catalog) -> VisitInfo:
    """A visit of the sources' time, and of a number that no row has."""
    midpoint = float(sources["midpointMjdTai"].max()) if sources.size else 0.0
    return VisitInfo(
        instrument="t", group="g", visit=-(1 << 62), detector=0, band="r", exposure_start_mjd_tai=midpoint,
        exposure_end_mjd_tai=midpoint, exposure_time_s=30.0, ra_deg=0.0, dec_deg=0.0, rot_sky_deg=0.0,
    )  # fmt: skip


def small_cutouts(n: int, seed: int) -> Cutouts:
    """Stamps of a few pixels, some of them not finite."""
    rng = np.random.default_rng(seed)
    stamp = rng.normal(size=(5, 6)).astype(np.float32)
    stamp[0, 0], stamp[1, 1] = np.nan, np.inf
    stamps = [(stamp, np.abs(stamp))] * n
    psf = np.full((3, 3), 1 / 9, np.float32)
    at = np.arange(n, dtype=np.int32)
    return Cutouts(
        x0=at, y0=at, difference=stamps, science=stamps, template=stamps,
        difference_psf=psf, science_psf=psf, template_psf=psf,
    )  # fmt: skip


def _to_wire(value: Any) -> msgpack.ExtType:
    if isinstance(value, datetime):
        return msgpack.ExtType(1, value.isoformat().encode())
    if isinstance(value, int):
        return msgpack.ExtType(2, str(value).encode())
    raise TypeError(type(value).__name__)


def _from_wire(code: int, data: bytes) -> Any:
    return datetime.fromisoformat(data.decode()) if code == 1 else int(data)
