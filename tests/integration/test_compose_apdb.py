"""The compose file's step that makes the APDB, on a real PostgreSQL that wants a password."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.bundle_loader import open_apdb
from tests.image.compose import filled_example, read_compose
from tests.support.postgres import PostgresServer

PASSWORD = "chosen by somebody"


@pytest.fixture
def server(tmp_path):
    with PostgresServer(tmp_path) as server:
        (server.data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
        order = f"ALTER USER sub60 PASSWORD '{PASSWORD}'"
        server.run("psql", server.plain_url, "--command", order, "--command", "SELECT pg_reload_conf()")
        yield server


def run_step(server, config, password):
    service = read_compose(filled_example())["services"]["apdb"]
    (script,) = service["command"]
    script = script.replace("$$", "$").replace("@postgres/", "@" + server.url.partition("@")[2].partition("/")[0] + "/")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "SUB60_APDB_CONFIG": str(config), "PGPASSWORD": password}
    return subprocess.run(
        [*service["entrypoint"], script], env=environment, capture_output=True, text=True, check=False
    )


def test_makes_an_apdb_that_takes_writes_once(server, tmp_path, monkeypatch):
    config = tmp_path / "state" / "apdb" / "config.yaml"
    done = run_step(server, config, PASSWORD)
    assert done.returncode == 0, done.stderr
    assert PASSWORD not in config.read_text()
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    store = open_apdb(str(config))
    assert store.schema_version()
    store.try_write()
    before = config.stat()
    assert run_step(server, config, PASSWORD).returncode == 0
    assert config.stat() == before


def test_a_wrong_password_leaves_no_configuration(server, tmp_path):
    config = tmp_path / "state" / "apdb" / "config.yaml"
    done = run_step(server, config, "another")
    assert done.returncode != 0
    assert "password" in done.stderr
    assert not config.exists()
