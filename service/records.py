"""Records on our own topics: plain frozen data, msgpack on the wire, each with a format number.

A reader accepts its own format and the previous one; fields it does not know are ignored, fields that a record of the
previous format lacks take their defaults. A record of any other format is another release's: it waits for that release,
it is no garbage. How a format is changed while the service runs: docs/upgrades.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Final, TypeVar

import msgpack
import numpy as np
from numpy.typing import NDArray

from core.contracts.catalogs import Catalog
from core.errors import Outcome, RejectedInputError
from service.wire import parse_dtype, unpack_msgpack

FORMAT: Final = 1
"""Written. A release that raises it follows one that has the new number among its :data:`READABLE_FORMATS` already."""
DETECTORS: Final = 1024
"""More than any camera has; see :func:`run_key`."""
READABLE_FORMATS: Final = (FORMAT - 1, FORMAT)
MAX_FORMAT: Final = 1000
"""A number above it is no format of ours but garbage."""


class UnknownFormatError(RejectedInputError):
    """A record of another release, too new or too old for this one; it must not be passed over as garbage may be."""

    code = "unknown_format"


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
    redrive: int = 0
    """How often this detector-visit came to an outcome before; above 0 where an operator sent it back to work."""
    may_be_old: bool = False
    """An operator sent its event again."""

    @property
    def is_late_by_intent(self) -> bool:
        """It neither expires nor has a deadline that counts from t0."""
        return self.redrive > 0 or self.may_be_old


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What became of one readout, up to the start of its commit; one for each, in the order of the partition.

    The last one of a detector-visit that is no duplicate says how things stand.
    """

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
    """n_detected = n_flagged + n_low_reliability + n_sent + n_withheld (outcome ``held``) + n_dropped, and more."""
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
    redrive: int = 0
    """Of the readout: 0 for what the telescope sent. Above 0 it is late by intent and no latency is counted."""


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
    redrive: int = 0


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
    alerts_held: bool = False
    control_offset: int = 0
    """Next record of the control topic this worker will read: those before are obeyed."""


class Verb(StrEnum):
    """What an operator asks of the service."""

    HOLD = "hold"
    RELEASE = "release"
    REDRIVE_BEGIN = "redrive_begin"
    REDRIVE_END = "redrive_end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """An operator's order. The last ``hold`` or ``release`` of the topic says whether alerts are held."""

    verb: Verb
    at_tai_s: float
    reason: str = ""
    who: str = ""
    """User and machine, or the address of an HTTP client; for people to read."""


Record = Prepare | Readout | Manifest | Result | Committed | DeadLetter | Heartbeat | Control
R = TypeVar("R", Prepare, Readout, Manifest, Result, Committed, DeadLetter, Heartbeat, Control)

_BY_NAME: Final[dict[str, type[Any]]] = {
    kind.__name__: kind for kind in (Prepare, Readout, Manifest, Result, Committed, DeadLetter, Heartbeat, Control)
}


def run_key(detector: int, redrive: int) -> int:
    """Detector and redrive as one number, in the place of the detector where duplicates are known.

    Checkpoints and the marks in Redis hold (visit, detector); so those of readouts that were never redriven stay valid.
    """
    return detector + DETECTORS * redrive


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
    """The record in ``data``, whichever it is; raises :class:`UnknownFormatError` for another release's."""
    try:
        message = unpack_msgpack(data, object_hook=_decode, use_list=False, strict_map_key=False)
        name, number, body = message["record"], message["format"], message["fields"]
        if type(number) is not int or not 0 <= number <= MAX_FORMAT:
            raise RejectedInputError("no record of ours", code="bad_record")
        if number not in READABLE_FORMATS:
            text = f"a record of format {number}; this release reads {READABLE_FORMATS}"
            raise UnknownFormatError(text, format=number, record=name)
        kind = _BY_NAME[name]
        known = {f.name: body[f.name] for f in fields(kind) if f.name in body}
        if "outcome" in known:
            known["outcome"] = Outcome(known["outcome"])
        if "verb" in known:
            known["verb"] = Verb(known["verb"])
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
    array: NDArray[np.void] = np.frombuffer(value["data"], parse_dtype(value["__dtype__"]))
    return array
