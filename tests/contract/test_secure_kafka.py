"""The log on a Kafka with TLS, SCRAM and ACLs: the least rights are enough, and a refusal says what to do."""

import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import SecretStr

from core.errors import ConfigurationError
from service import topics
from service.access import Access
from service.cli import main
from service.log import Log, LogUnavailable, Record, open_log
from service.log.kafka_security import security_settings
from tests.support.kafka.secure import USERS, SecureKafka, secure_kafka
from tests.support.log_harness import poll_until, read_until, wait_until
from tests.support.log_worker import after, outputs

pytestmark = pytest.mark.kafka
DOCS = Path(__file__).parents[2] / "docs" / "security.md"
USER = "sub60"


def documented_acls() -> list[tuple[str, str, bool, list[str]]]:
    """(resource, name, is a prefix, operations) of each row of the page's table."""
    rows = re.findall(
        r"^\| (TOPIC|GROUP|TRANSACTIONAL_ID|BROKER) \| `([^`]+)` \| ([A-Z_, ]+) \|", DOCS.read_text(), re.M
    )
    assert len(rows) > 5
    return [(kind, name.rstrip("*"), name.endswith("*"), operations.split(", ")) for kind, name, operations in rows]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    with secure_kafka(tmp_path_factory.mktemp("kafka")) as running:
        with open_log(f"kafka://{running.plain}") as log:
            log.ensure_topics(topics.partition_counts("kafka:", 2))
            wait_until(lambda: has_coordinator(log))  # a new broker's first group waits for its internal topic
        for kind, name, is_prefix, operations in documented_acls():
            running.allow(USER, kind, name, *operations, is_prefix=is_prefix)
        yield running


def has_coordinator(log: Log) -> bool:
    try:
        log.reader(topics.STATUS, name="first").close()
    except LogUnavailable:
        return False
    return True


def access(broker: SecureKafka, **changes: Any) -> Access:
    right = {"user": USER, "password": SecretStr(USERS[USER]), "ca": str(broker.ca), "is_tls": True}
    return Access(**(right | changes))


def refused(broker: SecureKafka, given: Access, address: str = "") -> ConfigurationError:
    def ask() -> None:
        log: Any = open_log(f"kafka://{address or broker.secure}", given)
        log._timeout_s = 3.0
        log.ping()

    with pytest.raises(ConfigurationError) as caught:
        ask()
    assert USERS[USER] not in str(caught.value)
    return caught.value


def test_every_role_works_with_the_least_rights(broker: SecureKafka) -> None:
    with open_log(f"kafka://{broker.secure}", access(broker)) as log:
        log.ensure_topics(topics.partition_counts("kafka:", 2))  # they are there: no right to create is asked for
        producer = log.producer()
        producer.append([Record(topics.READOUT, b"k", b"event"), Record(topics.WORK, b"k", b"0:0", partition=0)])
        for topic, name in (
            (topics.READOUT, "fanout"),
            (topics.NEXT_VISIT, "fanout"),
            (topics.RESULTS, "sink-history"),
        ):
            reader = log.reader(topic, name=name)
            reader.poll(0.2)
            reader.commit()
            reader.close()
        worker: Any = log.join("workers", topics.WORK, 0)
        (message,) = poll_until(worker, 1)
        worker.commit(
            message.partition, after(worker, message), outputs(topics.ALERTS, message, 0), epoch=message.epoch
        )
        assert worker.checkpoint(0).offset == 1
        member = log.join("prefetch", topics.WORK, 0)
        reader = log.reader(topics.ALERTS)
        assert len(read_until(reader, 3)) == 3
        poll_until(member, 1)  # one that closes before its first poll waits long for its assignment
        for part in (reader, worker, member, producer):
            part.close()


@pytest.mark.parametrize(
    ("changes", "code", "advice"),
    [
        ({"password": SecretStr("wrong")}, "kafka_login", "SUB60_KAFKA_PASSWORD"),
        ({"user": "nobody"}, "kafka_login", "SUB60_KAFKA_USER"),
        ({"mechanism": "SCRAM-SHA-256"}, "kafka_login", "SUB60_KAFKA_MECHANISM"),
        ({"user": "", "password": SecretStr("")}, "kafka_login", "it wants TLS or a login"),
        ({"user": "", "password": SecretStr(""), "ca": "", "is_tls": False}, "kafka_login", "SUB60_KAFKA_CA"),
        ({"user": "", "password": SecretStr("alone")}, "kafka_login", "go together"),
        ({"ca": "other"}, "kafka_tls", "SUB60_KAFKA_CA"),
        ({"ca": "/nowhere.pem"}, "no_ca_file", "SUB60_KAFKA_CA"),
    ],
)
def test_a_refusal_is_an_error_of_the_configuration(
    broker: SecureKafka, changes: dict[str, Any], code: str, advice: str
) -> None:
    if changes.get("ca") == "other":
        changes = changes | {"ca": str(broker.other_ca)}
    error = refused(broker, access(broker, **changes))
    assert (error.code, advice in str(error)) == (code, True), str(error)


def test_another_host_name_than_the_certificates_is_refused(broker: SecureKafka) -> None:
    error = refused(broker, access(broker), broker.secure.replace("127.0.0.1", "localhost"))
    assert error.code == "kafka_tls"
    assert "host name" in str(error)


def test_tls_to_a_plain_port_is_refused(broker: SecureKafka) -> None:
    assert refused(broker, access(broker), broker.plain).code == "kafka_tls"


def test_what_no_acl_allows_is_an_error_that_names_the_right(broker: SecureKafka) -> None:
    stranger = access(broker, user="stranger", password=SecretStr(USERS["stranger"]))
    with open_log(f"kafka://{broker.secure}", stranger) as log:
        log.ping()  # a login is all this needs
        with pytest.raises(ConfigurationError, match="no topic 'alerts'"):
            log.partitions(topics.ALERTS)
        with pytest.raises(ConfigurationError, match="CREATE") as caught:
            log.ensure_topics({topics.ALERTS: 2})
        assert caught.value.code == "kafka_acl"
    broker.allow("stranger", "TOPIC", topics.ALERTS, "DESCRIBE")
    broker.allow("stranger", "GROUP", "stranger", "READ", is_prefix=True)
    with open_log(f"kafka://{broker.secure}", stranger) as log:
        with pytest.raises(ConfigurationError, match="READ"):
            log.reader(topics.ALERTS, name="stranger").poll(10.0)
        with pytest.raises(ConfigurationError, match="WRITE"):
            log.producer().append([Record(topics.ALERTS, b"k", b"v", partition=0)])
        with pytest.raises(ConfigurationError, match="transactional id"):
            log.join("stranger", topics.ALERTS, 0)


def test_topics_are_made_by_a_user_with_that_right(broker: SecureKafka) -> None:
    name = f"extra-{uuid.uuid4().hex[:6]}"
    with open_log(f"kafka://{broker.secure}", access(broker)) as log:
        with pytest.raises(ConfigurationError, match="CREATE"):
            log.ensure_topics({name: 1})
        broker.allow(USER, "TOPIC", "extra-", "CREATE", "DESCRIBE", is_prefix=True)
        log.ensure_topics({name: 1})
        assert log.partitions(name) == 1


def test_check_and_serve_say_what_is_wrong(broker: SecureKafka) -> None:
    environment = {
        "SUB60_LOG_URL": f"kafka://{broker.secure}",
        "SUB60_KAFKA_CA": str(broker.ca),
        "SUB60_KAFKA_USER": USER,
        "SUB60_KAFKA_PASSWORD": USERS[USER],
        "SUB60_PARTITIONS": "2",
    }
    right = CliRunner().invoke(main, ["check"], env=environment).output
    assert "ok      log       cluster" in right
    assert "ok      log       transactions can be begun" in right
    assert "failed  topics" not in right
    wrong = environment | {"SUB60_KAFKA_PASSWORD": "not-the-password"}
    checked = CliRunner().invoke(main, ["check"], env=wrong)
    assert "failed  log       kafka_login" in checked.output
    assert "SUB60_KAFKA_PASSWORD" in checked.output
    served = CliRunner().invoke(main, ["serve", "--role", "fanout"], env=wrong)
    assert served.exit_code == 78
    assert "SUB60_KAFKA_PASSWORD" in served.output
    assert "not-the-password" not in checked.output + served.output


def test_a_password_does_not_travel_in_the_clear() -> None:
    given = Access(user="u", password=SecretStr("pass-word"))
    assert security_settings("b:1", given, {})["security.protocol"] == "SASL_SSL"
    with pytest.raises(ConfigurationError, match="unencrypted") as caught:
        security_settings("b:1", given, {"security.protocol": "SASL_PLAINTEXT"})
    assert "pass-word" not in str(caught.value)
    allowed = Access(user="u", password=SecretStr("pass-word"), is_plaintext_allowed=True)
    assert security_settings("b:1", allowed, {})["security.protocol"] == "SASL_PLAINTEXT"
    files = Access(ca=__file__, certificate=__file__, key=__file__, is_tls=True)
    assert security_settings("b:1", files, {}) == {
        "security.protocol": "SSL",
        "ssl.ca.location": __file__,
        "ssl.certificate.location": __file__,
        "ssl.key.location": __file__,
    }
    with pytest.raises(ConfigurationError, match="switched off"):
        security_settings("b:1", given, {"enable.ssl.certificate.verification": "false"})
    with pytest.raises(ConfigurationError, match="holds no login"):
        open_log("kafka://u:pass-word@b:1", given)
