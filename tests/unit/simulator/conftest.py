"""One small dataset for all tests of the simulator."""

from pathlib import Path

import pytest

from benchmarks.simulator.config import SimulationConfig, preset
from benchmarks.simulator.dataset import simulate


@pytest.fixture(scope="session")
def config() -> SimulationConfig:
    return preset("test", seed=11, detectors=(1,), visits=2, template_inputs=2, star_density_factor=8.0)


@pytest.fixture(scope="session")
def dataset(config: SimulationConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulated")
    assert simulate(out, config)
    return out
