"""Addresses without their passwords, log lines without any secret."""

import io
import json

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from service.masking import known_secrets, mask_secrets, mask_url
from service.settings import read_settings


@pytest.mark.parametrize(
    ("url", "shown", "usable"),
    [
        ("redis://h:6379/1", "redis://h:6379/1", "redis://h:6379/1"),
        ("unix:///run/x.sock", "unix:///run/x.sock", "unix:///run/x.sock"),
        ("rediss://u:p%40ss@h:1", "rediss://u:***@h:1", "rediss://u@h:1"),
        ("redis://:pass@h:1/0", "redis://:***@h:1/0", "redis://h:1/0"),
        ("redis://u:a@b@h:1", "redis://u:***@h:1", "redis://u@h:1"),
        ("redis://h?password=pass&db=2", "redis://h?password=***&db=2", "redis://h?db=2"),
        ("kafka://h:1,g:2?client.id=x", "kafka://h:1,g:2?client.id=x", "kafka://h:1,g:2?client.id=x"),
        ("kafka://h:1?sasl.password=pass", "kafka://h:1?sasl.password=***", "kafka://h:1"),
        ("postgresql://u:pass@h/db", "postgresql://u:***@h/db", "postgresql://u@h/db"),
        ("", "", ""),
        ("redis://[", "***", "***"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str, usable: str) -> None:
    assert (mask_url(url), mask_url(url, shown="")) == (shown, usable)


@given(st.text("abcXYZ09!$&'()*+,;=%~.-_@: ", min_size=6))
def test_no_password_survives(password: str) -> None:
    assert password not in mask_url(f"redis://user:{password}@host:6379/0")


def test_every_secret_of_the_settings_is_known_as_it_may_be_written() -> None:
    settings = read_settings(
        {}, kafka_password="kafka/secret", redis_password="redis-secret", log_url="redis://u:p%40ss-word@h:1"
    )
    assert {"kafka/secret", "kafka%2Fsecret", "redis-secret", "p%40ss-word", "p@ss-word"} <= known_secrets(
        dict(settings)
    )
    assert known_secrets({"kafka_password": SecretStr(""), "log_url": "unix:///x"}) == frozenset()
    for shown in (repr(settings.kafka_password), str(settings.redis_password)):
        assert "secret" not in shown


def test_no_log_line_holds_a_secret_wherever_it_comes_from() -> None:
    output = io.StringIO()
    log = structlog.wrap_logger(
        structlog.PrintLogger(output),
        processors=[
            structlog.processors.format_exc_info,
            mask_secrets({"hush-hush", "hush"}),
            structlog.processors.JSONRenderer(),
        ],
    )
    try:
        raise ValueError("at redis://u:hush-hush@h")
    except ValueError as error:
        log.exception(
            "failed", error=error, url="redis://u:hush-hush@h", nested={"hush-hush": ["x", ("hush-hush",)]}, n=7
        )
    text = output.getvalue()
    assert "hush" not in text
    assert json.loads(text)["nested"] == {"***": ["x", ["***"]]}
    assert json.loads(text)["n"] == 7


def test_a_bad_setting_is_named_and_not_quoted() -> None:
    from core.errors import ConfigurationError

    with pytest.raises(ConfigurationError) as caught:
        read_settings({"SUB60_WORKERS": "hush-hush"})
    assert "hush-hush" not in str(caught.value) + str(caught.value.__cause__)
