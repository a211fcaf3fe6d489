"""Simulates a whole dataset: detector by detector, in parallel processes, once."""

import ctypes
import json
import multiprocessing
import shutil
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.simulator.apdb_location import rebase_apdb
from benchmarks.simulator.calibrations import write_calibrations
from benchmarks.simulator.changes import Movers, make_movers, make_transients, make_variables
from benchmarks.simulator.config import SimulationConfig
from benchmarks.simulator.ephemerides import write_ephemerides
from benchmarks.simulator.events import write_events
from benchmarks.simulator.exposure import DetectorSky, simulate_exposure
from benchmarks.simulator.hardware import make_hardware
from benchmarks.simulator.landmarks import landmark_rows
from benchmarks.simulator.refcat import make_reference_catalog, write_reference_catalog
from benchmarks.simulator.skymodel import Rows, draw_region
from benchmarks.simulator.template import TemplateTruth, make_template, tract_box
from benchmarks.simulator.template_inputs import group_extent
from benchmarks.simulator.tract import make_tract
from benchmarks.simulator.visits import make_visits
from core.camera import Camera, load_camera

Tell = Callable[[str], None]
RELEASE = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupDone:
    """What the process of a group of detectors hands back for the files that all share."""

    rows: Rows
    movers: list[Movers]


def n_steps(config: SimulationConfig) -> int:
    """Progress steps of a whole dataset."""
    n_groups = len(detector_groups(config))
    templates = n_groups * len(_used_bands(config)) * config.template_inputs
    return templates + (1 + config.visits) * len(config.detectors) + 3


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
        rebase_apdb(out)
        return False
    out.mkdir(parents=True, exist_ok=True)
    (out / "dataset.json").unlink(missing_ok=True)
    for part in ("raw", "calib", "template", "refcat", "ephemerides", "apdb", "truth", ".progress"):
        shutil.rmtree(out / part, ignore_errors=True)
    tell = tell or (lambda _: None)
    camera = load_camera(config.camera)
    done = _run_groups(out, config, jobs, tell)
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
    tract = make_tract(config)
    grid = {
        "wcs": tract.wcs_keywords(),
        "shape": tract.shape,
        "patch_size": tract.patch_size,
        "cell_size": tract.cell_size,
    }
    (out / "template" / "0" / "tract.json").write_text(json.dumps(grid, indent=1) + "\n", encoding="utf-8")
    (out / "dataset.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    return True


def _run_groups(out: Path, config: SimulationConfig, jobs: int, tell: Tell) -> list[GroupDone]:
    groups = detector_groups(config)
    if jobs <= 1 or len(groups) == 1:
        return [simulate_group(out, config, group, tell) for group in groups]
    (out / ".progress").mkdir(exist_ok=True)
    seen = {group[0]: 0 for group in groups}
    with ProcessPoolExecutor(min(jobs, len(groups)), multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(_in_process, out, config, group) for group in groups]
        waiting: set[Future[GroupDone]] = set(futures)
        while waiting:
            _, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            _relay(out, seen, tell)
        return [future.result() for future in futures]


def _in_process(out: Path, config: SimulationConfig, group: tuple[int, ...]) -> GroupDone:
    keep_freed_memory()
    path = out / ".progress" / str(group[0])

    def tell(line: str) -> None:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    return simulate_group(out, config, group, tell)


def keep_freed_memory() -> None:
    """Let glibc keep what arrays free: giving 64 MB planes back and touching new ones costs a quarter of all CPU.

    For processes that handle planes and nothing else, as ``service.settings.KEEP_MEMORY`` has it for compute children
    (mallopt(3)); another allocator is left as it is.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        no_mmap, trim_threshold = -4, -1
        libc.mallopt(no_mmap, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


def _relay(out: Path, seen: dict[int, int], tell: Tell) -> None:
    """Pass on what the processes have told since the last look."""
    for first, count in seen.items():
        path = out / ".progress" / str(first)
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        for line in lines[count:]:
            tell(line)
        seen[first] = len(lines)


def detector_groups(config: SimulationConfig) -> list[tuple[int, ...]]:
    """Detectors whose templates share patches go together: one coadd, simulated once."""
    camera, tract = load_camera(config.camera), make_tract(config)
    groups: list[tuple[set[int], set[tuple[int, int]]]] = []
    for detector in config.detectors:
        y0, y1, x0, x1 = (v / tract.patch_size for v in tract_box(config, camera, tract, (detector,)))
        patches = {(j, i) for j in range(int(y0), ceil(y1)) for i in range(int(x0), ceil(x1))}
        members = {detector}
        for other in [g for g in groups if g[1] & patches]:
            groups.remove(other)
            members |= other[0]
            patches |= other[1]
        groups.append((members, patches))
    return [tuple(sorted(members, key=config.detectors.index)) for members, _ in groups]


def group_region(config: SimulationConfig, camera: Camera, detectors: tuple[int, ...]) -> Rows:
    """Sky that can leave light on the detectors or their template."""
    ra, dec, half = group_extent(config, camera, detectors)
    radius = half * float(np.sqrt(2)) * camera.pixel_scale_arcsec / 3600
    return np.concatenate([draw_region(config, ra, dec, radius + 20.0 / 3600), landmark_rows(config, camera)])


def simulate_group(out: Path, config: SimulationConfig, detectors: tuple[int, ...], tell: Tell) -> GroupDone:
    """Calibrations, templates and visits of a group of neighboring detectors."""
    camera, tract = load_camera(config.camera), make_tract(config)
    visits = make_visits(config, camera)
    rows = group_region(config, camera, detectors)
    variables = {d: make_variables(config, camera, d) for d in detectors}
    templates: dict[str, TemplateTruth] = {}
    for band in _used_bands(config):
        line = f"detectors {', '.join(map(str, detectors))}: {band} template"
        templates[band] = make_template(
            out, config, camera, tract, detectors, band, rows, list(variables.values()), partial(tell, line)
        )
    movers = []
    for detector in detectors:
        chip = camera.detectors[detector]
        hardware = make_hardware(config, chip)
        write_calibrations(out, config, chip, hardware, _used_bands(config))
        tell(f"detector {detector}: calibrations")
        own_movers = make_movers(config, camera, detector)
        movers.append(own_movers)
        sky = DetectorSky(rows=rows, variables=variables[detector], movers=own_movers)
        for visit in visits:
            transients = make_transients(config, camera, detector, visit.index, rows, variables[detector])
            simulate_exposure(out, config, camera, chip, hardware, visit, sky, transients, templates[visit.band])
            tell(f"detector {detector}: visit {visit.visit} {visit.band}")
    return GroupDone(rows=rows, movers=movers)


def _write_shared(out: Path, config: SimulationConfig, camera: Camera, done: list[GroupDone], tell: Tell) -> None:
    """Files of the whole field: reference catalog, history, ephemerides, events."""
    # the database's packages take seconds to import and the detectors' processes do without them
    from benchmarks.simulator.apdb import write_apdb

    visits = make_visits(config, camera)
    rows = np.concatenate([d.rows for d in done])
    if config.foreign_reference:
        elsewhere = replace(config, seed=config.seed + 1)
        rows = np.concatenate([group_region(elsewhere, camera, group) for group in detector_groups(config)])
    _, first = np.unique(rows["id"], return_index=True)
    unique: NDArray[np.void] = rows[first]
    write_reference_catalog(out, make_reference_catalog(config, unique))
    tell("reference catalog")
    write_apdb(out, config, camera, RELEASE)
    tell("history")
    write_ephemerides(out, config, visits, [m for d in done for m in d.movers])
    write_events(out, config, camera, visits)
    tell("ephemerides and events")
