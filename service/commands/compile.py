"""``sub60 compile``: the numba kernels, once, before anybody waits for them."""

import time

import click
from rich.console import Console

from service.settings import read_settings, use_compiled_cache

CAMERA = "testcam"
"""The smallest camera: kernels are compiled for types, not for sizes."""


@click.command(
    epilog="""\b
Example:
  NUMBA_CACHE_DIR=/var/cache/sub60 sub60 compile"""
)
def command() -> None:
    """Compile all kernels into the cache: about a minute the first time, a few seconds after that."""
    use_compiled_cache(read_settings())
    started = time.monotonic()
    console = Console(stderr=True)
    with console.status("compiling kernels (about a minute, once)"):
        from core.camera import load_camera
        from core.config import PipelineConfig
        from core.pipeline import Pipeline
        from core.stopwatch import Clock
        from service.compute import warm_up_kernels

        warm_up_kernels(Pipeline(load_camera(CAMERA), PipelineConfig(), Clock(time.perf_counter, time.thread_time)))
    console.print(f"kernels ready after {time.monotonic() - started:.0f} s")
