"""The detector-visit that stages are timed on, R beside every round, and what was measured."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import sep
from numpy.typing import NDArray

from benchmarks.replay import read_events, readouts
from benchmarks.simulator.config import SimulationConfig, preset
from benchmarks.simulator.dataset import keep_freed_memory
from service.settings import read_settings, use_compiled_cache

STAGES: Final = (
    "read", "isr", "background", "seeing", "cosmic_rays", "detect_sources", "psf", "astrometry", "photometry",
    "template", "subtract", "streaks", "detect", "measure", "associate", "forced", "features", "cutouts", "package",
)  # fmt: skip
"""All stages from the raw's bytes to serialized alerts, in their order."""
TOTAL: Final = "raw to DIASource catalog"
REMAINING_S: Final = 60.0
_MEMORY_BYTES: Final = 1 << 30


def simulated() -> SimulationConfig:
    """One r-band visit of one full detector, with its twelve months of history."""
    return preset("quality", visits=1, detectors=(94,), bands=("r",), seeing_arcsec=(0.8,), streak_fraction=0.0)


@dataclass(slots=True, kw_only=True)
class Rounds:
    """Raw rounds of one piece of work: CPU and wall seconds, and R before each and after the last."""

    cpu_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    reference_cpu_s: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """CPU of each round over the mean of R on both sides of it: a slower clock cancels."""
        sides = zip(self.reference_cpu_s, self.reference_cpu_s[1:], strict=False)
        return [2 * cpu / (before + after) for cpu, (before, after) in zip(self.cpu_s, sides, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A reference's rounds, and how far it agrees with our stage."""

    name: str
    rounds: Rounds
    agreement: str


class Workbench:
    """The pipeline on one readout, taken apart into stages that can be run by themselves."""

    def __init__(self, dataset: Path) -> None:
        settings = read_settings(dataset=dataset.resolve(), cache_url="", log_url="")
        use_compiled_cache(settings)
        # imported after the compiler's cache is known
        from benchmarks.stages.recording import Call, Recorded, Recorder
        from core.pipeline import Pipeline
        from core.stopwatch import Clock
        from core.workspace import Workspace
        from service.bundle_loader import BundleLoader
        from service.pipeline_config import pipeline_config
        from service.storage.raw import RawLimits, read_raw
        from service.storage.recipe import BundleKey

        keep_freed_memory()
        loader = BundleLoader.open(settings)
        self.dataset = dataset.resolve()
        self.event: dict[str, Any] = readouts(read_events(dataset))[0]
        clock = Clock(wall=time.perf_counter, cpu=time.thread_time)
        self.pipeline = Pipeline(
            loader.datastore.camera, pipeline_config(settings, loader.datastore.info.release), clock
        )
        workspace, limits = self.pipeline.workspace, RawLimits(roots=(self.dataset,))
        reading = Call(
            function=read_raw, arguments=(self.event["uri"], self.pipeline.camera, limits, workspace), keywords={}
        )
        self.raw = read_raw(*reading.arguments)
        info = self.raw.visit_info
        names = ("instrument", "group", "detector", "band", "ra_deg", "dec_deg", "rot_sky_deg", "visit")
        key = BundleKey(mjd_tai=info.exposure_start_mjd_tai, **{name: getattr(info, name) for name in names})
        self.bundle = loader.load(key).unpack(Workspace())
        self.finish(self.measure())  # compiles, touches every buffer
        self.recorder = Recorder(clock, workspace)
        with self.recorder.stage("read"):
            self.raw = read_raw(*reading.arguments)
        self.recorder.stages["read"].calls.append(reading)
        with self.recorder.listening():
            self.first = self.measure(self.recorder)
            self.result = self.finish(self.first)
        self.recorder.stages["package"] = Recorded(calls=[self._packing()])
        self.image: NDArray[np.float32] = self.first.exposure.frame.image.copy()
        self.measured: dict[str, Rounds] = {}
        self.compared: dict[str, list[Compared]] = {}
        self.figures: dict[str, Any] = {}
        """Of memory and of a worker's start."""

    def measure(self, watch: Any = None) -> Any:
        """The pipeline's first half, no time pressing."""
        return self.pipeline.measure(
            self.raw, self.bundle, lambda: None, lambda: REMAINING_S, self.raw.visit_info.midpoint_mjd_tai, watch
        )

    def finish(self, first: Any) -> Any:
        """Its second half."""
        return self.pipeline.finish(first)

    def _packing(self) -> Any:
        from alerts.packet import AlertContext, EncodedPast, build_alerts
        from benchmarks.stages.recording import Call

        assert self.first.subtraction is not None
        past = self.first.subtraction.past
        context = AlertContext(wcs=self.first.exposure.wcs)
        arguments = (self.result, past, context, None, EncodedPast.of(past.base))
        return Call(function=build_alerts, arguments=arguments, keywords={}, result=build_alerts(*arguments))

    def time(self, benchmark: Any, work: Callable[[], Any], prepare: Callable[[], None], n_rounds: int) -> Rounds:
        """Run ``work`` under pytest-benchmark, with ``prepare`` and R before each round, outside its timer."""
        rounds = Rounds()

        def set_up() -> None:
            prepare()
            rounds.reference_cpu_s.append(self.reference_cpu_s())

        def timed() -> None:
            begin = time.perf_counter()
            work()
            rounds.wall_s.append(time.perf_counter() - begin)

        benchmark.pedantic(timed, setup=set_up, rounds=n_rounds, iterations=1)
        rounds.cpu_s = list(benchmark.stats.stats.data)
        rounds.reference_cpu_s.append(self.reference_cpu_s())
        return rounds

    def reference_cpu_s(self) -> float:
        """R: CPU seconds of SEP's background on this frame, now."""
        begin = time.process_time()
        sep.Background(self.image, bw=128, bh=128)
        return time.process_time() - begin

    def to_dia_sources(self) -> None:
        """Everything from the raw's bytes to the DIASource catalog, and the association behind it."""
        self.recorder.run("read")
        self.measure()
        self.recorder.all_done()
