"""Redis behind TLS and a login: options of every client of ours, and what a refusal means."""

import socket
import ssl
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import redis

from core.errors import ConfigurationError
from service.access import NOBODY, Access, readable_file, refuse_plaintext
from service.masking import mask_url, secrets_in_url

_errors: Any = redis.exceptions
REFUSALS: Final = (_errors.AuthenticationError, _errors.AuthenticationWrongNumberOfArgsError, _errors.NoPermissionError)
MAX_CAUSES: Final = 8
_WEAKER: Final = frozenset({"ssl_cert_reqs", "ssl_check_hostname", "ssl_min_version", "ssl_ciphers"})


def client_options(url: str, access: Access = NOBODY) -> dict[str, Any]:
    """Arguments of redis-py beside the URL. What the URL itself says comes first.

    Raises ConfigurationError for a password that would go unencrypted, and for a URL that weakens TLS.
    """
    parts = urlsplit(url)
    if weaker := _WEAKER & set(parse_qs(parts.query)):
        raise ConfigurationError(
            f"{', '.join(sorted(weaker))} may not stand in a Redis URL: certificates are always checked",
            code="weak_tls",
        )
    password = access.password.get_secret_value()
    if parts.scheme == "redis" and (password or secrets_in_url(url)) and not access.is_plaintext_allowed:
        raise refuse_plaintext(mask_url(url), "rediss://… and SUB60_REDIS_CA")
    options: dict[str, Any] = {}
    if password:
        options |= {"username": access.user or None, "password": password}
    if parts.scheme == "rediss":
        options |= {
            "ssl_cert_reqs": "required",
            "ssl_check_hostname": True,
            "ssl_min_version": ssl.TLSVersion.TLSv1_2,
            "ssl_ca_certs": readable_file("SUB60_REDIS_CA", access.ca) or None,
        }
    return options


def tls_port(url: str, timeout_s: float = 2.0) -> ConfigurationError | None:
    """The error of a ``redis://`` URL whose port wants TLS: such a server closes the connection without a word.

    Asked after that happened, by a handshake and nothing more; what the certificate says does not matter here.
    """
    parts = urlsplit(url)
    if parts.scheme != "redis":
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379), timeout_s) as plain,
            context.wrap_socket(plain),
        ):
            return ConfigurationError(f"{mask_url(url)} wants TLS: write rediss://", code="redis_tls")
    except OSError:
        return None


def tls_context(access: Access) -> ssl.SSLContext:
    """The same for a socket of our own."""
    context = ssl.create_default_context(cafile=readable_file("SUB60_REDIS_CA", access.ca) or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def refusal(error: BaseException, url: str = "") -> ConfigurationError | None:
    """What to change, if the server does not want us or is not the one we want; None for one that is merely away."""
    where = mask_url(url) or "the server"
    text = str(error)
    if isinstance(error, _errors.NoPermissionError):
        return ConfigurationError(
            f"{where} denies our user something: {text}; give it the ACL of docs/security.md", code="redis_acl"
        )
    if isinstance(error, REFUSALS) or text.startswith(("WRONGPASS", "NOAUTH")):
        return ConfigurationError(
            f"{where} does not take our login: {text}; set SUB60_REDIS_USER and SUB60_REDIS_PASSWORD "
            "(SUB60_CACHE_USER, SUB60_CACHE_PASSWORD for a cache with its own)",
            code="redis_login",
        )
    cause: BaseException | None = error
    for _ in range(MAX_CAUSES):
        if cause is None:
            break
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return ConfigurationError(
                f"no TLS with {where}: {cause}; SUB60_REDIS_CA must name the authority that signed its certificate, "
                "the URL a host name that is in it, and the port must speak TLS",
                code="redis_tls",
            )
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, _errors.InvalidResponse) or "Protocol error" in text:
        return ConfigurationError(
            f"{where} does not speak plain Redis: {text[:80]!r}; for a TLS port write rediss://", code="redis_tls"
        )
    return None
