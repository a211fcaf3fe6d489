"""Log and cache on a Redis with TLS and users: the least rights are enough, and a refusal says what to do."""

import socket
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from pydantic import SecretStr

from core.camera import load_camera
from core.errors import ConfigurationError, TransientError
from service import topics
from service.access import Access
from service.cli import main
from service.connections import ping_cache, ping_log
from service.log import Fenced, IdentityTaken, LogUnavailable, Record, open_log
from service.redis_access import client_options
from service.roles.attempts import RedisAttempts
from service.settings import read_settings
from service.storage.cache import Cache, connect
from service.storage.claims import Claims
from service.storage.codec import pack_array, unpack_array
from service.storage.history import HistoryStore
from service.storage.tables import empty_history
from tests.contract.stores_support import KEY
from tests.support.log_harness import poll_until, read_until
from tests.support.log_worker import after, outputs
from tests.support.secure_redis import SecureRedis, documented_rules, secure_redis

PASSWORD = "log-password"
CACHE_PASSWORD = "cache-password"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureRedis]:
    users = {
        "sub60-log": "on " + documented_rules("sub60-log").replace(">LOG-PASSWORD", f">{PASSWORD}"),
        "sub60-cache": "on " + documented_rules("sub60-cache").replace(">CACHE-PASSWORD", f">{CACHE_PASSWORD}"),
    }
    with secure_redis(tmp_path_factory.mktemp("redis"), users) as running:
        yield running


@pytest.fixture
def log_access(server: SecureRedis) -> Access:
    return Access(user="sub60-log", password=SecretStr(PASSWORD), ca=str(server.ca))


@pytest.fixture
def cache_access(server: SecureRedis) -> Access:
    return Access(user="sub60-cache", password=SecretStr(CACHE_PASSWORD), ca=str(server.ca))


def test_the_log_works_with_the_least_rights(server: SecureRedis, log_access: Access) -> None:
    with open_log(server.url, log_access) as log:
        log.ensure_topics({"work": 2, "out": 1})
        producer = log.producer()
        jobs = [(p, n) for n in range(2) for p in range(2)]
        producer.append([Record("work", b"%d" % p, b"%d:%d" % (p, n), partition=p) for p, n in jobs])
        first: Any = log.join("group", "work", 0)
        found = poll_until(first, 4)
        for message in found[:2]:
            first.commit(message.partition, after(first, message), outputs("out", message, 0), epoch=message.epoch)
        second: Any = log.join("group", "work", 0)  # the same slot: the former process is fenced
        message = found[2]
        with pytest.raises((Fenced, IdentityTaken)):
            first.commit(message.partition, after(first, message), outputs("out", message, 0), epoch=message.epoch)
        again = poll_until(second, 2)
        for message in again:
            second.commit(message.partition, after(second, message), outputs("out", message, 0), epoch=message.epoch)
        reader = log.reader("out", name="files")
        values = read_until(reader, 12)
        assert sorted(m.value for m in values) == sorted(b"%d:%d/%d" % (p, n, i) for p, n in jobs for i in range(3))
        reader.commit()
        assert log.trim("out", 0, ["files"]) > 0
        assert log.size_bytes("out") == 0
        for part in (second, first, reader, producer):
            part.close()


def test_the_cache_works_with_the_least_rights(server: SecureRedis, cache_access: Access) -> None:
    cache = Cache(server.url, cache_access)
    array = np.random.default_rng(3).normal(size=(2000, 1000))  # four pieces, longer than a TLS record
    cache.put_arrays({"flat": pack_array(array)})
    np.testing.assert_array_equal(unpack_array(cache.get_arrays(["flat", "none"])["flat"]), array)
    cache.put_recipe(KEY, ())
    assert cache.get_recipe(KEY) == ()
    cache.close()
    client = connect(server.url, 2.0, cache_access)
    ids = Claims(client).claim("7:0", np.array([10.0]), np.array([-20.0]), np.array([5]))
    assert ids.tolist() == [5]
    assert Claims(client).claim("7:1", np.array([10.0]), np.array([-20.0]), np.array([6])).tolist() == [5]
    skipped: list[int] = []
    attempts = RedisAttempts(client, 60, lambda: skipped.append(1))
    assert [attempts.start(7, 0), attempts.start(7, 0)] == [(1, False), (2, False)]
    attempts.forgive(7, 0)
    attempts.done(7, 0)
    assert (attempts.start(7, 0)[1], skipped) == (True, [])
    history = HistoryStore(client, None, load_camera("testcam"), lambda: 0.0)
    history.append(7, 0, empty_history())
    assert not history.is_marked()
    history.mark()
    assert not history.load(KEY)[0].dia_objects.size
    assert not history.read_tail(history.cells(KEY)).dia_sources.size
    assert not skipped
    client.close()


def test_each_user_is_kept_from_the_others_keys(server: SecureRedis, log_access: Access, cache_access: Access) -> None:
    with pytest.raises(ConfigurationError, match="ACL") as caught, open_log(server.url, cache_access) as log:
        log.ensure_topics({"work": 2})
    assert caught.value.code == "redis_acl"
    with pytest.raises(TransientError):
        Cache(server.url, log_access).put_recipe(KEY, ())


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"password": SecretStr("wrong")}, "redis_login"),
        ({"password": SecretStr(""), "user": ""}, "redis_login"),
        ({"user": "nobody"}, "redis_login"),
        ({"ca": "other"}, "redis_tls"),
        ({"ca": ""}, "redis_tls"),
        ({"ca": "/nowhere.pem"}, "no_ca_file"),
    ],
)
def test_a_refusal_is_an_error_of_the_configuration(server: SecureRedis, changes: dict[str, Any], code: str) -> None:
    if changes.get("ca") == "other":
        changes = changes | {"ca": str(server.other_ca)}
    right = {"user": "sub60-log", "password": SecretStr(PASSWORD), "ca": str(server.ca)}
    with pytest.raises(ConfigurationError) as caught, open_log(server.url, Access(**(right | changes))) as log:
        log.ping()
    assert caught.value.code == code
    assert PASSWORD not in str(caught.value)


def test_another_host_name_than_the_certificates_is_refused(server: SecureRedis, log_access: Access) -> None:
    url = server.url.replace("127.0.0.1", "localhost")
    with pytest.raises(ConfigurationError) as caught, open_log(url, log_access) as log:
        log.ping()
    assert caught.value.code == "redis_tls"
    reader = Cache(url, log_access)
    with pytest.raises(TransientError):
        reader.get_arrays(["x"])
    reader.close()


def test_a_client_without_tls_gets_nothing(server: SecureRedis) -> None:
    url = f"redis://127.0.0.1:{server.port}"
    settings = read_settings({}, log_url=url, cache_url=url)
    for ping in (ping_log, ping_cache):
        with pytest.raises(ConfigurationError, match="rediss://"):
            ping(settings)
    with pytest.raises(TransientError):
        Cache(url).get_arrays(["x"])
    away = read_settings({}, log_url="redis://127.0.0.1:1", cache_url="redis://127.0.0.1:1")
    with pytest.raises(LogUnavailable):
        ping_log(away)


def test_a_password_is_not_tried_on_a_server_without_tls() -> None:
    """A server that answers in the clear: the client says nothing of its login."""
    heard = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                heard.extend(connection.recv(4096))
                connection.sendall(b"-ERR unknown command\r\n")

        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
        access = Access(user="sub60-log", password=SecretStr(PASSWORD))
        url = f"rediss://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ConfigurationError, match="must speak TLS"), open_log(url, access) as log:
            log.ping()
        serving.join(5)
    assert heard[:1] == b"\x16"  # a TLS handshake
    assert PASSWORD.encode() not in heard


def test_a_password_does_not_travel_in_the_clear() -> None:
    for url, access in (
        ("redis://cache:6379", Access(user="u", password=SecretStr("pass-word"))),
        ("redis://u:pass-word@cache:6379", Access()),
        ("redis://cache:6379?password=pass-word", Access()),
    ):
        with pytest.raises(ConfigurationError, match="unencrypted") as caught:
            client_options(url, access)
        assert "pass-word" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="always checked"):
        client_options("rediss://cache:6379?ssl_cert_reqs=none")
    assert client_options("unix:///run/log.sock", Access(user="u", password=SecretStr("p")))["password"] == "p"


def test_check_says_what_is_wrong(server: SecureRedis) -> None:
    environment = {
        "SUB60_LOG_URL": server.url,
        "SUB60_CACHE_URL": server.url,
        "SUB60_REDIS_CA": str(server.ca),
        "SUB60_REDIS_USER": "sub60-log",
        "SUB60_REDIS_PASSWORD": PASSWORD,
        "SUB60_CACHE_USER": "sub60-cache",
        "SUB60_CACHE_PASSWORD": CACHE_PASSWORD,
    }
    right = CliRunner().invoke(main, ["check"], env=environment).output
    for name in ("log", "cache"):  # asked, whatever else is to be said of such a server
        assert any(name in line and f"{server.url}: version" in line for line in right.splitlines())
    wrong = CliRunner().invoke(main, ["check"], env=environment | {"SUB60_REDIS_PASSWORD": "no-password"})
    assert wrong.exit_code == 1
    assert "failed  log       redis_login" in wrong.output
    assert "SUB60_REDIS_PASSWORD" in wrong.output
    assert "no-password" not in wrong.output
    served = CliRunner().invoke(main, ["serve", "--role", "api"], env=environment | {"SUB60_REDIS_PASSWORD": "no-pass"})
    assert served.exit_code == 78
    assert topics.ALERTS not in served.output
