"""Events and records for tests."""

from typing import Any

from core.contracts.bundle import History
from core.contracts.catalogs import SS_SOURCE, empty_catalog
from core.errors import Outcome
from core.timescales import format_tai
from service.records import Prepare, Readout, Result

T0 = 1_780_000_000.0
VISIT = 2026052800001


def readout(**changes: Any) -> Readout:
    """A good readout."""
    fields = {
        "instrument": "LSSTCam",
        "group": "g1",
        "visit": VISIT,
        "snap": 0,
        "n_snaps": 1,
        "detector": 0,
        "band": "r",
        "exposure_start_tai_s": T0 - 32,
        "exposure_end_tai_s": T0 - 2,
        "readout_end_tai_s": T0,
        "uri": "ok:3",
        "ra_deg": 150.0,
        "dec_deg": 2.0,
        "rot_sky_deg": 0.0,
        "received_tai_s": T0 + 0.1,
    }
    return Readout(**(fields | changes))


def prepare(**changes: Any) -> Prepare:
    """A good prepare."""
    fields = {
        "instrument": "LSSTCam",
        "group": "g1",
        "detector": 0,
        "band": "r",
        "ra_deg": 150.0,
        "dec_deg": 2.0,
        "rot_sky_deg": 0.0,
        "start_tai_s": T0 - 32,
        "duration_s": 32.0,
        "issued_tai_s": T0 - 52,
    }
    return Prepare(**(fields | changes))


def readout_event(**changes: Any) -> dict[str, Any]:
    """A good readout event as JSON's object; times in seconds may be changed by ``t0``."""
    t0 = changes.pop("t0", T0)
    fields = {
        "instrument": "LSSTCam",
        "group": "g1",
        "visit": VISIT,
        "snap": 0,
        "nsnaps": 1,
        "detector": 0,
        "band": "r",
        "exposure_start_tai": format_tai(t0 - 32),
        "exposure_end_tai": format_tai(t0 - 2),
        "readout_end_tai": format_tai(t0),
        "uri": "ok:3",
        "ra": 150.0,
        "dec": 2.0,
        "rot_sky": 0.0,
    }
    return fields | changes


def next_visit_event(**changes: Any) -> dict[str, Any]:
    """A good next-visit event as the summit sends it."""
    fields = {
        "salIndex": 1,
        "scriptSalIndex": 2,
        "groupId": "g1",
        "coordinateSystem": 2,
        "position": [150.0, 2.0],
        "startTime": T0 - 32,
        "rotationSystem": 2,
        "cameraAngle": 0.0,
        "filters": "r_57",
        "dome": 2,
        "duration": 32.0,
        "nimages": 1,
        "instrument": "LSSTCam",
        "survey": "BLOCK-1",
        "totalCheckpoints": 0,
        "private_sndStamp": T0 - 52,
    }
    return fields | changes


def result(visit: int, rows: History, mjd_tai: float = 61000.0) -> Result:
    """The result of a visit's first detector with these rows."""
    return Result(
        visit=visit,
        detector=0,
        band="r",
        outcome=Outcome.ALERTS,
        midpoint_mjd_tai=mjd_tai,
        processed_mjd_tai=mjd_tai,
        dia_sources=rows.dia_sources,
        dia_objects=rows.dia_objects,
        dia_forced_sources=rows.dia_forced_sources,
        ss_sources=empty_catalog(SS_SOURCE, 0),
    )
