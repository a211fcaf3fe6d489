"""TLS and login of the Kafka clients, and what a broker's refusal means."""

from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import KafkaError

from core.errors import ConfigurationError
from service.access import Access, readable_file, refuse_plaintext

LOGIN: Final = "SUB60_KAFKA_USER, SUB60_KAFKA_PASSWORD and SUB60_KAFKA_MECHANISM"
DENIED: Final = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "READ, WRITE or DESCRIBE on the topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "READ on the consumer group",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "WRITE and DESCRIBE on the transactional id",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "IDEMPOTENT_WRITE or CREATE on the cluster",
}
"""Error -> the ACL that is missing."""


def security_settings(bootstrap: str, access: Access, extra: dict[str, Any]) -> dict[str, Any]:
    """librdkafka settings of every client: ``extra`` from the URL, then what the settings say.

    Raises ConfigurationError for a password that would go unencrypted, and for a file that is not there.
    """
    settings = dict(extra)
    password = access.password.get_secret_value()
    if bool(access.user) != bool(password):
        raise ConfigurationError("SUB60_KAFKA_USER and SUB60_KAFKA_PASSWORD go together", code="kafka_login")
    has_login = bool(access.user)
    if has_login:
        settings |= {
            "sasl.mechanism": access.mechanism,
            "sasl.username": access.user,
            "sasl.password": password,
        }
    if (has_login or access.is_tls) and "security.protocol" not in settings:
        wants_tls = access.is_tls or not access.is_plaintext_allowed
        settings["security.protocol"] = ("SASL_" if has_login else "") + ("SSL" if wants_tls else "PLAINTEXT")
    for name, setting, path in (
        ("ssl.ca.location", "SUB60_KAFKA_CA", access.ca),
        ("ssl.certificate.location", "SUB60_KAFKA_CERTIFICATE", access.certificate),
        ("ssl.key.location", "SUB60_KAFKA_KEY", access.key),
    ):
        if path:
            settings[name] = readable_file(setting, path)
    is_encrypted = str(settings.get("security.protocol", "plaintext")).upper().endswith("SSL")
    if settings.get("sasl.password") and not is_encrypted and not access.is_plaintext_allowed:
        raise refuse_plaintext(f"kafka://{bootstrap}", "SUB60_KAFKA_TLS=true or SUB60_KAFKA_CA")
    if is_encrypted and str(settings.get("enable.ssl.certificate.verification", "true")).lower() != "true":
        raise ConfigurationError(
            "enable.ssl.certificate.verification may not be switched off in a log URL", code="weak_tls"
        )
    return settings


CREATING: Final = "create topics"


def denied(error: KafkaError, action: str) -> ConfigurationError | None:
    """The error of a missing ACL; None for any other."""
    if error.code() not in DENIED:
        return None
    right = DENIED[error.code()]
    if action == CREATING:
        right = "CREATE on the topic, or somebody else who makes the topics: `sub60 topics create`"
    return ConfigurationError(
        f"the broker does not let our user {action}: {error.str()}; it needs {right} (docs/security.md lists all)",
        code="kafka_acl",
        action=action,
    )


class Refusals:
    """What librdkafka says beside its answers: a refused login or certificate is told to a callback only.

    Hand :attr:`note` to a client as ``error_cb``; :meth:`raise_refused` after a call that got no answer.
    """

    def __init__(self, has_login: bool) -> None:
        self._has_login = has_login
        self._last: KafkaError | None = None
        self._is_down = False
        self._was_reached = False

    def note(self, error: KafkaError) -> None:
        """Callback."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._is_down = True
        else:
            self._last = error

    def reached(self) -> None:
        """An answer came: what was said before it is settled."""
        self._was_reached, self._is_down, self._last = True, False, None

    @property
    def text(self) -> str:
        """The last thing said; empty for nothing."""
        return "" if self._last is None else str(self._last.str())

    def raise_refused(self, serve: Callable[[], object], *, is_final: bool) -> None:
        """ConfigurationError if the broker refused us. ``serve`` runs callbacks; ``is_final``: it had its full time."""
        serve()
        code = None if self._last is None else self._last.code()
        if code == KafkaError._AUTHENTICATION:
            raise ConfigurationError(
                f"the broker does not take our login: {self.text}; check {LOGIN}", code="kafka_login"
            )
        if code == KafkaError._SSL:
            raise ConfigurationError(
                f"no TLS with the broker: {self.text}; SUB60_KAFKA_CA must name the authority that signed its "
                "certificate, and the URL a host name that is in it",
                code="kafka_tls",
            )
        if "PLAINTEXT broker listener" in self.text:
            raise ConfigurationError(f"no TLS with the broker: {self.text}; is that its TLS port?", code="kafka_tls")
        # A broker that is away refuses the connection, and that is noted; one that takes it and hangs up says nothing.
        if is_final and self._is_down and self._last is None and not self._was_reached:
            missing = "a login" if not self._has_login else "another security.protocol"
            raise ConfigurationError(
                f"the broker takes the connection and closes it: it wants TLS or {missing}; set SUB60_KAFKA_CA and "
                f"{LOGIN}",
                code="kafka_login",
            )
