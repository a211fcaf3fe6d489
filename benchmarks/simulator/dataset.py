"""Simulates a whole dataset: detector by detector, in parallel processes, once."""

import json
import multiprocessing
import shutil
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.simulator.calibrations import write_calibrations
from benchmarks.simulator.changes import Movers, make_movers, make_transients, make_variables
from benchmarks.simulator.config import SimulationConfig
from benchmarks.simulator.ephemerides import write_ephemerides
from benchmarks.simulator.events import write_events
from benchmarks.simulator.exposure import DetectorSky, simulate_exposure
from benchmarks.simulator.hardware import make_hardware
from benchmarks.simulator.refcat import make_reference_catalog, write_reference_catalog
from benchmarks.simulator.skymodel import Rows, draw_region
from benchmarks.simulator.template import TemplateTruth
from benchmarks.simulator.visits import make_visits
from core.camera import Camera, load_camera

Tell = Callable[[str], None]
RELEASE = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorDone:
    """What one detector's process hands back for the files that all detectors share."""

    detector: int
    rows: Rows
    movers: Movers


def n_steps(config: SimulationConfig) -> int:
    """Progress steps of a whole dataset."""
    per_detector = 2 + len(set(_used_bands(config))) * (config.template_inputs + 1) + config.visits
    return per_detector * len(config.detectors) + 2


def _used_bands(config: SimulationConfig) -> list[str]:
    return sorted({config.band(i) for i in range(config.visits)})


def is_complete(out: Path, config: SimulationConfig) -> bool:
    """Whether ``out`` already holds the dataset of this configuration."""
    path = out / "dataset.json"
    if not path.is_file():
        return False
    described = json.loads(path.read_text(encoding="utf-8"))
    return bool(described.get("simulation", {}).get("digest") == config.digest())


def simulate(out: Path, config: SimulationConfig, jobs: int = 1, tell: Tell | None = None) -> bool:
    """Write the dataset unless it is there already; returns whether anything was written.

    ``tell`` is called with a line for every step done. Equal configurations give equal pixels, whatever ``jobs``.
    """
    if is_complete(out, config):
        return False
    out.mkdir(parents=True, exist_ok=True)
    (out / "dataset.json").unlink(missing_ok=True)
    for part in ("raw", "calib", "template", "refcat", "ephemerides", "apdb", "truth", ".progress"):
        shutil.rmtree(out / part, ignore_errors=True)
    tell = tell or (lambda _: None)
    camera = load_camera(config.camera)
    done = _run_detectors(out, config, jobs, tell)
    _write_shared(out, config, camera, done, tell)
    shutil.rmtree(out / ".progress", ignore_errors=True)
    described = {
        "format": 1,
        "instrument": camera.instrument,
        "camera": camera.name,
        "tracts": [0],
        "release": RELEASE,
        "simulation": {
            "digest": config.digest(),
            "preset": config.preset,
            "seed": config.seed,
            "not_simulated": config.not_simulated(),
            "config": asdict(config),
        },
    }
    (out / "dataset.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    return True


def _run_detectors(out: Path, config: SimulationConfig, jobs: int, tell: Tell) -> list[DetectorDone]:
    if jobs <= 1 or len(config.detectors) == 1:
        return [simulate_detector(out, config, d, tell) for d in config.detectors]
    (out / ".progress").mkdir(exist_ok=True)
    seen = dict.fromkeys(config.detectors, 0)
    with ProcessPoolExecutor(min(jobs, len(config.detectors)), multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(_in_process, out, config, d) for d in config.detectors]
        waiting: set[Future[DetectorDone]] = set(futures)
        while waiting:
            _, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            _relay(out, seen, tell)
        return [future.result() for future in futures]


def _in_process(out: Path, config: SimulationConfig, detector: int) -> DetectorDone:
    path = out / ".progress" / str(detector)

    def tell(line: str) -> None:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    return simulate_detector(out, config, detector, tell)


def _relay(out: Path, seen: dict[int, int], tell: Tell) -> None:
    """Pass on what the processes have told since the last look."""
    for detector, count in seen.items():
        path = out / ".progress" / str(detector)
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        for line in lines[count:]:
            tell(line)
        seen[detector] = len(lines)


def detector_region(config: SimulationConfig, camera: Camera, detector: int) -> Rows:
    """Sky that can leave light on a detector or its template."""
    ny, nx = camera.detectors[detector].shape
    ra, dec = camera.pixel_to_sky(
        detector, (nx - 1) / 2, (ny - 1) / 2, config.ra_deg, config.dec_deg, config.rot_sky_deg
    )
    half_diagonal = float(np.hypot(ny, nx)) / 2 * camera.pixel_scale_arcsec
    radius = (half_diagonal + 1.3 * config.template_padding_arcsec + config.dither_arcsec) / 3600
    return draw_region(config, float(ra), float(dec), radius)


def simulate_detector(out: Path, config: SimulationConfig, detector: int, tell: Tell) -> DetectorDone:
    """Calibrations, templates and visits of one detector."""
    camera = load_camera(config.camera)
    chip = camera.detectors[detector]
    visits = make_visits(config, camera)
    hardware = make_hardware(config, chip)
    write_calibrations(out, config, chip, hardware, _used_bands(config))
    tell(f"detector {detector}: calibrations")
    rows = detector_region(config, camera, detector)
    sky = DetectorSky(
        rows=rows,
        variables=make_variables(config, camera, detector),
        movers=make_movers(config, camera, detector),
    )
    templates: dict[str, TemplateTruth] = {}
    for visit in visits:
        transients = make_transients(config, camera, detector, visit.index, rows)
        simulate_exposure(out, config, camera, chip, hardware, visit, sky, transients, templates.get(visit.band))
        tell(f"detector {detector}: visit {visit.visit} {visit.band}")
    return DetectorDone(detector=detector, rows=rows, movers=sky.movers)


def _write_shared(out: Path, config: SimulationConfig, camera: Camera, done: list[DetectorDone], tell: Tell) -> None:
    """Files of the whole field: reference catalog, ephemerides, events."""
    visits = make_visits(config, camera)
    rows = np.concatenate([d.rows for d in done])
    _, first = np.unique(rows["id"], return_index=True)
    unique: NDArray[np.void] = rows[first]
    write_reference_catalog(out, make_reference_catalog(config, unique))
    tell("reference catalog")
    write_ephemerides(out, config, visits, [d.movers for d in done])
    write_events(out, config, camera, visits)
    tell("ephemerides and events")
