"""Records on our own topics: plain frozen data, msgpack on the wire, each with a format number.

A reader accepts its own format and the previous one; fields it does not know are ignored, fields that a record of the
previous format lacks take their defaults.
"""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, TypeVar

import msgpack
import numpy as np
from numpy.typing import NDArray

from core.contracts.catalogs import Catalog
from core.errors import Outcome, RejectedInputError

FORMAT: Final = 1
READABLE_FORMATS: Final = (FORMAT - 1, FORMAT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    """A detector's share of a next-visit event: a hint. Losing it costs time after the readout, nothing else."""

    instrument: str
    group: str
    detector: int
    band: str
    ra_deg: float
    dec_deg: float
    rot_sky_deg: float
    start_tai_s: float
    """Expected start of the exposure [TAI unix s]."""
    duration_s: float
    issued_tai_s: float
    """When fan-out wrote it."""
    visit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Readout:
    """One detector-visit to process: a job. Times are TAI unix seconds."""

    instrument: str
    group: str
    visit: int
    snap: int
    n_snaps: int
    detector: int
    band: str
    exposure_start_tai_s: float
    exposure_end_tai_s: float
    readout_end_tai_s: float
    """t0, where the clock starts."""
    uri: str
    ra_deg: float
    dec_deg: float
    rot_sky_deg: float
    received_tai_s: float
    """When fan-out took the event."""
    digest: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What became of one readout, up to the start of its commit; one for each, in the order of the partition."""

    instrument: str
    group: str
    visit: int
    detector: int
    band: str
    outcome: Outcome
    code: str = ""
    """Error code where the outcome is a failure."""
    message: str = ""
    exposure_end_tai_s: float = 0.0
    readout_end_tai_s: float = 0.0
    received_tai_s: float = 0.0
    started_tai_s: float = 0.0
    """Take-up time of the attempt that is committed."""
    commit_started_tai_s: float = 0.0
    is_clock_suspect: bool = False
    attempt: int = 1
    worker: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    """n_detected = n_flagged + n_low_reliability + n_sent, and more."""
    summary: dict[str, float] = field(default_factory=dict)
    timings: tuple[tuple[str, float, float], ...] = ()
    """(stage, wall s, CPU s), in the order they ran."""
    wall_s: float = 0.0
    cpu_s: float = 0.0
    """Compute child, raw bytes in to serialized alerts out."""
    bundle: tuple[tuple[str, str, str, int], ...] = ()
    """(kind, source, digest, bytes) of each part."""
    redis_skipped: tuple[str, ...] = ()
    """Which of the calls after t0 (history tail, claims) were skipped."""
    n_alerts: int = 0
    alert_bytes: int = 0
    id_digest: str = ""
    """sha256 of the alerts' diaSourceIds, ascending, as big-endian int64."""
    n_dropped: int = 0
    """Rows that failed the check of the packet and were left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Catalogs of one detector-visit: what the archive writes."""

    visit: int
    detector: int
    band: str
    outcome: Outcome
    midpoint_mjd_tai: float
    processed_mjd_tai: float
    dia_sources: Catalog
    dia_objects: Catalog
    dia_forced_sources: Catalog
    ss_sources: Catalog


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """When one readout's alerts became visible; written after its commit, outside it, and may be lost."""

    visit: int
    detector: int
    band: str
    outcome: Outcome
    n_alerts: int
    committed_tai_s: float
    commit_s: float
    latency_s: float
    """Return of the commit minus t0."""
    shutter_latency_s: float
    """Return of the commit minus end of exposure."""
    is_clock_suspect: bool
    reference_cpu_s: float | None = None
    """CPU and wall of ``sep.Background(bw=128, bh=128)`` on this detector's image right after it, where asked for."""
    reference_wall_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that can never be processed, with its cause."""

    topic: str
    partition: int
    code: str
    message: str
    payload: bytes
    """At most the first 64 KB."""
    at_tai_s: float
    visit: int | None = None
    detector: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """A worker says what it is doing."""

    worker: str
    at_tai_s: float
    is_ready: bool
    partitions: tuple[int, ...]
    n_waiting: int
    current: tuple[int, int] | None = None
    """(visit, detector) in the child."""


Record = Prepare | Readout | Manifest | Result | Committed | DeadLetter | Heartbeat
_DTYPE: Final = re.compile(r"\[(\('\w*', '[<>|][a-zA-Z]\d+'(, \((\d+, ?)*\d*\))?\)(, )?)+\]")
"""``repr(dtype.descr)`` of arrays: checked before Python's parser sees it."""
R = TypeVar("R", Prepare, Readout, Manifest, Result, Committed, DeadLetter, Heartbeat)

_BY_NAME: Final[dict[str, type[Any]]] = {
    kind.__name__: kind for kind in (Prepare, Readout, Manifest, Result, Committed, DeadLetter, Heartbeat)
}


def pack(record: Record) -> bytes:
    """One record as msgpack; structured arrays as their dtype's description and bytes."""
    body = {f.name: getattr(record, f.name) for f in fields(record)}
    packed = msgpack.packb({"format": FORMAT, "record": type(record).__name__, "fields": body}, default=_encode)
    return bytes(packed)


def unpack(kind: type[R], data: bytes) -> R:
    """The record of ``kind`` in ``data``; anything else is rejected input."""
    record = unpack_any(data)
    if not isinstance(record, kind):
        raise RejectedInputError(f"a {type(record).__name__}, not a {kind.__name__}", code="bad_record")
    return record


def unpack_any(data: bytes) -> Record:
    """The record in ``data``, whichever it is."""
    try:
        message = msgpack.unpackb(data, object_hook=_decode, use_list=False, strict_map_key=False)
        kind, number, body = _BY_NAME[message["record"]], message["format"], message["fields"]
        if number not in READABLE_FORMATS:
            raise RejectedInputError("a record of an unknown format", code="bad_record", format=number)
        known = {f.name: body[f.name] for f in fields(kind) if f.name in body}
        if "outcome" in known:
            known["outcome"] = Outcome(known["outcome"])
        record: Record = kind(**known)
    except RejectedInputError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, SyntaxError, msgpack.UnpackException) as error:
        raise RejectedInputError("no record of ours", code="bad_record") from error
    return record


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"__dtype__": repr(value.dtype.descr), "data": np.ascontiguousarray(value).tobytes()}
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} does not go on the wire")


def _decode(value: Mapping[str, Any]) -> Any:
    if "__dtype__" not in value:
        return value
    description = value["__dtype__"]
    if not _DTYPE.fullmatch(description):
        raise ValueError("no description of an array")
    array: NDArray[np.void] = np.frombuffer(value["data"], np.dtype(ast.literal_eval(description)))
    return array
