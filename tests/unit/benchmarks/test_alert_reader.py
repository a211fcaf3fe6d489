"""The independent reader finds what is lost, repeated or broken."""

import io
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest

from alerts.codec import encode_alert
from alerts.schema import alert_schema
from benchmarks.alert_reader import AlertSpool, AlertTally, read_spool
from core.contracts.catalogs import DIA_SOURCE, TABLES
from core.errors import Outcome
from service.records import Manifest
from service.roles.commit_records import id_digest
from tests.unit.alerts import records as samples

VISIT = 2026112000001


class Fixed:
    """A source that gives what it was given, once."""

    def __init__(self, values: list[bytes]) -> None:
        self._values = values

    def read(self, timeout_s: float) -> list[bytes]:
        values, self._values = self._values, []
        if not values:
            time.sleep(0.001)
        return values

    def close(self) -> None:
        pass


def alert(dia_source_id: int, detector: int = 2) -> dict[str, Any]:
    row = samples.random_catalog("diaSource", DIA_SOURCE, 1, seed=dia_source_id, null_share=0.0)[0]
    source = samples.plain_record("diaSource", row)
    source |= {"diaSourceId": dia_source_id, "visit": VISIT, "detector": detector, "raErr": None, "apFlux": None}
    empty = {field["name"]: None for field in alert_schema()["fields"]}
    cutout = b"SIMPLE  =".ljust(2880)
    return empty | {"diaSourceId": dia_source_id, "diaSource": source, "cutoutScience": cutout}


def manifest(ids: list[int], detector: int = 2) -> Manifest:
    return Manifest(
        instrument="LSSTCam", group="g", visit=VISIT, detector=detector, band="r", outcome=Outcome.ALERTS,
        n_alerts=len(ids), id_digest=id_digest(np.array(ids, np.int64)),
    )  # fmt: skip


def tally(values: list[bytes]) -> AlertTally:
    result = AlertTally()
    for value in values:
        result.add(value)
    return result


def test_a_whole_run_has_nothing_lost_repeated_or_invalid() -> None:
    values = [encode_alert(alert(number)) for number in (11, 12, 13)]
    counts = tally(values).counts([manifest([11, 12, 13])], n_readouts=1)
    assert (counts["published"], counts["consumed"], counts["unique"]) == (3, 3, 3)
    assert (counts["lost"], counts["duplicates"], counts["invalid"], counts["id_digest_mismatches"]) == (0, 0, 0, 0)
    assert counts["bytes_mean"] == pytest.approx(sum(map(len, values)) / 3)


def test_what_is_missing_or_twice_is_counted() -> None:
    values = [encode_alert(alert(number)) for number in (11, 12, 12)]
    counts = tally(values).counts([manifest([11, 12, 13]), manifest([], detector=3)], n_readouts=4)
    assert counts["lost"] == 1 + 2
    assert counts["duplicates"] == 1
    assert counts["id_digest_mismatches"] == 1
    assert tally(values).counts([], n_readouts=1)["unannounced"] == 1


def test_of_a_redriven_detector_the_last_manifest_counts() -> None:
    values = [encode_alert(alert(number)) for number in (11, 12, 13)]
    held = replace(manifest([]), outcome=Outcome.HELD)
    counts = tally(values).counts([held, replace(manifest([11, 12, 13]), redrive=1)], n_readouts=1)
    assert (counts["published"], counts["lost"], counts["id_digest_mismatches"]) == (3, 0, 0)
    assert tally([]).counts([held, replace(manifest([11, 12, 13]), redrive=1)], n_readouts=1)["lost"] == 3


def test_broken_alerts_are_invalid() -> None:
    good = encode_alert(alert(11))
    nan = alert(12)
    nan["diaSource"]["ra"] = float("nan")
    plain = io.BytesIO()
    fastavro.schemaless_writer(plain, alert_schema(), nan)
    no_fits = alert(13) | {"cutoutScience": b"not FITS"}
    values = [
        good[:-3],
        good + b"x",
        b"\x00\x00\x00\x00\x07" + good[5:],
        good[:5] + plain.getvalue(),
        encode_alert(no_fits),
        b"",
        good,
    ]
    result = tally(values)
    assert (result.n_invalid, result.n_consumed, len(result.ids)) == (6, 7, 1)


def test_columns_that_are_mostly_filled_are_listed() -> None:
    columns = tally([encode_alert(alert(number)) for number in range(1, 6)]).columns()
    assert columns["of"] == len(TABLES["diaSource"])
    assert "ra" in columns["names"]
    assert "apFlux" not in columns["names"]
    assert columns["non_null_95"] == len(columns["names"]) <= columns["of"] - 2


def test_the_spool_keeps_every_byte(tmp_path: Path) -> None:
    values = [b"a" * 10, b"", b"bc"]
    spool = AlertSpool(Fixed(values), tmp_path / "alerts.spool")
    spool.close()
    assert list(read_spool(spool.path)) == values
    assert (spool.n_alerts, spool.n_bytes) == (3, 12)
