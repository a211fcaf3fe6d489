"""A dataset of the whole focal plane with small arrays: every detector's bundle, manifest and result, little memory.

The sky and the detectors are the camera's own; calibrations and templates have pixels sixteen times coarser, so that a
bundle has all its parts and pieces, and a few hundred kilobytes. There are no raws: :mod:`benchmarks.scale.measured`
takes the place of the pixels.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import fitsio
import numpy as np

from benchmarks.scale.profile import Profile
from core.camera import Camera, load_camera
from core.contracts.catalogs import REFERENCE_STAR
from core.contracts.wcs import Wcs
from core.ids import pack_visit
from core.timescales import format_tai, mjd_tai_to_unix_tai
from service import topics
from service.storage.apdb import create_apdb
from service.storage.datastore import REFERENCE_ORDER
from service.storage.footprint import covering_patches, detector_corners
from service.storage.sky_pixels import cone_cells

CADENCE_S: Final = 39.0
LEAD_S: Final = 20.0
EXPOSURE_S: Final = 30.0
READOUT_S: Final = 2.4
SIDE: Final = 256
"""Pixels of a side of a calibration."""
SCALE_ARCSEC: Final = 3.2
PATCH: Final = 256
CELL: Final = 64
PSF_SIDE: Final = 31
TRACT_SIDE: Final = 5120
PAD_PIX: Final = 20.0
BAND: Final = "r"
PHYSICAL_FILTER: Final = "r_03"
FIELD_RADIUS_DEG: Final = 2.0
STARS_A_PIXEL: Final = 60
VALID_DAYS: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class ReducedConfig:
    """What is asked of a reduced dataset; equal ones are not written twice."""

    visits: int = 20
    detectors: tuple[int, ...] = ()
    """None: all of the camera."""
    cadence_s: float = CADENCE_S
    ra_deg: float = 36.9
    dec_deg: float = -4.8
    rot_sky_deg: float = 8.0
    start_mjd_tai: float
    """Middle of the first exposure."""


def write_reduced(folder: Path, config: ReducedConfig, profile: Profile) -> Path:
    """Write the dataset: camera, calibrations, template, reference stars, an empty APDB, events, the profile."""
    camera = load_camera("lsstcam")
    detectors = config.detectors or tuple(sorted(camera.detectors))
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True, exist_ok=True)
    for detector in detectors:
        _write_calibrations(folder, detector, len(camera.detectors[detector].amplifiers), config, rng)
    _write_template(folder, camera, detectors, config, rng)
    _write_reference_stars(folder, config, rng)
    (folder / "apdb").mkdir(exist_ok=True)
    create_apdb(f"sqlite:///{(folder / 'apdb' / 'apdb.sqlite').resolve()}", folder / "apdb" / "config.yaml")
    lines = [json.dumps(line) for line in _events(camera, detectors, config)]
    (folder / "events.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    profile.write(folder)
    info = {"format": 1, "instrument": camera.instrument, "camera": camera.name, "tracts": [0], "release": 1}
    (folder / "dataset.json").write_text(json.dumps(info) + "\n", encoding="utf-8")
    return folder


def _write_calibrations(
    folder: Path, detector: int, n_amp: int, config: ReducedConfig, rng: np.random.Generator
) -> None:
    first = int(config.start_mjd_tai) - VALID_DAYS
    last = first + 2 * VALID_DAYS
    target = folder / "calib" / f"{detector:03d}"
    target.mkdir(parents=True, exist_ok=True)

    def write(kind: str, data: Any) -> None:
        band = BAND if kind.startswith("flat") else ""
        header = {"KIND": kind, "DETECTOR": detector, "BAND": band, "VALIDSTA": float(first), "VALIDEND": float(last)}
        with fitsio.FITS(str(target / f"{kind}_{first}_{last}.fits"), "rw", clobber=True) as file:
            file.write(None, header=header)
            file.write(data)

    columns = [("gain", "<f4"), ("read_noise", "<f4"), ("saturation", "<f4"), ("linearity", "<f4", (2,))]
    amplifiers = np.zeros(n_amp, [*columns, ("crosstalk", "<f4", (n_amp,)), ("brighter_fatter", "<f4")])
    amplifiers["gain"], amplifiers["read_noise"], amplifiers["saturation"] = 1.6, 8.0, 9e4
    write("amplifiers", amplifiers)
    for kind, level in (("bias", 0.0), ("dark", 0.03), (f"flat-{BAND}", 1.0)):
        write(kind, (level + 0.01 * rng.standard_normal((SIDE, SIDE))).astype(np.float32))
    write("defects", np.zeros((SIDE, SIDE), np.uint8))


def _tract(config: ReducedConfig) -> tuple[Wcs, dict[str, Any]]:
    step = SCALE_ARCSEC / 3600
    keywords: dict[str, Any] = {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CUNIT1": "deg", "CUNIT2": "deg", "RADESYS": "ICRS",
        "CRPIX1": TRACT_SIDE / 2, "CRPIX2": TRACT_SIDE / 2, "CRVAL1": config.ra_deg, "CRVAL2": config.dec_deg,
        "CD1_1": -step, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": step,
    }  # fmt: skip
    return Wcs.from_header(keywords), keywords


def _write_template(
    folder: Path, camera: Camera, detectors: Sequence[int], config: ReducedConfig, rng: np.random.Generator
) -> None:
    wcs, keywords = _tract(config)
    shape = (TRACT_SIDE, TRACT_SIDE)
    patches: set[tuple[int, int]] = set()
    for detector in detectors:
        corners = detector_corners(camera, detector, config.ra_deg, config.dec_deg, config.rot_sky_deg)
        patches |= set(covering_patches(wcs, corners, PAD_PIX, PATCH, shape)[1])
    target = folder / "template" / "0" / BAND
    target.mkdir(parents=True, exist_ok=True)
    axis = np.arange(PSF_SIDE) - PSF_SIDE // 2
    profile = np.exp(-0.5 * (axis / 2.0) ** 2)
    psf = np.outer(profile, profile)
    cells = np.broadcast_to((psf / psf.sum()).astype(np.float32), (PATCH // CELL, PATCH // CELL, *psf.shape))
    for row, column in sorted(patches):
        with fitsio.FITS(str(target / f"{row:03d}_{column:03d}.fits"), "rw", clobber=True) as file:
            file.write(None, header={"BAND": BAND, "NINPUT": 3, "EPOCH": config.start_mjd_tai - 300.0, "TRACT": 0})
            image = 20 * rng.standard_normal((PATCH, PATCH), np.float32)
            file.write(image, extname="IMAGE")
            file.write(np.full((PATCH, PATCH), 400.0, np.float32), extname="VARIANCE")
            file.write(np.zeros((PATCH, PATCH), np.uint16), extname="MASK")
            file.write(np.ascontiguousarray(cells), extname="PSF")
    grid = {"wcs": keywords, "shape": shape, "patch_size": PATCH, "cell_size": CELL}
    (folder / "template" / "0" / "tract.json").write_text(json.dumps(grid) + "\n", encoding="utf-8")


def _write_reference_stars(folder: Path, config: ReducedConfig, rng: np.random.Generator) -> None:
    """A few stars for each file that a detector's cone touches, anywhere in the field."""
    (folder / "refcat").mkdir(exist_ok=True)
    for pixel in cone_cells(config.ra_deg, config.dec_deg, FIELD_RADIUS_DEG + 1.0, REFERENCE_ORDER):
        stars = np.zeros(STARS_A_PIXEL, REFERENCE_STAR)
        stars["ra"] = config.ra_deg + rng.uniform(-FIELD_RADIUS_DEG, FIELD_RADIUS_DEG, stars.size)
        stars["dec"] = config.dec_deg + rng.uniform(-FIELD_RADIUS_DEG, FIELD_RADIUS_DEG, stars.size)
        stars["isStar"] = True
        with fitsio.FITS(str(folder / "refcat" / f"{pixel}.fits"), "rw", clobber=True) as file:
            file.write(stars, extname="REFCAT")


def _events(camera: Camera, detectors: Sequence[int], config: ReducedConfig) -> list[dict[str, Any]]:
    """Next-visit ``LEAD_S`` before the readouts of all detectors, a visit each ``cadence_s``, in the order of time."""
    start = mjd_tai_to_unix_tai(config.start_mjd_tai)
    day = 20260101  # the sequence makes the number
    lines = []
    for index in range(config.visits):
        at = index * config.cadence_s
        visit, group = pack_visit(day, 1 + index), f"scale-{index:04d}"
        end = start + at + LEAD_S
        next_visit = {
            "salIndex": 2, "scriptSalIndex": 100_000 + index, "groupId": group, "coordinateSystem": 2,
            "position": [config.ra_deg, config.dec_deg], "startTime": end - EXPOSURE_S - READOUT_S,
            "rotationSystem": 2, "cameraAngle": config.rot_sky_deg, "filters": PHYSICAL_FILTER, "dome": 2,
            "duration": EXPOSURE_S + READOUT_S, "nimages": 1, "instrument": camera.instrument, "survey": "BLOCK-407",
            "totalCheckpoints": 1, "private_sndStamp": start + at, "detectors": list(detectors), "visit": visit,
        }  # fmt: skip
        lines.append({"topic": topics.NEXT_VISIT, "at_s": at, "event": next_visit})
        for detector in detectors:
            readout = {
                "instrument": camera.instrument, "group": group, "visit": visit, "snap": 0, "nsnaps": 1,
                "detector": detector, "band": BAND,
                "exposure_start_tai": format_tai(end - READOUT_S - EXPOSURE_S),
                "exposure_end_tai": format_tai(end - READOUT_S), "readout_end_tai": format_tai(end),
                "uri": f"raw/{visit}_{detector:03d}", "ra": config.ra_deg, "dec": config.dec_deg,
                "rot_sky": config.rot_sky_deg,
            }  # fmt: skip
            lines.append({"topic": topics.READOUT, "at_s": at + LEAD_S, "event": readout})
    return lines
