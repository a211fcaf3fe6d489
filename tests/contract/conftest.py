"""Servers for the contract suites."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.embedded import EmbeddedValkey, log_settings
from tests.support.log_harness import Harness


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder whose sockets have short names."""
    with tempfile.TemporaryDirectory(prefix="sub60-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def log_server(short_folder: Path) -> Iterator[EmbeddedValkey]:
    """An embedded log server for all tests of the session."""
    with EmbeddedValkey(short_folder / "log", log_settings(512)) as server:
        yield server


@pytest.fixture(scope="session")
def kafka_url() -> str:
    """The broker that the tests were told of."""
    address = os.environ.get("SUB60_TEST_KAFKA")
    if not address:
        pytest.skip("SUB60_TEST_KAFKA is not set (`make kafka` starts a broker and prints its host:port)")
    return f"kafka://{address}?client.id=sub60-test"


@pytest.fixture(scope="module", params=["redis", pytest.param("kafka", marks=pytest.mark.kafka)])
def log_url(request: pytest.FixtureRequest) -> str:
    """Each adapter's server in turn."""
    if request.param == "kafka":
        url: str = request.getfixturevalue("kafka_url")
        return url
    server: EmbeddedValkey = request.getfixturevalue("log_server")
    return server.url


@pytest.fixture
def harness(log_url: str, short_folder: Path) -> Iterator[Harness]:
    """Each adapter in turn, with fresh topics."""
    built = Harness(log_url, short_folder)
    yield built
    built.log.close()
