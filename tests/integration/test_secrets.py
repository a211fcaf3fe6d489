"""No password in anything the service writes, shows or is started with; the environment is where it stands."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from benchmarks.service_process import free_ports
from tests.support.secure_redis import SecureRedis, documented_rules, secure_redis
from tests.support.service.harness import FAKE, write_empty_dataset

LOG_PASSWORD = "Tr0ub4dor-in-the-url"
CACHE_PASSWORD = "c0rrect-horse-in-a-setting"
KAFKA_PASSWORD = "battery-st4ple-unused"
PASSWORDS = (LOG_PASSWORD, CACHE_PASSWORD, KAFKA_PASSWORD)
PATHS = ("/metrics", "/healthz", "/readyz", "/", "/summary", "/visits", "/deadletters", "/openapi.json", "/nowhere")


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[SecureRedis, ExitStack]]:
    users = {
        "sub60-log": "on " + documented_rules("sub60-log").replace(">LOG-PASSWORD", f">{LOG_PASSWORD}"),
        "sub60-cache": "on " + documented_rules("sub60-cache").replace(">CACHE-PASSWORD", f">{CACHE_PASSWORD}"),
    }
    with ExitStack() as stack:
        yield stack.enter_context(secure_redis(tmp_path / "redis", users)), stack


def environment(server: SecureRedis, folder: Path, port: int) -> dict[str, str]:
    place = server.url.removeprefix("rediss://")
    return {name: value for name, value in os.environ.items() if not name.startswith("SUB60_")} | {
        "SUB60_DATASET": str(write_empty_dataset(folder / "dataset")),
        "SUB60_STATE_DIR": str(folder / "state"),
        "SUB60_LOG_URL": f"rediss://sub60-log:{LOG_PASSWORD}@{place}",
        "SUB60_CACHE_URL": server.url,
        "SUB60_CACHE_USER": "sub60-cache",
        "SUB60_CACHE_PASSWORD": CACHE_PASSWORD,
        "SUB60_KAFKA_USER": "unused",
        "SUB60_KAFKA_PASSWORD": KAFKA_PASSWORD,
        "SUB60_REDIS_CA": str(server.ca),
        "SUB60_HTTP_PORT": str(port),
        "SUB60_COMPUTE": FAKE,
        "SUB60_WORKERS": "1",
        "SUB60_LOG_LEVEL": "debug",
        "SUB60_DRAIN_S": "2",
    }


def wait_ready(path: Path, process: subprocess.Popen[bytes], log: Path) -> dict[str, Any]:
    until = time.monotonic() + 90
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()[-3000:]
        with suppress(FileNotFoundError, ValueError):
            found: dict[str, Any] = json.loads(path.read_text())
            if found["ready"]:
                return found
        time.sleep(0.2)
    raise AssertionError(log.read_text()[-3000:])


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def show(base: str, path: str) -> bytes:
    try:
        with urlopen(base + path, timeout=5) as answer:
            return bytes(answer.read()) + str(answer.headers).encode()
    except HTTPError as error:
        return bytes(error.read())


def test_no_password_is_shown_anywhere(servers: tuple[SecureRedis, ExitStack], tmp_path: Path) -> None:
    server, stack = servers
    folder = tmp_path / "service"
    folder.mkdir()
    log = folder / "service.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "service.cli", "serve", "--role", "all"],
            env=environment(server, folder, free_ports(18160)),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        endpoints = wait_ready(folder / "state/endpoints.json", process, log)
        assert stat.S_IMODE((folder / "state/endpoints.json").stat().st_mode) == 0o600
        assert endpoints["log_url"] == server.url.replace("rediss://", "rediss://sub60-log@")
        seen = [show(base, path) for base in endpoints["http"].values() for path in PATHS]
        members = family(process.pid)
        assert len(members) > 5
        seen += [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in members]
        assert all(LOG_PASSWORD.encode() in Path(f"/proc/{pid}/environ").read_bytes() for pid in members[1:])
        seen.append((folder / "state/endpoints.json").read_bytes())
        stack.close()  # the server is gone: every role now complains
        time.sleep(3)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    assert b"unavailable" in log.read_bytes() or b"transient_error" in log.read_bytes()
    seen += [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    for password in PASSWORDS:
        assert not any(password.encode() in text for text in seen)


def test_commands_show_no_password(servers: tuple[SecureRedis, ExitStack], tmp_path: Path) -> None:
    server, stack = servers
    variables = environment(server, tmp_path / "service", 18160)
    stack.close()
    for arguments in (["check"], ["topics", "list"], ["tail", "-n", "1"]):
        done = subprocess.run(
            [sys.executable, "-m", "service.cli", *arguments],
            env=variables,
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode != 0
        assert done.stdout + done.stderr
        for password in PASSWORDS:
            assert password.encode() not in done.stdout + done.stderr
