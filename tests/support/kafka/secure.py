"""A broker with a login: certificates, users, and the ACLs that a user of ours needs."""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tests.support.kafka.broker import KafkaBroker, SecureListener, free_port

JARS = Path("var/kafka/jars")
USERS = {"sub60": "right-password", "stranger": "other-password"}


@dataclass(frozen=True)
class SecureKafka:
    """A running broker: its plain address, which may do everything, and its secure one."""

    plain: str
    secure: str
    ca: Path
    other_ca: Path
    """Of another authority, which did not sign the broker's certificate."""

    def allow(self, user: str, resource: str, name: str, *operations: str, is_prefix: bool = False) -> None:
        """Add ACLs for a user."""
        admin: Any = AdminClient({"bootstrap.servers": self.plain})
        pattern = ResourcePatternType.PREFIXED if is_prefix else ResourcePatternType.LITERAL
        bindings = [
            AclBinding(
                ResourceType[resource],
                name,
                pattern,
                f"User:{user}",
                "*",
                AclOperation[operation],
                AclPermissionType.ALLOW,
            )
            for operation in operations
        ]
        for made in admin.create_acls(bindings, request_timeout=10).values():
            made.result()


@contextlib.contextmanager
def secure_kafka(folder: Path, jars: Path = JARS) -> Iterator[SecureKafka]:
    """Start one below ``folder``; stop it at the end. Skips where java or the jars are missing."""
    if shutil.which("java") is None or not (jars / "pom.sha256").exists():
        pytest.skip(f"no java, or no jars of Kafka in {jars} (`make kafka` fetches them)")
    folder.mkdir(parents=True, exist_ok=True)
    authority, other = trustme.CA(), trustme.CA()
    keystore, ca, other_ca = folder / "server.pem", folder / "ca.pem", folder / "other-ca.pem"
    write_keystore(authority.issue_cert("127.0.0.1"), keystore)
    authority.cert_pem.write_to_path(ca)
    other.cert_pem.write_to_path(other_ca)
    port = free_port()
    broker = KafkaBroker(folder, jars, SecureListener(port, keystore, USERS))
    plain = broker.start(free_port())
    try:
        yield SecureKafka(plain, f"127.0.0.1:{port}", ca, other_ca)
    finally:
        broker.stop()


def write_keystore(certificate: trustme.LeafCert, path: Path) -> None:
    """Key and chain as Kafka reads them: it takes PKCS#8 only."""
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(pem + b"".join(part.bytes() for part in certificate.cert_chain_pems))
    path.chmod(0o600)
