"""The simulated dataset of the small test camera, made once and kept in pytest's cache; copies to spoil."""

import json
import shutil
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from benchmarks.service_process import copy_apdb
from benchmarks.simulator.config import SimulationConfig, preset
from benchmarks.simulator.dataset import is_complete, simulate
from core.timescales import format_tai, parse_tai, unix_tai_to_mjd_tai
from service.clock import SystemClock

VALID_DAYS = 14


def testcam_config() -> SimulationConfig:
    """The test preset, moved to these days by whole fortnights: calibrations have a validity."""
    config = preset("test")
    now = unix_tai_to_mjd_tai(SystemClock().tai_s())
    if abs(now - config.start_mjd_tai) <= VALID_DAYS:
        return config
    night = int(now) - int(now) % VALID_DAYS
    day = date(1858, 11, 17) + timedelta(days=night - 1)
    start = night + config.start_mjd_tai % 1
    return preset("test", start_mjd_tai=start, day_obs=day.year * 10_000 + day.month * 100 + day.day)


def make_testcam(folder: Path) -> Path:
    """The dataset, simulated into ``folder`` unless it is there."""
    config = testcam_config()
    if not is_complete(folder, config):
        shutil.rmtree(folder, ignore_errors=True)
        simulate(folder, config, 1, lambda _: None)
    return folder


def borrow(dataset: Path, folder: Path) -> Path:
    """A dataset like another whose raws, ephemerides and APDB may be written; the rest is shared."""
    folder.mkdir(parents=True)
    for name in ("raw", "ephemerides"):
        shutil.copytree(dataset / name, folder / name)
    copy_apdb(dataset / "apdb", folder / "apdb")
    for name in ("calib", "template", "refcat", "dataset.json", "events.jsonl"):
        (folder / name).symlink_to((dataset / name).resolve())
    return folder


def events(dataset: Path, topic: str) -> list[dict[str, Any]]:
    """Events of a topic as the dataset has them."""
    lines = (json.loads(line) for line in (dataset / "events.jsonl").read_text().splitlines())
    return [line["event"] for line in lines if line["topic"] == topic]


def moved_to_now(event: dict[str, Any], t0: float | None = None) -> dict[str, Any]:
    """The event as if its readout ended just now."""
    t0 = SystemClock().tai_s() - 0.5 if t0 is None else t0
    moved = dict(event)
    if "startTime" in event:
        return moved | {"startTime": t0 - 30}
    by = t0 - parse_tai(event["readout_end_tai"])
    for name in ("exposure_start_tai", "exposure_end_tai", "readout_end_tai"):
        moved[name] = format_tai(parse_tai(event[name]) + by)
    return moved
