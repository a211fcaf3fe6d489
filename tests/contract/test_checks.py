"""Checks against real servers, right and wrong ones."""

import os
import socket
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from fastapi import APIRouter, Response

from alerts.schema import SCHEMA_ID, schema_json
from service import topics
from service.checks import Finding, Level, run_checks
from service.commands.serve import EXIT_REFUSED
from service.embedded import EmbeddedValkey, cache_settings, log_settings
from service.handlers.schemas import schema_routes
from service.http_server import HttpServer
from service.log import open_log
from service.settings import Settings, read_settings
from tests.support.apdb import make_apdb
from tests.support.postgres import PostgresServer
from tests.support.service.harness import write_empty_dataset


def findings(settings: Settings, *names: str) -> list[Finding]:
    return list(run_checks(settings, names))


def worst(settings: Settings, name: str) -> Finding:
    """The gravest finding of a check."""
    order = {Level.OK: 0, Level.WARNING: 1, Level.FAILED: 2}
    return max(findings(settings, name), key=lambda found: order[found.level])


@pytest.fixture
def folder(short_folder: Path) -> Path:
    made = short_folder / uuid.uuid4().hex[:6]
    made.mkdir()
    return made


@pytest.mark.parametrize(
    ("changes", "level", "says"),
    [
        ({}, Level.OK, "of 67 MB"),
        ({"appendonly": "no"}, Level.FAILED, "appendonly is no"),
        ({"maxmemory-policy": "allkeys-lru"}, Level.FAILED, "maxmemory-policy is allkeys-lru"),
        ({"maxmemory": "0"}, Level.WARNING, "no maxmemory"),
        ({"maxmemory": "900kb"}, Level.FAILED, "refuses records soon"),
    ],
)
def test_log_on_redis(folder: Path, changes: dict[str, str], level: Level, says: str) -> None:
    with EmbeddedValkey(folder, log_settings(64) | changes) as server:
        found = worst(read_settings({}, log_url=server.url), "log")
    assert (found.level, says in found.text) == (level, True), found.text


@pytest.mark.parametrize(
    ("policy", "level"),
    [
        ("volatile-ttl", Level.OK),
        ("volatile-lru", Level.WARNING),
        ("noeviction", Level.WARNING),
        ("allkeys-lfu", Level.FAILED),
    ],
)
def test_cache(folder: Path, policy: str, level: Level) -> None:
    with EmbeddedValkey(folder, cache_settings(64) | {"maxmemory-policy": policy}) as server:
        assert worst(read_settings({}, cache_url=server.url), "cache").level is level
    gone = worst(read_settings({}, cache_url=server.url), "cache")
    assert (gone.level, gone.can_heal) == (Level.FAILED, True)


def test_a_cache_that_writes_to_disk_is_named(folder: Path) -> None:
    with EmbeddedValkey(folder, cache_settings(64) | {"appendonly": "yes"}) as server:
        found = findings(read_settings({}, cache_url=server.url), "cache")
    assert [(f.level, "needs no disk" in f.text) for f in found] == [(Level.WARNING, True), (Level.OK, False)]


def test_topics_and_clock_on_redis(folder: Path) -> None:
    with EmbeddedValkey(folder, log_settings(64)) as server:
        settings = read_settings({}, log_url=server.url)
        assert "missing: next-visit" in worst(settings, "topics").text
        assert worst(settings, "clock").level is Level.WARNING
        with open_log(server.url) as log:
            log.ensure_topics(topics.partition_counts(server.url, 4))
        assert [f.level for f in findings(settings, "topics", "clock")] == [Level.OK, Level.OK]
        other = worst(read_settings({}, log_url=server.url, partitions=8), "topics")
        assert (other.level, other.can_heal, "work has 4, not 8" in other.text) == (Level.FAILED, False, True)
    for name in ("log", "topics", "clock"):
        gone = worst(settings, name)
        assert (gone.level, gone.can_heal) == (Level.FAILED, True)


@pytest.mark.kafka
def test_kafka(kafka_url: str) -> None:
    settings = read_settings({}, log_url=kafka_url, partitions=2)
    with open_log(kafka_url) as log:
        log.ensure_topics(topics.partition_counts(kafka_url, 2), topics.retention(settings))
    found = findings(settings, "log", "topics", "clock")
    assert [f.level for f in found if f.level is Level.FAILED] == [], found
    texts = " | ".join(f.text for f in found)
    for part in ("1 brokers", "transactions can be begun", "replicas 1, min.insync.replicas 1", "log server's: "):
        assert part in texts
    assert worst(settings, "topics").text.startswith("one replica each")
    admin = AdminClient({"bootstrap.servers": kafka_url.removeprefix("kafka://").partition("?")[0]})
    from confluent_kafka.admin import ConfigResource, ResourceType

    resource = ConfigResource(ResourceType.TOPIC, topics.CONTROL)
    (future,) = admin.describe_configs([resource]).values()
    values = {name: entry.value for name, entry in future.result().items()}
    assert (values["retention.ms"], values["message.timestamp.type"]) == ("-1", "LogAppendTime")


@pytest.mark.kafka
def test_a_topic_with_a_small_limit_is_named(kafka_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"alerts-{uuid.uuid4().hex[:6]}"
    admin = AdminClient({"bootstrap.servers": kafka_url.removeprefix("kafka://").partition("?")[0]})
    (made,) = admin.create_topics([NewTopic(name, 1, config={"max.message.bytes": "1000000"})]).values()
    made.result()
    monkeypatch.setattr("service.checks.kafka.LARGE", (name,))
    monkeypatch.setattr("service.topics.ALL", (name,))
    found = worst(read_settings({}, log_url=kafka_url), "topics")
    assert (found.level, "max.message.bytes is 1000000" in found.text) == (Level.FAILED, True), found.text


def serve(*routers: APIRouter) -> HttpServer:
    server = HttpServer("127.0.0.1", 0, routers)
    server.start()
    return server


@pytest.fixture
def registry() -> Iterator[HttpServer]:
    """Our own registry."""
    server = serve(schema_routes())
    yield server
    server.stop()


def test_a_registry_with_our_schema(registry: HttpServer) -> None:
    found = worst(read_settings({}, schema_registry=f"http://127.0.0.1:{registry.port}/"), "schema")
    assert (found.level, "the same" in found.text) == (Level.OK, True), found.text


@pytest.mark.parametrize(
    ("status", "body", "says", "can_heal"),
    [
        (200, {"schema": schema_json().replace('"psfFlux"', '"psfFluxx"')}, "another schema", False),
        (200, {"schema": '{"type": "nonsense"}'}, "no Avro schema", False),
        (200, ["no registry"], "no schema registry", False),
        (404, {}, "register our schema", False),
        (401, {}, "are we let in", False),
        (500, {}, "answers 500", True),
    ],
)
def test_a_registry_with_something_else(status: int, body: object, says: str, can_heal: bool) -> None:
    router = APIRouter()

    @router.get(f"/schemas/ids/{SCHEMA_ID}")
    async def answer(response: Response) -> object:
        response.status_code = status
        return body

    server = serve(router)
    try:
        found = worst(read_settings({}, schema_registry=f"http://127.0.0.1:{server.port}"), "schema")
    finally:
        server.stop()
    assert (found.level, found.can_heal, says in found.text) == (Level.FAILED, can_heal, True), found.text


def test_a_registry_that_is_away_or_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.checks.schema.TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = read_settings({}, schema_registry=f"http://127.0.0.1:{silent.getsockname()[1]}")
        slow = worst(settings, "schema")
    away = worst(settings, "schema")
    for found in (slow, away):
        assert (found.level, found.can_heal, "does not answer" in found.text) == (Level.FAILED, True, True)


def test_apdb_on_sqlite(tmp_path: Path) -> None:
    assert worst(read_settings({}, dataset=tmp_path), "apdb").level is Level.WARNING
    make_apdb(tmp_path)
    settings = read_settings({}, dataset=tmp_path, apdb_config=str(tmp_path / "config.yaml"))
    found = worst(settings, "apdb")
    assert (found.level, "schema 1" in found.text) == (Level.OK, True), found.text
    (tmp_path / "apdb.sqlite").write_bytes(b"no database at all" * 100)
    assert worst(settings, "apdb").level is Level.FAILED


def test_apdb_on_postgresql_that_may_only_be_read(tmp_path: Path) -> None:
    from service.storage.apdb import create_apdb

    with PostgresServer(tmp_path) as server:
        create_apdb(server.url, tmp_path / "config.yaml")
        settings = read_settings({}, apdb_config=str(tmp_path / "config.yaml"))
        assert worst(settings, "apdb").level is Level.OK
        server.run("psql", server.plain_url, "-c", "ALTER DATABASE sub60 SET default_transaction_read_only = on")
        found = worst(settings, "apdb")
        assert (found.level, found.can_heal, "cannot be written" in found.text) == (Level.FAILED, False, True), found


def test_apdb_whose_server_is_away_may_come_back_and_one_with_a_wrong_name_does_not(tmp_path: Path) -> None:
    from service.storage.apdb import create_apdb

    with PostgresServer(tmp_path) as server:
        create_apdb(server.url, tmp_path / "config.yaml")
        text = (tmp_path / "config.yaml").read_text()
        (tmp_path / "wrong.yaml").write_text(text.replace(server.url, server.url + "_other"))
        wrong = worst(read_settings({}, apdb_config=str(tmp_path / "wrong.yaml")), "apdb")
        assert (wrong.level, wrong.can_heal) == (Level.FAILED, False), wrong
        server.stop()
        away = worst(read_settings({}, apdb_config=str(tmp_path / "config.yaml")), "apdb")
        assert (away.level, away.can_heal) == (Level.FAILED, True), away
        server.start()
        assert worst(read_settings({}, apdb_config=str(tmp_path / "config.yaml")), "apdb").level is Level.OK


def test_apdb_that_is_locked_may_be_free_later(tmp_path: Path) -> None:
    make_apdb(tmp_path)
    with (tmp_path / "config.yaml").open("a") as config:  # as patient as a test may be
        config.write("connection_config:\n  connection_timeout: 1\n")
    settings = read_settings({}, apdb_config=str(tmp_path / "config.yaml"))
    connection = sqlite3.connect(tmp_path / "apdb.sqlite", isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    found = worst(settings, "apdb")
    connection.execute("ROLLBACK")
    connection.close()
    assert (found.level, found.can_heal) == (Level.FAILED, True), found
    assert worst(settings, "apdb").level is Level.OK


def test_serve_refuses_what_cannot_heal(folder: Path) -> None:
    write_empty_dataset(folder / "dataset")
    with EmbeddedValkey(folder / "log", log_settings(64) | {"maxmemory-policy": "allkeys-lru"}) as server:
        environment = os.environ | {
            "SUB60_DATASET": str(folder / "dataset"),
            "SUB60_STATE_DIR": str(folder / "state"),
            "SUB60_LOG_URL": server.url,
            "SUB60_CACHE_URL": server.url,
        }
        done = subprocess.run(
            [sys.executable, "-m", "service.cli", "serve", "--role", "fanout"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert done.returncode == EXIT_REFUSED, done.stderr
    assert "sub60: log: maxmemory-policy is allkeys-lru" in done.stderr
    assert "check_failed" in done.stderr
