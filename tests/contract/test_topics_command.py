"""``sub60 topics`` against a real log server of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service import topics
from service.cli import main
from service.embedded import EmbeddedValkey, log_settings


@pytest.fixture
def url(short_folder: Path) -> Iterator[str]:
    with EmbeddedValkey(short_folder / "topics", log_settings(64)) as server:
        yield server.url


def run(command: str, url: str, partitions: int = 4) -> Result:
    environment = {"SUB60_LOG_URL": url, "SUB60_PARTITIONS": str(partitions)}
    return CliRunner().invoke(main, ["topics", command], env=environment)


def test_missing_topics_are_named_and_made_and_made_again(url: str) -> None:
    before = run("list", url)
    assert before.exit_code == 1
    assert before.output.count("missing: `sub60 topics create`") == len(topics.ALL)
    for _ in range(2):
        made = run("create", url)
        assert made.exit_code == 0
        assert [line.split() for line in made.output.splitlines()] == [
            [topic, "4" if topic == topics.WORK else "1"] for topic in topics.ALL
        ]
    after = run("list", url)
    assert (after.exit_code, "missing" in after.output) == (0, False)


def test_another_number_of_partitions_is_an_error_that_names_the_topic(url: str) -> None:
    run("create", url)
    listed = run("list", url, partitions=8)
    assert (listed.exit_code, "wanted 8" in listed.output) == (1, True)
    refused = run("create", url, partitions=8)
    assert refused.exit_code != 0
    assert "'work' has 4 partitions, not 8" in refused.output


def test_without_a_log_there_is_nothing_to_make() -> None:
    refused = run("create", "")
    assert refused.exit_code != 0
    assert "SUB60_LOG_URL is not set" in refused.output


def test_a_broker_spreads_the_alerts() -> None:
    counts = topics.partition_counts("kafka://broker:9092", 189)
    assert {topic for topic, count in counts.items() if count == 189} == {
        topics.WORK,
        topics.ALERTS,
        topics.FEATURES,
    }
