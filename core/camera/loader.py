"""Reads the packaged camera descriptions."""

import csv
import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import MappingProxyType
from typing import Any, Final

from core.camera.geometry import Amplifier, Box, Camera, Detector
from core.errors import ConfigurationError

CAMERAS: Final = ("lsstcam", "testcam")


@cache
def load_camera(name: str) -> Camera:
    """Camera ``name`` (``lsstcam`` or ``testcam``); read once a process."""
    if name not in CAMERAS:
        raise ConfigurationError("unknown camera", code="unknown_camera", camera=name, known=CAMERAS)
    folder = files("core.camera") / "data" / name
    description = json.loads((folder / "camera.json").read_text(encoding="utf-8"))
    electronics = {(row["detector"], row["amplifier"]): row for row in _rows(folder / "amplifiers.csv")}
    detectors = {}
    for row in _rows(folder / "detectors.csv"):
        number = int(row["detector"])
        layout = description["kinds"][row["kind"]]
        detectors[number] = Detector(
            detector=number,
            name=row["name"],
            kind=row["kind"],
            serial=row["serial"],
            shape=(layout["shape"][0], layout["shape"][1]),
            focal_plane_x_mm=float(row["focal_plane_x_mm"]),
            focal_plane_y_mm=float(row["focal_plane_y_mm"]),
            yaw_deg=float(row["yaw_deg"]),
            amplifiers=tuple(_amplifier(a, layout, electronics[row["detector"], a]) for a in layout["amplifiers"]),
            pixel_mm=description["pixel_mm"],
        )
    site = description["site"]
    return Camera(
        name=description["name"],
        instrument=description["instrument"],
        plate_scale_arcsec_per_mm=description["plate_scale_arcsec_per_mm"],
        radial=tuple(description["radial"]),
        pixel_mm=description["pixel_mm"],
        latitude_deg=site["latitude_deg"],
        longitude_deg=site["longitude_deg"],
        height_m=site["height_m"],
        detectors=MappingProxyType(detectors),
    )


def _rows(path: Traversable) -> Iterator[dict[str, str]]:
    return csv.DictReader(path.read_text(encoding="utf-8").splitlines())


def _amplifier(name: str, layout: dict[str, Any], electronics: dict[str, str]) -> Amplifier:
    """Segment ``C<row><column>``: row 1 is the upper half of the detector, column counts along x."""
    ny, nx = layout["amplifier_shape"]
    raw_ny, raw_nx = layout["raw_shape"]
    row, column = int(name[1]), int(name[2])
    x0 = layout["prescan"]
    data: Box = (0, ny, x0, x0 + nx)
    flip_x, flip_y = layout["flip_top"] if row == 1 else layout["flip_bottom"]
    gain = float(electronics["gain_e_per_adu"])
    return Amplifier(
        name=name,
        extname=f"Segment{name[1:]}",
        raw_shape=(raw_ny, raw_nx),
        data=data,
        serial_overscan=(0, ny, x0 + nx, raw_nx),
        parallel_overscan=(ny, raw_ny, x0, x0 + nx),
        bbox=(row * ny, (row + 1) * ny, column * nx, (column + 1) * nx),
        flip_x=flip_x,
        flip_y=flip_y,
        gain=gain,
        read_noise=float(electronics["read_noise_e"]),
        saturation_adu=float(electronics["saturation_e"]) / gain,
    )
