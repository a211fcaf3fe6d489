"""Frames live in the workspace, and nothing grows from visit to visit."""

import gc
import time
import tracemalloc

import numpy as np

from benchmarks.stages.allocations import allocations
from core.camera import Camera, load_camera
from core.config import PipelineConfig
from core.pipeline import Pipeline
from core.stages.kernel_config import KernelConfig
from core.stages.subtract import SubtractConfig
from core.stopwatch import Clock
from core.warm_up import made_up_visit
from tests.support.larger_camera import larger_testcam


class Visits:
    """One made-up visit, again and again."""

    def __init__(self, camera: Camera) -> None:
        # few kernel stars: what they take must stay below half of a frame that is itself smaller than a detector's
        config = PipelineConfig(subtract=SubtractConfig(kernel=KernelConfig(max_stars=100)))
        self.pipeline = Pipeline(camera, config, Clock(time.perf_counter, time.thread_time))
        self._raw, self._bundle, _ = made_up_visit(camera)

    def run(self) -> None:
        first = self.pipeline.measure(self._raw, self._bundle, lambda: None, lambda: 60.0, 60000.001)
        self.pipeline.finish(first)


def test_a_second_visit_allocates_no_frame_outside_the_workspace() -> None:
    camera = larger_testcam(4)
    visits = Visits(camera)
    visits.run()
    before = {name: id(array) for name, array in visits.pipeline.workspace.buffers.items()}
    ny, nx = next(iter(camera.detectors.values())).shape
    half_a_frame = ny * nx * np.dtype(np.float32).itemsize // 2
    assert allocations(visits.run, half_a_frame) == []
    large = {name for name, array in visits.pipeline.workspace.buffers.items() if array.nbytes >= half_a_frame}
    assert {n: id(a) for n, a in visits.pipeline.workspace.buffers.items() if n in large} == {
        n: before[n] for n in large
    }


def test_an_allocation_of_a_frame_is_seen_and_named() -> None:
    from core.workspace import Workspace

    found = allocations(lambda: Workspace().array("new", (1000, 1000)), 4_000_000)
    assert [one.place.split(":")[0] for one in found] == ["core.workspace"]
    assert 4_000_000 <= found[0].nbytes < 4_100_000


def test_live_memory_does_not_grow_from_visit_to_visit() -> None:
    visits = Visits(load_camera("testcam"))
    for _ in range(2):
        visits.run()
    tracemalloc.start()
    try:
        visits.run()
        held = []
        for _ in range(6):
            visits.run()
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert held[-1] - held[0] < 5 * 10_000
