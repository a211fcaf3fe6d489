"""Every role starts with the arguments and variables that the chart gives its pod, and stops at SIGTERM.

What a cluster would add is left out: addresses, mounted folders and ports are put in their places here.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import yaml

from service.embedded import EmbeddedValkey, cache_settings, log_settings
from tests.support.chart import CASES, Document, environment, pods, run_helm
from tests.support.kafka.broker import free_port
from tests.support.service.harness import write_empty_dataset

READY_S: Final = 240.0
"""A worker without compiled kernels takes a minute on an idle machine."""
CLI: Final = (sys.executable, "-m", "service.cli")


@pytest.fixture(scope="module")
def workloads() -> dict[str, Document]:
    """Pod templates of the laptop's profile, by role."""
    done = run_helm("--values", str(CASES["laptop"]))
    assert done.returncode == 0, done.stderr
    return pods(tuple(document for document in yaml.safe_load_all(done.stdout) if document))


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What a cluster would put behind the chart's addresses and paths."""
    folder = tmp_path_factory.mktemp("pods")
    state = folder / "state"
    state.mkdir()
    dataset = write_empty_dataset(folder / "dataset", camera="testcam")
    with ExitStack() as stack:
        log = stack.enter_context(EmbeddedValkey(folder / "log", log_settings(256)))
        cache = stack.enter_context(EmbeddedValkey(folder / "cache", cache_settings(256)))
        yield {
            "redis://host.docker.internal:6379": log.url,
            "redis://host.docker.internal:6380": cache.url,
            "/data": str(dataset),
            "/var/lib/sub60": str(state),
        }


def variables(pod: Document, places: dict[str, str], port: int) -> dict[str, str]:
    """A pod's variables, in this place; compiled kernels are this machine's."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SUB60_")}
    own = {name: places.get(value, value) for name, value in environment(pod).items()}
    own |= {"SUB60_HTTP_HOST": "127.0.0.1", "SUB60_HTTP_PORT": str(port)}
    own.pop("SUB60_COMPILED_CACHE", None)
    if "SUB60_SLOT" in own:
        own["SUB60_SLOT"] = "0"
    return inherited | own


def is_ready(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def test_topics_are_made_by_the_job(workloads: dict[str, Document], places: dict[str, str]) -> None:
    pod = workloads["topics"]
    command = [*CLI, *pod["spec"]["containers"][0]["args"]]
    done = subprocess.run(command, env=variables(pod, places, 0), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "work            4" in done.stdout


@pytest.mark.parametrize("role", ["fanout", "prefetch", "worker", "archive", "api"])
def test_a_role_gets_ready_and_stops(role: str, workloads: dict[str, Document], places: dict[str, str]) -> None:
    pod, port = workloads[role], free_port()
    command = [*CLI, *pod["spec"]["containers"][0]["args"]]
    process = subprocess.Popen(command, env=variables(pod, places, port), stderr=subprocess.DEVNULL)
    try:
        give_up_s = time.monotonic() + READY_S
        while not is_ready(port):
            assert process.poll() is None, f"{role} ended with {process.returncode}"
            assert time.monotonic() < give_up_s, f"{role} is not ready"
            time.sleep(0.2)
        process.terminate()
        assert process.wait(pod["spec"]["terminationGracePeriodSeconds"]) == 0
    finally:
        process.kill()
        process.wait()
