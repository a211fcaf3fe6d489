"""One site a transport for all faults, made anew after one that broke it; the report in the end."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks.environment import environment
from tests.faults.matrix import FAULTS
from tests.faults.site import Site
from tests.faults.trial import Fault, Row
from tests.support.kafka.broker import fetch_jars
from tests.support.service.datasets import make_testcam

JARS = Path("var/kafka/jars")
PATIENCE_SHORT = 2.0
"""The short run is for machines shared with others: it proves what is kept, `all` also how fast."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """What is tried, and where the report goes."""
    parser.addoption("--faults", choices=("short", "all"), default="all", help="short: Kafka around the commit only")
    parser.addoption("--faults-report", type=Path, help="write the report here")
    parser.addoption("--faults-on", choices=("redis", "kafka"), help="one transport only")
    parser.addoption("--upgrade-from", type=Path, help="a checkout of the commit that upgrades begin at")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test a fault and transport, all of one transport together."""
    if "fault" not in metafunc.fixturenames:
        return
    config = metafunc.config
    is_short, only = config.getoption("--faults") == "short", config.getoption("--faults-on")
    pairs = [
        (transport, fault)
        for transport in ("redis", "kafka")
        for fault in in_turns(FAULTS)
        if transport in fault.transports
        and only in (None, transport)
        and (transport == "redis" or fault.is_around_commit or not is_short)
        and not (is_short and fault.is_long)
    ]
    metafunc.parametrize(("transport", "fault"), pairs, ids=[f"{t}-{f.name}" for t, f in pairs])


def in_turns(faults: Sequence[Fault]) -> list[Fault]:
    """An order in which those that hit the same process lie far apart: one that dies again and again starts slowly."""
    groups: dict[str, list[Fault]] = {}
    for fault in faults:
        groups.setdefault(fault.victim, []).append(fault)
    placed = [(i / len(group), fault) for group in groups.values() for i, fault in enumerate(group)]
    return [fault for _, fault in sorted(placed, key=lambda pair: (pair[1].is_last, pair[0]))]


class Sites:
    """The sites that run."""

    def __init__(self, folder: Path, dataset: Path, patience: float, older: Path | None = None) -> None:
        self.patience = patience
        self._folder = folder
        self._dataset = dataset
        self._older = older
        self._running: dict[str, Site] = {}
        self._n_made = 0
        self.rows: dict[str, Row] = {}
        self.evidence = ""

    def get(self, transport: str) -> Site:
        """A site that works; that of the other transport ends."""
        if transport not in self._running:
            self.close()
            jars = None
            if transport == "kafka":
                if shutil.which("java") is None:
                    pytest.skip("no java on this machine: no Kafka")
                fetch_jars(JARS)
                jars = JARS.resolve()
            folder = self._folder / f"{transport}-{self._n_made}"
            folder.mkdir()
            self._n_made += 1
            self._running[transport] = Site(folder, self._dataset, jars, older=self._older)
        return self._running[transport]

    def keep_evidence(self, transport: str) -> None:
        """A fault broke its site: what its log says last, and no more faults on it."""
        site = self._running.get(transport)
        self.evidence = "" if site is None else site.service.log_tail(8000)
        self.close()

    def close(self) -> None:
        """End all."""
        while self._running:
            self._running.popitem()[1].close()


@pytest.fixture(scope="session")
def sites(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    """All sites of the run."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    dataset = make_testcam(request.config.cache.mkdir("testcam") / "dataset")
    patience = PATIENCE_SHORT if request.config.getoption("--faults") == "short" else 1.0
    running = Sites(tmp_path_factory.mktemp("faults"), dataset, patience, request.config.getoption("--upgrade-from"))
    yield running
    running.close()
    if (path := request.config.getoption("--faults-report")) is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_report(request.config, running.rows), indent=1) + "\n")


def _report(config: pytest.Config, rows: dict[str, Row]) -> dict[str, Any]:
    which = config.getoption("--faults")
    only = config.getoption("--faults-on")
    command = "make faults" + ("" if which == "all" else f" WHICH={which}") + (f" ON={only}" if only else "")
    order = [f"{fault.name} [{transport}]" for transport in ("redis", "kafka") for fault in FAULTS]
    faults = {name: asdict(rows[name]) | {"passed": rows[name].passed} for name in order if name in rows}
    return {"schema": 1, "environment": environment(), "command": command, "faults": faults}
