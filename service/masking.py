"""Secrets are shown nowhere: addresses without their passwords, and a last guard before a log line is written."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from pydantic import SecretStr
from structlog.typing import EventDict, WrappedLogger

MASK: Final = "***"
MIN_SECRET: Final = 4
"""Shorter values are not looked for in log lines: they would be found in innocent words."""
_SECRET_WORDS: Final = ("password", "secret", "token", "ssl.key", "jaas")


def mask_url(url: str, shown: str = MASK) -> str:
    """``url`` with ``shown`` for every password in it; an empty ``shown`` leaves them out, and the URL can be used."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return MASK
    query = parse_qsl(parts.query, keep_blank_values=True)
    login, at, place = parts.netloc.rpartition("@")
    user, colon, _ = login.partition(":")
    if colon:
        login = f"{user}:{shown}" if shown else user
        at = "@" if login else ""
    if any(_is_secret(name) for name, _ in query):
        kept = [(name, shown if _is_secret(name) else value) for name, value in query if shown or not _is_secret(name)]
        parts = parts._replace(query=urlencode(kept, safe="*/:"))
    if not colon and query == parse_qsl(parts.query, keep_blank_values=True):
        return url
    return urlunsplit(parts._replace(netloc=f"{login}{at}{place}"))


def secrets_in_url(url: str) -> set[str]:
    """The passwords of a URL, as written and decoded."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return set()
    found = {value for name, value in parse_qsl(parts.query) if _is_secret(name)}
    written = parts.netloc.rpartition("@")[0].partition(":")[2]
    return {text for value in (*found, written) if value for text in (value, unquote(value), quote(value, safe=""))}


def known_secrets(settings: Mapping[str, Any]) -> frozenset[str]:
    """Every secret in the values of some settings, and in the URLs among them."""
    found: set[str] = set()
    for name, value in settings.items():
        if isinstance(value, SecretStr):
            secret = value.get_secret_value()
            found |= {secret, quote(secret, safe="")}
        elif isinstance(value, str) and name.endswith("_url"):
            found |= secrets_in_url(value)
    return frozenset(secret for secret in found if len(secret) >= MIN_SECRET)


def mask_secrets(secrets: Iterable[str]) -> Callable[[WrappedLogger, str, EventDict], EventDict]:
    """A structlog processor that replaces these values wherever they stand in an event."""
    longest_first = sorted(secrets, key=len, reverse=True)

    def mask(value: Any) -> Any:
        if isinstance(value, str):
            for secret in longest_first:
                value = value.replace(secret, MASK)
            return value
        if isinstance(value, Mapping):
            return {mask(name): mask(item) for name, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [mask(item) for item in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        return mask(repr(value))

    def process(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
        return {name: mask(value) for name, value in event.items()} if longest_first else event

    return process


def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in _SECRET_WORDS)
