"""Events as they come from outside: checked here once, plain records after."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import unquote_plus

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from core.camera import Camera
from core.contracts.catalogs import BANDS
from core.errors import RejectedInputError
from core.ids import source_ids, unpack_visit
from core.timescales import parse_tai

TAI_1990: Final = parse_tai("1990-01-01T00:00:00")
TAI_2100: Final = parse_tai("2100-01-01T00:00:00")
ICRS: Final = 2
"""``coordinateSystem`` of a position in right ascension and declination."""
ROTATION_SKY: Final = 2
"""``rotationSystem`` of an angle against the sky."""
MAX_EVENT_BYTES: Final = 1 << 20
MAX_EXPOSURE_S: Final = 3600.0
_NO_ROWS: Final = np.empty(0, np.int64)


def _tai(value: Any) -> Any:
    """ISO-8601 TAI without zone to TAI unix seconds."""
    if not isinstance(value, str):
        raise ValueError("must be an ISO-8601 TAI time without zone")
    try:
        return parse_tai(value)
    except RejectedInputError as error:
        raise ValueError(str(error)) from error


Tai = Annotated[float, BeforeValidator(_tai), Field(ge=TAI_1990, lt=TAI_2100)]
UnixTai = Annotated[float, Field(ge=TAI_1990, lt=TAI_2100, allow_inf_nan=False)]
Ra = Annotated[float, Field(ge=0, lt=360, allow_inf_nan=False)]
Dec = Annotated[float, Field(ge=-90, le=90, allow_inf_nan=False)]
Angle = Annotated[float, Field(ge=-360, le=360, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1, max_length=128)]


def _check_visit(visit: int) -> int:
    """A visit is a real day of 1990-2100 and a sequence number that the ids have room for."""
    day, _ = unpack_visit(visit)
    if not 1990_00_00 <= day < 2100_00_00:
        raise ValueError("the visit's day is outside 1990-2100")
    try:
        source_ids(0, visit, 0, _NO_ROWS)
    except (RejectedInputError, ValueError) as error:
        raise ValueError("the visit is no day and sequence number") from error
    return visit


class _Event(BaseModel):
    """Frozen; fields nobody asked for are ignored; numbers are numbers, not strings of them."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, populate_by_name=True)


class NextVisit(_Event):
    """A pointing to come, with the field names of Rubin's ScriptQueue ``nextVisit``."""

    group: Name = Field(alias="groupId")
    instrument: Name
    coordinate_system: int = Field(alias="coordinateSystem")
    position: tuple[float, float] = Field(strict=False)
    start_tai_s: UnixTai = Field(alias="startTime", description="Expected start [TAI unix s].")
    rotation_system: int = Field(alias="rotationSystem")
    camera_angle_deg: Angle = Field(alias="cameraAngle")
    filters: str = Field(max_length=128, description="Physical filter; ~ joins a grating.")
    duration_s: float = Field(alias="duration", ge=0, le=MAX_EXPOSURE_S, description="Of the script [s].")
    n_images: int = Field(alias="nimages", default=0, ge=0, description="Snaps expected; 0 = unknown.")
    survey: str = Field(default="", max_length=128)
    detectors: tuple[int, ...] | None = Field(default=None, strict=False, description="Absent: all of the camera.")
    visit: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Where it is already known.")

    @field_validator("visit")
    @classmethod
    def _is_visit(cls, visit: int | None) -> int | None:
        return visit if visit is None else _check_visit(visit)

    @model_validator(mode="after")
    def _has_sky_position(self) -> "NextVisit":
        if self.coordinate_system == ICRS:
            ra, dec = self.position
            if not (0 <= ra < 360 and -90 <= dec <= 90):
                raise ValueError("position is no right ascension and declination in degrees")
        return self

    @property
    def band(self) -> str:
        """Band of the physical filter (``r_57`` is r); empty where the event does not say."""
        letter = self.filters.partition("~")[0].partition("_")[0]
        return letter if letter in BANDS else ""


class NextVisitCanceled(_Event):
    """A pointing that will not come."""

    group: Name = Field(alias="groupId")
    is_canceled: bool = Field(alias="canceled", default=True)


class ReadoutEvent(_Event):
    """One detector of one exposure has been read out."""

    instrument: Name
    group: Name
    visit: int = Field(ge=0)
    snap: int = Field(default=0, ge=0, le=99)
    n_snaps: int = Field(alias="nsnaps", default=1, ge=1, le=99)
    detector: int = Field(ge=0)
    band: str
    exposure_start_tai_s: Tai = Field(alias="exposure_start_tai")
    exposure_end_tai_s: Tai = Field(alias="exposure_end_tai")
    readout_end_tai_s: Tai = Field(alias="readout_end_tai")
    uri: str = Field(min_length=1, max_length=1024)
    ra_deg: Ra = Field(alias="ra")
    dec_deg: Dec = Field(alias="dec")
    rot_sky_deg: Angle = Field(alias="rot_sky")
    digest: str | None = Field(default=None, pattern=r"^[0-9a-fA-F]{64}$", description="sha256 of the file.")

    @field_validator("visit")
    @classmethod
    def _is_visit(cls, visit: int) -> int:
        return _check_visit(visit)

    @field_validator("band")
    @classmethod
    def _is_band(cls, band: str) -> str:
        if band not in BANDS:
            raise ValueError(f"band must be one of {', '.join(BANDS)}")
        return band

    @model_validator(mode="after")
    def _is_in_order(self) -> "ReadoutEvent":
        if not self.exposure_start_tai_s < self.exposure_end_tai_s <= self.readout_end_tai_s:
            raise ValueError("exposure start, exposure end and readout end are not in order")
        if self.readout_end_tai_s - self.exposure_start_tai_s > MAX_EXPOSURE_S:
            raise ValueError("the exposure is longer than an hour")
        return self


E = TypeVar("E", NextVisit, NextVisitCanceled, ReadoutEvent)


def parse_json(payload: bytes) -> dict[str, Any]:
    """The JSON object of a message."""
    if len(payload) > MAX_EVENT_BYTES:
        raise RejectedInputError("an event of more than 1 MB", code="too_large", n_bytes=len(payload))
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise RejectedInputError(f"not JSON: {error}", code="not_json") from error
    if not isinstance(value, dict):
        raise RejectedInputError("the event is no JSON object", code="not_json")
    return value


def parse_event(model: type[E], value: Mapping[str, Any]) -> E:
    """Validate one event; the message of the error names every bad field."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']) or 'event'}: {item['msg']}" for item in error.errors()[:8]
        )
        raise RejectedInputError(problems, code="bad_event", n_problems=error.error_count()) from error


def check_camera(event: NextVisit | ReadoutEvent, camera: Camera) -> None:
    """Raise unless the event is of this instrument and its detectors exist."""
    if event.instrument.casefold() != camera.instrument.casefold():
        raise RejectedInputError(
            f"instrument {event.instrument!r} is not {camera.instrument}", code="unknown_instrument"
        )
    detectors = (event.detector,) if isinstance(event, ReadoutEvent) else event.detectors or ()
    unknown = sorted(set(detectors) - set(camera.detectors))
    if unknown:
        raise RejectedInputError(f"{camera.instrument} has no detector {unknown[0]}", code="unknown_detector")


def object_keys(value: Mapping[str, Any]) -> list[str] | None:
    """Keys of the objects an S3 notification announces; None where the message is no notification."""
    records = value.get("Records")
    if not isinstance(records, list):
        return None
    keys = []
    for record in records:
        try:
            if str(record["eventName"]).removeprefix("s3:").startswith("ObjectCreated"):
                keys.append(_object_key(record["s3"]["object"]["key"]))
        except (KeyError, TypeError) as error:
            raise RejectedInputError("an object notification without object", code="bad_event") from error
    return keys


def _object_key(key: Any) -> str:
    """Keys come URL-encoded (Amazon S3 user guide, "Event message structure"; MinIO does the same)."""
    if not isinstance(key, str):
        raise TypeError("a key is a string")
    decoded: str = unquote_plus(key)
    try:
        decoded.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair goes neither to a file's name nor on the wire
        raise RejectedInputError("an object's key is no text", code="bad_event") from error
    return decoded
