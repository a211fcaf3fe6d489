"""The event stream of the dataset: next-visit and readout, as the observatory would send them."""

import hashlib
import json
from pathlib import Path
from typing import Any

from benchmarks.simulator.config import SimulationConfig
from benchmarks.simulator.rawfile import PHYSICAL_FILTER, group_of, iso_tai
from benchmarks.simulator.visits import DAY_S, Visit
from core.camera import Camera

_UNIX_EPOCH_MJD = 40587.0


def _unix_tai(mjd_tai: float) -> float:
    return round((mjd_tai - _UNIX_EPOCH_MJD) * DAY_S, 6)


def next_visit_event(config: SimulationConfig, camera: Camera, visit: Visit, sent_mjd_tai: float) -> dict[str, Any]:
    """Field names of the ScriptQueue's nextVisit, plus ``detectors`` and the ``visit`` number to come."""
    return {
        "salIndex": 2,
        "scriptSalIndex": 100_000 + visit.sequence,
        "groupId": group_of(visit),
        "coordinateSystem": 2,
        "position": [float(visit.ra_deg), float(visit.dec_deg)],
        "startTime": _unix_tai(sent_mjd_tai + config.lead_s / DAY_S),
        "rotationSystem": 2,
        "cameraAngle": float(visit.rot_sky_deg),
        "filters": PHYSICAL_FILTER[visit.band],
        "dome": 2,
        "duration": visit.exposure_s + config.readout_s,
        "nimages": 1,
        "instrument": camera.instrument,
        "survey": "BLOCK-407",
        "totalCheckpoints": 1,
        "private_sndStamp": _unix_tai(sent_mjd_tai),
        "detectors": list(config.detectors),
        "visit": visit.visit,
    }


def readout_event(
    config: SimulationConfig, camera: Camera, visit: Visit, detector: int, end_mjd_tai: float, raw: Path, uri: str
) -> dict[str, Any]:
    """The end of one detector's readout at ``end_mjd_tai``."""
    closed = end_mjd_tai - config.readout_s / DAY_S
    return {
        "instrument": camera.instrument,
        "group": group_of(visit),
        "visit": visit.visit,
        "snap": 0,
        "nsnaps": 1,
        "detector": detector,
        "band": visit.band,
        "exposure_start_tai": iso_tai(closed - visit.exposure_s / DAY_S),
        "exposure_end_tai": iso_tai(closed),
        "readout_end_tai": iso_tai(end_mjd_tai),
        "uri": uri,
        "ra": float(visit.ra_deg),
        "dec": float(visit.dec_deg),
        "rot_sky": float(visit.rot_sky_deg),
        "digest": hashlib.sha256(raw.read_bytes()).hexdigest(),
    }


def write_events(out: Path, config: SimulationConfig, camera: Camera, visits: list[Visit]) -> None:
    """Write events.jsonl and the raws' sidecars.

    Visit k's next-visit event comes at ``k * cadence_s`` and its readouts ``lead_s`` later: a compressed night. Times
    in the events follow that clock; the raws' headers keep the times of their exposures.
    """
    first_end = visits[0].end_mjd_tai + config.readout_s / DAY_S
    lines = []
    for visit in visits:
        begin_s = visit.index * config.cadence_s
        sent = first_end + (begin_s - config.lead_s) / DAY_S
        event = next_visit_event(config, camera, visit, sent)
        lines.append({"topic": "next-visit", "at_s": begin_s, "event": event})
        for detector in config.detectors:
            uri = f"raw/{visit.day_obs}/{visit.visit}_{detector:03d}.fits"
            end = sent + config.lead_s / DAY_S
            event = readout_event(config, camera, visit, detector, end, out / uri, uri)
            (out / uri).with_suffix(".json").write_text(json.dumps(event, indent=1) + "\n", encoding="utf-8")
            lines.append({"topic": "readout", "at_s": begin_s + config.lead_s, "event": event})
    lines.sort(key=lambda line: float(line["at_s"]))  # type: ignore[arg-type]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (out / "events.jsonl").write_text(text, encoding="utf-8")
