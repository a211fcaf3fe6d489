"""What every bench does around its work: a simulated dataset, R, CPU to the DIASources."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sep
from rich.console import Console

from benchmarks.display import bar
from benchmarks.report import DIA_STAGES_END
from benchmarks.simulator.config import SimulationConfig
from benchmarks.simulator.dataset import is_complete, n_steps, simulate


def make_dataset(folder: Path, config: SimulationConfig, console: Console, jobs: int = 1) -> Path:
    """Simulate the dataset, with progress, unless it is there."""
    if not is_complete(folder, config):
        with bar("simulating", console) as progress:
            task = progress.add_task("", total=n_steps(config))
            simulate(folder, config, jobs, lambda line: progress.update(task, advance=1, description=line))
    return folder


def to_dia_sources(stage_cpu_s: Mapping[str, float]) -> float:
    """CPU to the DIASource catalog, of stages in their order; of all stages where there is none."""
    names = list(stage_cpu_s)
    last = names.index(DIA_STAGES_END) + 1 if DIA_STAGES_END in names else len(names)
    return sum(stage_cpu_s[name] for name in names[:last])


def reference_cpu_s(image: Any) -> float:
    """R: CPU of SEP's background on this frame, now."""
    begin = time.thread_time()
    sep.Background(image, bw=128, bh=128)
    return time.thread_time() - begin
