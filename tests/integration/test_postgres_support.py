"""The PostgreSQL that other tests stand on: what was committed survives kill -9, and a frozen one comes back."""

from pathlib import Path

import psycopg2
import pytest

from tests.support.postgres import PostgresServer


def _one(server: PostgresServer, statement: str) -> object:
    connection = psycopg2.connect(server.plain_url, connect_timeout=5, options="-c statement_timeout=2000")
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchone()[0] if cursor.description else None
    finally:
        connection.close()


def test_data_outlive_a_kill_a_stop_and_a_freeze(tmp_path: Path) -> None:
    with PostgresServer(tmp_path) as server:
        url = server.url
        _one(server, "CREATE TABLE t AS SELECT 7 AS x")
        server.kill()
        with pytest.raises(psycopg2.OperationalError):
            _one(server, "SELECT x FROM t")
        assert server.start() == url
        assert _one(server, "SELECT x FROM t") == 7
        server.stop()
        assert server.start() == url
        server.suspend()
        server.resume()
        assert _one(server, "SELECT x FROM t") == 7
    assert not server.data.exists()
