"""Memory and start of a worker at full size: no frame is allocated, nothing grows, the compiled kernels are found."""

import queue
import time
from typing import Any

import psutil

from benchmarks.stages.allocations import allocations
from benchmarks.stages.workbench import Workbench

LEAK_VISITS = 200
MAX_GROWTH_BYTES = 16 << 20
"""Of the process over the last three quarters of them; what is live is held to kilobytes by a unit test."""
MAX_START_S = 10.0
"""CPU of a compute child from its start to ready, kernels compiled before: on an idle core its wall time."""


def test_second_visit_allocates_no_frame(bench: Workbench) -> None:
    half_a_frame = bench.image.nbytes // 2

    def visit() -> None:
        bench.recorder.run("read")
        bench.finish(bench.measure())
        bench.recorder.all_done()
        bench.recorder.run("package")

    bench.recorder.go_to("read")
    found = allocations(visit, bench.image.nbytes // 16)
    bench.figures["largest_allocations"] = [{"place": one.place, "bytes": one.nbytes} for one in found[:10]]
    assert [one for one in found if one.nbytes >= half_a_frame] == []


def test_memory_does_not_grow_over_many_visits(bench: Workbench) -> None:
    from core.camera import load_camera
    from core.pipeline import Pipeline
    from core.stopwatch import Clock
    from core.warm_up import made_up_visit

    pipeline = Pipeline(load_camera("testcam"), bench.pipeline.config, Clock(time.perf_counter, time.process_time))
    raw, bundle, _ = made_up_visit(pipeline.camera)
    process, held = psutil.Process(), []
    for _ in range(LEAK_VISITS):
        pipeline.finish(pipeline.measure(raw, bundle, lambda: None, lambda: 60.0, 60000.001))
        held.append(process.memory_info().rss)
    growth = held[-1] - held[LEAK_VISITS // 4]
    bench.figures["leak"] = {"visits": LEAK_VISITS, "growth_bytes": growth, "rss_bytes": held[-1]}
    assert growth <= MAX_GROWTH_BYTES


def test_second_start_finds_its_kernels(bench: Workbench) -> None:
    starts = [_start(bench) for _ in range(2)]
    bench.figures["child_start"] = starts
    assert starts[1]["cpu_s"] <= MAX_START_S


def _start(bench: Workbench) -> dict[str, float]:
    """CPU and wall of a compute child until it is ready."""
    from service.child import Child, FromChild
    from service.settings import compute_environment, read_settings

    settings = read_settings(dataset=bench.dataset, cache_url="", log_url="", log_level="warning")
    said: queue.Queue[FromChild] = queue.Queue()
    child = Child(compute_environment(settings), said.put)
    begin = time.monotonic()
    child.start()
    try:
        first: Any = said.get(timeout=300).message
        wall_s = time.monotonic() - begin
        assert first is not None
        assert first["op"] == "ready", first
        assert child.pid is not None
        cpu = psutil.Process(child.pid).cpu_times()
    finally:
        child.kill()
    return {"cpu_s": cpu.user + cpu.system, "wall_s": wall_s}
