"""Writes a raw in LSSTCam's file layout: an empty primary and one tile-compressed HDU a segment."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
from numpy.typing import NDArray

from benchmarks.simulator.visits import Visit
from core.camera import Amplifier, Box, Camera, Detector

PHYSICAL_FILTER = {"u": "u_24", "g": "g_6", "r": "r_57", "i": "i_39", "z": "z_20", "y": "y_10"}


def iso_tai(mjd_tai: float) -> str:
    """ISO-8601 TAI without zone, to the microsecond."""
    moment = datetime(1858, 11, 17, tzinfo=UTC) + timedelta(days=mjd_tai)
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds")


def group_of(visit: Visit) -> str:
    """The group that next-visit event and raw share: the time the visit was queued."""
    return iso_tai(visit.start_mjd_tai - 60.0 / 86400.0)[:23]


def _section(box: Box, flip_x: bool = False, flip_y: bool = False) -> str:
    y0, y1, x0, x1 = box
    xs = f"{x1}:{x0 + 1}" if flip_x else f"{x0 + 1}:{x1}"
    ys = f"{y1}:{y0 + 1}" if flip_y else f"{y0 + 1}:{y1}"
    return f"[{xs},{ys}]"


def primary_header(visit: Visit, camera: Camera, detector: Detector, readout_s: float) -> list[dict[str, Any]]:
    """Keywords of the primary HDU, commanded values."""
    end = visit.end_mjd_tai
    written = end + (readout_s + 1.0) / 86400.0
    values: list[tuple[str, Any, str]] = [
        ("DATE", iso_tai(written), "Creation date and time of the file (TAI)"),
        ("MJD", written, "Modified Julian Date that the file was written"),
        ("TIMESYS", "TAI", "The time scale used"),
        ("DATE-BEG", iso_tai(visit.start_mjd_tai), "Shutter opened (TAI)"),
        ("DATE-END", iso_tai(end), "Shutter closed (TAI)"),
        ("MJD-BEG", visit.start_mjd_tai, "Shutter opened (MJD TAI)"),
        ("MJD-END", end, "Shutter closed (MJD TAI)"),
        ("INSTRUME", camera.instrument, "Instrument"),
        ("TELESCOP", "Simonyi Survey Telescope", "Telescope"),
        ("OBSID", f"MC_O_{visit.day_obs}_{visit.sequence:06d}", "Image name"),
        ("GROUPID", group_of(visit), "Group of exposures"),
        ("DAYOBS", str(visit.day_obs), "Observing day"),
        ("SEQNUM", visit.sequence, "Sequence number in the day"),
        ("RAFTBAY", detector.raft_bay, "Raft bay"),
        ("CCDSLOT", detector.ccd_slot, "Slot in the raft"),
        ("LSST_NUM", detector.serial, "Detector serial"),
        ("DETECTOR", detector.detector, "Detector number"),
        ("CCD_MANU", detector.kind, "CCD manufacturer"),
        ("FILTER", PHYSICAL_FILTER[visit.band], "Physical filter"),
        ("BAND", visit.band, "Band"),
        ("IMGTYPE", "OBJECT", "Image type"),
        ("OBSTYPE", "OBJECT", "Observation type"),
        ("REASON", "survey", "Why it was taken"),
        ("EXPTIME", visit.exposure_s, "[s] Exposure time"),
        ("DARKTIME", visit.exposure_s + 0.1, "[s] Time since the detector was cleared"),
        ("SHUTTIME", visit.exposure_s, "[s] Shutter open"),
        ("RADESYS", "ICRS", "Frame of RA and DEC"),
        ("TRACKSYS", "RADEC", "Tracking system"),
        ("RA", visit.ra_deg, "[deg] Boresight as commanded"),
        ("DEC", visit.dec_deg, "[deg] Boresight as commanded"),
        ("RASTART", visit.ra_deg, "[deg] At the start"),
        ("DECSTART", visit.dec_deg, "[deg] At the start"),
        ("ROTPA", visit.rot_sky_deg, "[deg] Position angle of the focal plane's +y"),
        ("ROTCOORD", "sky", "Rotator coordinate system"),
        ("AMSTART", visit.airmass, "Airmass at the start"),
        ("AMEND", visit.airmass, "Airmass at the end"),
        ("DETSIZE", _section((0, detector.shape[0], 0, detector.shape[1])), "Detector size"),
        ("CHIPID", detector.name, "Detector name"),
    ]
    return [{"name": name, "value": value, "comment": comment} for name, value, comment in values]


def segment_header(amp: Amplifier, detector: Detector) -> list[dict[str, Any]]:
    """Keywords of one segment."""
    values = [
        ("EXTNAME", amp.extname, "Segment"),
        ("CHANNEL", detector.amplifiers.index(amp) + 1, "Readout channel"),
        ("CCDSUM", "1 1", "Binning"),
        ("DATASEC", _section(amp.data), "Data in the segment"),
        ("DETSEC", _section(amp.bbox, amp.flip_x, amp.flip_y), "Place in the detector"),
        ("DETSIZE", _section((0, detector.shape[0], 0, detector.shape[1])), "Detector size"),
        ("BIASSEC", _section(amp.serial_overscan), "Serial overscan"),
    ]
    return [{"name": name, "value": value, "comment": comment} for name, value, comment in values]


def write_raw(
    path: Path, segments: NDArray[np.int32], visit: Visit, camera: Camera, detector: Detector, readout_s: float
) -> None:
    """Write (n_amp, ny, nx) int32 segments; complete under a temporary name, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    with fitsio.FITS(str(partial), "rw", clobber=True) as fits:
        fits.write(None, header=primary_header(visit, camera, detector, readout_s))
        for amp, segment in zip(detector.amplifiers, segments, strict=True):
            fits.write(
                segment, header=segment_header(amp, detector), compress="RICE", tile_dims=(1, segment.shape[1]),
                extname=amp.extname,
            )  # fmt: skip
    partial.rename(path)
