"""No readout waits for a compiler: the warm-up reaches every kernel that Python calls."""

import subprocess
import sys

SCRIPT = """
import importlib, pkgutil
import core.kernels
from core.camera import load_camera
from core.config import PipelineConfig
from core.pipeline import Pipeline
from core.stopwatch import Clock
from service.compute import warm_up_kernels

warm_up_kernels(Pipeline(load_camera("testcam"), PipelineConfig(), Clock(lambda: 0.0, lambda: 0.0)))
for info in pkgutil.iter_modules(core.kernels.__path__):
    module = importlib.import_module("core.kernels." + info.name)
    for name, found in vars(module).items():
        if getattr(found, "__module__", "") == module.__name__ and getattr(found, "signatures", None) == []:
            print(info.name + "." + name)
"""


def test_every_public_kernel_is_compiled_by_the_warm_up() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=250)
    cold = [name for name in done.stdout.split() if "._" not in name]
    assert cold == []
    assert "._" in done.stdout  # helpers come compiled inside their callers: the probe does see cold kernels
