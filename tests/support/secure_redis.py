"""A Redis server with TLS and users, which the embedded one has not: Debian's, where it is installed."""

import contextlib
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from tests.support.kafka.broker import free_port

PLACES = ("/usr/bin", "/usr/local/bin", "var/redis/usr/bin")


DOCS = Path(__file__).parents[2] / "docs" / "security.md"


def documented_rules(user: str) -> str:
    """The rules that the page tells an operator to write."""
    found = re.search(rf"^user {user} on (.*?)(?:\n\n|\n```)", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return " ".join(found[1].replace("\\\n", " ").split())


@dataclass(frozen=True)
class SecureRedis:
    """A running server."""

    port: int
    ca: Path
    other_ca: Path
    """Of another authority, which did not sign its certificate."""

    @property
    def url(self) -> str:
        """With TLS."""
        return f"rediss://127.0.0.1:{self.port}"


@contextlib.contextmanager
def secure_redis(folder: Path, users: Mapping[str, str]) -> Iterator[SecureRedis]:
    """Start one below ``folder`` that listens with TLS only; ``users``: name -> rules, ``default`` is off."""
    program = shutil.which("redis-server") or next(
        (str(Path(place) / "redis-server") for place in PLACES if (Path(place) / "redis-server").exists()), None
    )
    if program is None:
        pytest.skip("no redis-server with TLS (apt-get install --no-install-recommends redis-server)")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = _configure(folder, users, port)
    log = folder / "redis.log"
    with log.open("wb") as output:
        process = subprocess.Popen([program, str(config)], stdout=output, stderr=subprocess.STDOUT)
    try:
        until = time.monotonic() + 10
        while not _connects(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.02)
        yield SecureRedis(port, folder / "ca.pem", folder / "other-ca.pem")
    finally:
        process.terminate()
        process.wait(10)


def _configure(folder: Path, users: Mapping[str, str], port: int) -> Path:
    """Certificates, users and the configuration that names them."""
    authority, other = trustme.CA(), trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    ca, other_ca, certificate, key = (folder / f"{name}.pem" for name in ("ca", "other-ca", "server", "key"))
    authority.cert_pem.write_to_path(ca)
    other.cert_pem.write_to_path(other_ca)
    leaf.private_key_pem.write_to_path(key)
    certificate.write_bytes(b"".join(part.bytes() for part in leaf.cert_chain_pems))
    acl = folder / "users.acl"
    acl.write_text("user default off\n" + "".join(f"user {name} {rules}\n" for name, rules in users.items()))
    options = {
        "port": "0",
        "tls-port": str(port),
        "bind": "127.0.0.1",
        "tls-cert-file": str(certificate),
        "tls-key-file": str(key),
        "tls-ca-cert-file": str(ca),
        "tls-auth-clients": "no",
        "aclfile": str(acl),
        "dir": str(folder),
        "appendonly": "yes",
        "save": '""',
        "maxmemory-policy": "noeviction",
    }
    config = folder / "redis.conf"
    config.write_text("".join(f"{name} {value}\n" for name, value in options.items()))
    return config


def _connects(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
        return True
    return False
