"""Raw files of the camera: checked before their pixels are touched, decoded into one array of segments."""

import hashlib
import os
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.camera import Camera, Detector
from core.contracts.catalogs import BANDS
from core.contracts.exposure import RawExposure, VisitInfo
from core.errors import RejectedInputError, TransientError
from core.ids import pack_visit
from core.kernels.rice import READ_AHEAD
from core.timescales import parse_tai, unix_tai_to_mjd_tai
from core.workspace import Workspace
from service.storage.fits_structure import Hdu, broken, read_structure
from service.storage.places import open_regular, resolve_uri
from service.storage.segments import check_segment, is_segment, read_segment

UInt8 = NDArray[np.uint8]

MJD_1990: Final = 47892.0
MJD_2100: Final = 88069.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RawLimits:
    """What a raw file may be."""

    roots: tuple[Path, ...]
    """Files outside these folders are refused, symbolic links followed."""
    max_bytes: int = 256 * 1024 * 1024
    max_extra_hdus: int = 16
    """HDUs allowed besides the segments."""
    max_exposure_s: float = 3600.0


def read_raw(
    uri: str, camera: Camera, limits: RawLimits, workspace: Workspace, expected_sha256: str | None = None
) -> RawExposure:
    """Read one detector's raw file.

    Everything the file says of itself is checked before a pixel is decoded: size, HDUs, keywords, compression,
    dimensions against the camera. About 0.15 s for a Rice-compressed full detector, nothing allocated after the first.

    Parameters
    ----------
    uri : path or ``file:`` URI, absolute or relative to the first of ``limits.roots``.
    workspace : holds the file's bytes (``raw.file``) and the segments returned (``raw.segments``), overwritten by the
        next call.

    Raises ``RejectedInputError`` (no FITS file, other instrument, absurd keyword or compression),
    ``UnusableDataError`` with outcome ``bad_raw`` (truncated, missing or misshapen segment), ``TransientError`` (no
    such file yet, or unreadable).
    """
    content, n_bytes = _load(resolve_uri(uri, limits.roots), limits, workspace)
    if expected_sha256 is not None and hashlib.sha256(content[:n_bytes].data).hexdigest() != expected_sha256.lower():
        raise broken("the file's digest is not the announced one", expected=expected_sha256)
    hdus = read_structure(content.data[:n_bytes], max_hdus=_max_hdus(camera, limits))
    visit_info = read_visit_info(hdus[0], camera, limits)
    segments = _find_segments(hdus, camera.detectors[visit_info.detector])
    shape = (len(segments), *camera.detectors[visit_info.detector].amplifiers[0].raw_shape)
    pixels = workspace.array("raw.segments", shape, np.int32)
    for hdu, out in zip(segments, pixels, strict=True):
        read_segment(hdu, content, out)
    return RawExposure(visit_info=visit_info, segments=pixels)  # type: ignore[arg-type]


def read_visit_info(primary: Hdu, camera: Camera, limits: RawLimits) -> VisitInfo:
    """Visit, times and pointing from the primary header's keywords, each within its sane range."""
    cards = primary.cards
    if cards.get("INSTRUME", "").casefold() != camera.instrument.casefold():
        raise _absurd("INSTRUME", cards, f"not {camera.instrument}")
    if cards.get("TIMESYS") != "TAI":
        raise _absurd("TIMESYS", cards, "not TAI")
    detector = primary.integer("DETECTOR")
    if detector not in camera.detectors:
        raise _absurd("DETECTOR", cards, "no such detector")
    band = cards.get("BAND", "")
    if band not in BANDS:
        raise _absurd("BAND", cards, "unknown band")
    start, end = (unix_tai_to_mjd_tai(parse_tai(cards.get(key, ""))) for key in ("DATE-BEG", "DATE-END"))
    if not (MJD_1990 < start < end < MJD_2100 and (end - start) * 86400 <= limits.max_exposure_s):
        raise _absurd("DATE-BEG", cards, f"with DATE-END {cards.get('DATE-END')} no exposure of this survey")
    return VisitInfo(
        instrument=camera.instrument,
        group=cards.get("GROUPID", ""),
        visit=_visit(primary),
        detector=detector,
        band=band,
        exposure_start_mjd_tai=start,
        exposure_end_mjd_tai=end,
        exposure_time_s=_number(primary, "EXPTIME", 1e-3, limits.max_exposure_s),
        ra_deg=_number(primary, "RA", 0.0, 360.0),
        dec_deg=_number(primary, "DEC", -90.0, 90.0),
        rot_sky_deg=_number(primary, "ROTPA", -360.0, 360.0),
        airmass=_airmass(primary),
    )


def _load(path: Path, limits: RawLimits, workspace: Workspace) -> tuple[UInt8, int]:
    """The file's bytes in a reused buffer with ``READ_AHEAD`` zeros behind, and their number."""
    try:
        with open_regular(path, limits.roots, limits.max_bytes) as (descriptor, n_bytes):
            capacity = -(-(n_bytes + READ_AHEAD) // (1 << 22)) << 22
            content: UInt8 = workspace.array("raw.file", (capacity,), np.uint8)  # type: ignore[assignment]
            n_read = 0
            while n_read < n_bytes and (n := os.readv(descriptor, [content.data[n_read:n_bytes]])):
                n_read += n  # a file that has shrunk meanwhile ends early, and is truncated
    except OSError as error:
        raise TransientError("the raw cannot be read", code="raw_unreadable", path=str(path)) from error
    content[n_read : n_read + READ_AHEAD] = 0
    return content, n_read


def _max_hdus(camera: Camera, limits: RawLimits) -> int:
    most = max((len(detector.amplifiers) for detector in camera.detectors.values()), default=0)
    return 1 + most + limits.max_extra_hdus


def _find_segments(hdus: list[Hdu], detector: Detector) -> list[Hdu]:
    """The detector's segments in the camera's amplifier order, checked."""
    by_name = {hdu.name.upper(): hdu for hdu in hdus[1:] if is_segment(hdu)}
    missing = [amplifier.extname for amplifier in detector.amplifiers if amplifier.extname.upper() not in by_name]
    if missing:
        raise broken(f"missing segment {', '.join(missing)}", n_missing=len(missing))
    names = [hdu.name.upper() for hdu in hdus[1:] if is_segment(hdu)]
    if doubled := [amp.extname for amp in detector.amplifiers if names.count(amp.extname.upper()) > 1]:
        raise broken(f"more than one segment {', '.join(doubled)}", n_doubled=len(doubled))
    segments = [by_name[amplifier.extname.upper()] for amplifier in detector.amplifiers]
    for segment in segments:
        check_segment(segment, detector.amplifiers[0].raw_shape)
    return segments


def _visit(primary: Hdu) -> int:
    day_obs, sequence = primary.integer("DAYOBS"), primary.integer("SEQNUM")
    try:
        is_sane = 1990 <= date(day_obs // 10_000, day_obs // 100 % 100, day_obs % 100).year < 2100
    except (ValueError, OverflowError):
        is_sane = False
    if not is_sane:
        raise _absurd("DAYOBS", primary.cards, "no day of this survey")
    return pack_visit(day_obs, sequence)


def _number(primary: Hdu, key: str, low: float, high: float) -> float:
    try:
        value = float(primary.cards[key])
    except (KeyError, ValueError) as error:
        raise _absurd(key, primary.cards, "not a number") from error
    if not low <= value <= high:
        raise _absurd(key, primary.cards, f"outside {low} to {high}")
    return value


def _airmass(primary: Hdu) -> float:
    """Mean of the airmass at start and end; 1 where the header has neither."""
    values = [_number(primary, key, 1.0, 40.0) for key in ("AMSTART", "AMEND") if primary.cards.get(key)]
    return sum(values) / len(values) if values else 1.0


def _absurd(key: str, cards: dict[str, str], why: str) -> RejectedInputError:
    value = cards.get(key)
    return RejectedInputError(f"{key} = {value!r}: {why}", code="bad_header", keyword=key, value=value)
