"""Who we are to the log and to the cache, and how we know them: from settings, so that no secret stands in a URL."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr

from core.errors import ConfigurationError

if TYPE_CHECKING:
    from service.settings import Settings

KAFKA: Final = "kafka:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Credentials and certificates for one server; the default is nobody, over whatever the URL says."""

    user: str = ""
    password: SecretStr = field(default=SecretStr(""))
    mechanism: str = "SCRAM-SHA-512"
    """Of a Kafka login."""
    ca: str = ""
    """PEM file of the authorities that may have signed the server's certificate; empty: the system's."""
    certificate: str = ""
    key: str = ""
    """PEM files of our own certificate, for a server that asks for one."""
    is_tls: bool = False
    """Kafka only; a Redis URL says it by its scheme."""
    is_plaintext_allowed: bool = False
    """Whether a password may travel unencrypted."""


NOBODY: Final = Access()


def log_access(settings: "Settings", url: str = "") -> Access:
    """Access to the log at ``url``, by default the settings' own."""
    if not (url or settings.log_url).startswith(KAFKA):
        return _redis_access(settings, settings.redis_user, settings.redis_password)
    return Access(
        user=settings.kafka_user,
        password=settings.kafka_password,
        mechanism=settings.kafka_mechanism,
        ca=settings.kafka_ca,
        certificate=settings.kafka_certificate,
        key=settings.kafka_key,
        is_tls=settings.kafka_tls or bool(settings.kafka_ca or settings.kafka_certificate),
        is_plaintext_allowed=settings.plaintext_passwords,
    )


def cache_access(settings: "Settings") -> Access:
    """Access to the cache: its own user where one is given, else the one of Redis."""
    if settings.cache_user or settings.cache_password.get_secret_value():
        return _redis_access(settings, settings.cache_user, settings.cache_password)
    return _redis_access(settings, settings.redis_user, settings.redis_password)


def readable_file(setting: str, path: str) -> str:
    """``path``, which must be there to be read; an empty one names no file."""
    if path:
        try:
            with Path(path).open("rb"):
                pass
        except OSError as error:
            raise ConfigurationError(f"{setting}: {error}", code="no_ca_file", path=path) from error
    return path


def refuse_plaintext(url: str, setting: str) -> ConfigurationError:
    """The error of a password that would travel where others can read it."""
    return ConfigurationError(
        f"a password would go unencrypted to {url}: use TLS ({setting}), or set SUB60_PLAINTEXT_PASSWORDS=true if the "
        "network is trusted",
        code="plaintext_password",
    )


def _redis_access(settings: "Settings", user: str, password: SecretStr) -> Access:
    return Access(
        user=user,
        password=password,
        ca=settings.redis_ca,
        is_plaintext_allowed=settings.plaintext_passwords,
    )
