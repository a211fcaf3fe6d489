"""Detector-visits of a dataset computed once more, without service or history, and compared with their truth."""

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.evaluate import DetectorQuality, evaluate
from benchmarks.quality.products import Products
from benchmarks.quality.truth import read_truth
from benchmarks.replay import SEQUENCE_STEP
from core.errors import UnusableDataError
from service.settings import read_settings, use_compiled_cache

if TYPE_CHECKING:
    from core.config import PipelineConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """One detector-visit's quality and the ids of its DIASources; ``quality`` None where it gave no difference."""

    visit: int
    detector: int
    outcome: str
    quality: DetectorQuality | None
    dia_source_ids: NDArray[np.int64]

    @classmethod
    def without(cls, visit: int, detector: int, outcome: str) -> "Rerun":
        """Of a detector-visit that gave no difference."""
        none = np.zeros(0, np.int64)
        return cls(visit=visit, detector=detector, outcome=outcome, quality=None, dia_source_ids=none)


def evaluate_dataset(dataset: Path, events: Sequence[dict[str, Any]], n_processes: int = 2) -> Iterator[Rerun]:
    """Rerun the readout events' raws, a detector after the other; results come as they are made."""
    by_detector: dict[int, list[dict[str, Any]]] = {}
    for event in events:
        by_detector.setdefault(event["detector"], []).append(event)
    n_processes = min(n_processes, len(by_detector))
    if n_processes <= 1:
        for group in by_detector.values():
            yield from evaluate_events(dataset, group)
        return
    with ProcessPoolExecutor(n_processes, get_context("spawn")) as pool:
        for future in [pool.submit(evaluate_events, dataset, group) for group in by_detector.values()]:
            yield from future.result()


@dataclass(slots=True, kw_only=True)
class Opened:
    """A dataset and one pipeline for it, whose configuration may change from run to run."""

    dataset: Path
    datastore: Any
    pipeline: Any

    def load(self, event: dict[str, Any]) -> tuple[Any, Any]:
        """Raw and bundle of a readout event, in the pipeline's own buffers: good until the next event's."""
        from core.workspace import Workspace
        from service.storage.bundle import load_bundle
        from service.storage.memory import MemoryCache
        from service.storage.raw import RawLimits, read_raw
        from service.storage.recipe import BundleKey

        raw = read_raw(event["uri"], self.datastore.camera, RawLimits(roots=(self.dataset,)), self.pipeline.workspace)
        info = raw.visit_info
        key = BundleKey(
            instrument=info.instrument,
            group=info.group,
            detector=event["detector"],
            band=info.band,
            mjd_tai=info.midpoint_mjd_tai,
            ra_deg=info.ra_deg,
            dec_deg=info.dec_deg,
            rot_sky_deg=info.rot_sky_deg,
            visit=event["visit"],
        )
        return raw, load_bundle(key, MemoryCache(1 << 20), None, self.datastore, None, Workspace())

    def measure(self, raw: Any, bundle: Any) -> Any:
        """The pipeline's first half, no time pressing; raises ``UnusableDataError``."""
        return self.pipeline.measure(raw, bundle, lambda: None, lambda: 60.0, raw.visit_info.midpoint_mjd_tai)


def open_dataset(dataset: Path, config: "PipelineConfig | None" = None) -> Opened:
    """Open a dataset; ``config`` None: that of the settings."""
    settings = read_settings()
    use_compiled_cache(settings)
    # imported after the compiler's cache is known
    from core.pipeline import Pipeline
    from core.stopwatch import Clock
    from service.pipeline_config import pipeline_config
    from service.storage.datastore import Datastore

    datastore = Datastore(dataset)
    clock = Clock(wall=time.perf_counter, cpu=time.thread_time)
    config = config or pipeline_config(settings, datastore.info.release)
    return Opened(dataset=dataset, datastore=datastore, pipeline=Pipeline(datastore.camera, config, clock))


def evaluate_events(
    dataset: Path, events: Sequence[dict[str, Any]], config: "PipelineConfig | None" = None
) -> list[Rerun]:
    """The same in this process, with another configuration if one is given."""
    opened = open_dataset(dataset, config)
    return [_rerun(opened, event) for event in events]


def _rerun(opened: Opened, event: dict[str, Any]) -> Rerun:
    visit, detector = event["visit"], event["detector"]
    raw, bundle = opened.load(event)
    try:
        first = opened.measure(raw, bundle)
    except UnusableDataError as error:
        return Rerun.without(visit, detector, error.outcome.value)
    return compare(opened.dataset, first, visit, detector)


def compare(dataset: Path, first: Any, visit: int, detector: int) -> Rerun:
    """Hold a first half against the truth of its detector-visit."""
    done = first.subtraction
    if done is None:
        return Rerun.without(visit, detector, first.outcome.value)
    products = Products(
        visit=visit,
        detector=detector,
        band=first.exposure.visit_info.band,
        difference=done.difference.frame,
        psf=done.difference.psf,
        dia_sources=done.sources,
        sources=first.sources,
        pixel_scale_arcsec=first.exposure.wcs.pixel_scale_arcsec,
    )
    truth = read_truth(truth_file(dataset, visit, detector))
    return Rerun(
        visit=visit,
        detector=detector,
        outcome=first.outcome.value,
        quality=evaluate(products, truth, seed=visit % 1_000_003),
        dia_source_ids=done.sources["diaSourceId"].astype(np.int64),
    )


def truth_file(dataset: Path, visit: int, detector: int) -> Path:
    """Truth of a visit as simulated; a night replayed again has its sequence numbers moved by whole steps."""
    folder = dataset / "truth"
    day, sequence = divmod(visit, 100_000)
    simulated = day * 100_000 + sequence % SEQUENCE_STEP
    return folder / f"{simulated}_{detector:03d}.fits"


def simulation(dataset: Path) -> dict[str, Any]:
    """What a simulated dataset says of its making; empty for another."""
    described: dict[str, Any] = json.loads((dataset / "dataset.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = described.get("simulation", {})
    return found
