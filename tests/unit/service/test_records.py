"""Records survive the wire; what is not a record is rejected input."""

from dataclasses import asdict

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.contracts.catalogs import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, SS_SOURCE, empty_catalog
from core.errors import Outcome, RejectedInputError
from service.log.contract import CHECKPOINT_FORMAT, CHECKPOINT_FORMATS_READ
from service.records import (
    FORMAT,
    MAX_FORMAT,
    READABLE_FORMATS,
    Manifest,
    Prepare,
    Readout,
    Result,
    UnknownFormatError,
    pack,
    unpack,
    unpack_any,
)
from tests.support.service.builders import prepare, readout


def test_work_round_trip() -> None:
    assert unpack_any(pack(readout())) == readout()
    assert unpack_any(pack(prepare(visit=None))) == prepare(visit=None)


def test_manifest_round_trip() -> None:
    manifest = Manifest(
        instrument="LSSTCam",
        group="g",
        visit=1,
        detector=2,
        band="r",
        outcome=Outcome.NO_TEMPLATE,
        counts={"n_sent": 0},
        timings=(("isr", 0.1, 0.2),),
        bundle=(("template", "cold", "", 0),),
    )
    again = unpack(Manifest, pack(manifest))
    assert again == manifest
    assert isinstance(again.outcome, Outcome)


def test_result_keeps_every_byte_of_its_catalogs() -> None:
    sources = empty_catalog(DIA_SOURCE, 3)
    sources["ra"] = [1.0, 2.0, 3.0]
    sources["band"] = "r"
    result = Result(
        visit=1,
        detector=2,
        band="r",
        outcome=Outcome.ALERTS,
        midpoint_mjd_tai=1.0,
        processed_mjd_tai=2.0,
        dia_sources=sources,
        dia_objects=empty_catalog(DIA_OBJECT, 1),
        dia_forced_sources=empty_catalog(DIA_FORCED_SOURCE, 0),
        ss_sources=empty_catalog(SS_SOURCE, 2),
    )
    again = unpack(Result, pack(result))
    for name in ("dia_sources", "dia_objects", "dia_forced_sources", "ss_sources"):
        ours, theirs = getattr(result, name), getattr(again, name)
        assert theirs.dtype == ours.dtype
        assert theirs.tobytes() == ours.tobytes()


def test_fields_of_a_later_version_are_ignored_and_missing_ones_default() -> None:
    fields = {name: value for name, value in asdict(readout()).items() if name != "digest"} | {"weather": "fine"}
    data = msgpack.packb({"format": 0, "record": "Readout", "fields": fields})
    assert unpack(Readout, data) == readout()


def test_a_later_format_is_refused() -> None:
    with pytest.raises(RejectedInputError):
        unpack_any(msgpack.packb({"format": 2, "record": "Readout", "fields": asdict(readout())}))


def test_another_record_than_asked_for_is_refused() -> None:
    with pytest.raises(RejectedInputError):
        unpack(Prepare, pack(readout()))


@given(st.binary(max_size=200))
def test_garbage_is_rejected_input(data: bytes) -> None:
    with pytest.raises(RejectedInputError):
        unpack_any(data)


def test_unserializable_values_are_a_bug() -> None:
    with pytest.raises(TypeError):
        pack(readout(uri=object()))
    assert unpack(Readout, pack(readout(visit=np.int64(5)))).visit == 5


@pytest.mark.parametrize(
    "description",
    [
        "[(3, '<f8')]",
        "[]",
        "[('a',)]",
        "-" * 100_000 + "1",
        "[" * 1000,
        "[('a', '|O')]",
        "[('a', '<f8'), ('a', '<f8')]",
        7,
    ],
)
def test_an_array_of_no_known_type_is_rejected_input(description: object) -> None:
    message = {"format": 1, "record": "Prepare", "fields": {"group": {"__dtype__": description, "data": bytes(64)}}}
    with pytest.raises(RejectedInputError):
        unpack_any(msgpack.packb(message))


def test_a_release_reads_its_own_format_and_the_previous_one() -> None:
    assert {FORMAT - 1, FORMAT} <= set(READABLE_FORMATS)
    assert {CHECKPOINT_FORMAT - 1, CHECKPOINT_FORMAT} <= set(CHECKPOINT_FORMATS_READ)


@pytest.mark.parametrize("number", [FORMAT - 2 if FORMAT > 1 else FORMAT + 1, FORMAT + 1, FORMAT + 7])
@pytest.mark.parametrize("kind", ["Readout", "Result", "KindOfTheFuture"])
def test_a_record_of_another_release_is_told_from_garbage(number: int, kind: str) -> None:
    with pytest.raises(UnknownFormatError) as caught:
        unpack_any(msgpack.packb({"format": number, "record": kind, "fields": {}}))
    assert caught.value.context == {"format": number, "record": kind}


@pytest.mark.parametrize("number", [-1, MAX_FORMAT + 1, 1.5, True, "1", None, []])
def test_a_format_that_is_no_number_of_ours_is_garbage(number: object) -> None:
    with pytest.raises(RejectedInputError) as caught:
        unpack_any(msgpack.packb({"format": number, "record": "Readout", "fields": {}}))
    assert caught.value.code == "bad_record"
