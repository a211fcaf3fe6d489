"""The alert schema: here, and at the registry that the brokers' clients ask."""

import json
from collections.abc import Iterator
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from alerts.schema import SCHEMA_ID, alert_schema, schema_json
from core.errors import ConfigurationError, TransientError
from service.checks.finding import Finding, failed, ok
from service.settings import Settings

TIMEOUT_S: Final = 5.0
MAX_BYTES: Final = 4 << 20


def check_schema(settings: Settings) -> Iterator[Finding]:
    """Ours can be parsed; the registry's, if one is named, is the same in canonical form."""
    alert_schema()
    if not settings.schema_registry:
        yield ok("schema", f"id {SCHEMA_ID}; no registry is asked (SUB60_SCHEMA_REGISTRY)")
        return
    theirs = fetch_schema(settings.schema_registry)
    if canonical(theirs) == canonical(schema_json()):
        yield ok("schema", f"id {SCHEMA_ID}, the same at {settings.schema_registry}")
    else:
        yield failed(
            "schema",
            f"id {SCHEMA_ID} at {settings.schema_registry} is another schema: clients that decode with it would fail. "
            "Register ours (GET /schemas/ids/1101 of the api role) under another registry or correct that one",
        )


def fetch_schema(registry: str) -> str:
    """Text of the schema with our id; raises ConfigurationError where there is none, TransientError without answer."""
    url = f"{registry.rstrip('/')}/schemas/ids/{SCHEMA_ID}"
    request = Request(url, headers={"Accept": "application/vnd.schemaregistry.v1+json, application/json"})
    try:
        with urlopen(request, timeout=TIMEOUT_S) as answer:
            body = answer.read(MAX_BYTES + 1)
    except HTTPError as error:
        if error.code >= 500:
            raise TransientError(f"{url} answers {error.code}", code="registry_unavailable") from error
        hint = "register our schema there" if error.code == 404 else "is it a schema registry, and are we let in?"
        raise ConfigurationError(f"{url} answers {error.code}: {hint}", code="bad_registry") from error
    except (URLError, OSError) as error:
        raise TransientError(f"{url} does not answer: {error}", code="registry_unavailable") from error
    try:
        text = json.loads(body)["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{url} is no schema registry: no JSON with a schema", code="bad_registry") from error
    return str(text)


def canonical(text: str) -> str:
    """Parsing canonical form (Avro specification): what decides how bytes are read, without documentation."""
    from fastavro.schema import parse_schema, to_parsing_canonical_form

    try:
        parsed: Any = parse_schema(json.loads(text), _force=True)
        return str(to_parsing_canonical_form(parsed))
    except Exception as error:  # fastavro raises many kinds for what is no schema
        raise ConfigurationError(f"the registry's text is no Avro schema: {error}", code="bad_registry") from error
