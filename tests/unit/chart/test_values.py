"""The values files and their schema, without helm."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import jsonschema
import pytest
from pydantic import SecretStr

from service.settings import Settings
from tests.support.chart import CASES, CHART, PROFILES, Document, load, merged

SCHEMA: Final[Document] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
DEFAULTS: Final = load(CHART / "values.yaml")
OWNED: Final = {
    "dataset",
    "state_dir",
    "apdb_config",
    "log_url",
    "cache_url",
    "raw_roots",
    "partitions",
    "slot",
    "http_host",
    "http_port",
    "kafka_user",
    "kafka_mechanism",
    "kafka_tls",
    "kafka_ca",
    "kafka_certificate",
    "kafka_key",
    "redis_user",
    "redis_ca",
    "cache_user",
    "pipeline",
    "compiled_cache",
}
"""Settings with a value of their own in the chart."""
NOT_HERE: Final = {"workers", "log_memory_mb", "cache_memory_mb", "failpoints"}
"""Settings of `--role all` on one machine, and of tests."""


def is_valid(values: Mapping[str, Any]) -> bool:
    return jsonschema.Draft7Validator(SCHEMA).is_valid(values)


@pytest.mark.parametrize("name", sorted(CASES))
def test_profiles_pass_the_schema(name: str) -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.Draft7Validator(SCHEMA).validate(merged(DEFAULTS, load(CASES[name])))


def test_there_is_a_profile_for_a_laptop_one_server_and_a_survey() -> None:
    assert set(PROFILES) == {"laptop", "one-server", "survey"}
    assert load(PROFILES["survey"])["partitions"] == 189


@pytest.mark.parametrize(
    "change",
    [
        {"replica": 3},
        {"worker": {"replica": 3}},
        {"worker": {"resources": {"limit": {"memory": "8Gi"}}}},
        {"settings": {"max_dia_source": 8000}},
        {"settings": {"kafka_password": "secret"}},
        {"settings": {"http_token": "secret"}},
        {"settings": {"slot": 3}},
        {"settings": {"min_reliability": 2}},
        {"settings": {"start_checks": "no"}},
        {"partitions": 0},
        {"partitions": "189"},
        {"fanout": {"replicas": 3}},
        {"log": {"url": "kafka://user:secret@broker:9092"}},
        {"log": {"password": "secret"}},
        {"cache": {"url": "rediss://:secret@cache:6379"}},
        {"cache": {"passwordSecret": "secret"}},
        {"cache": {"passwordSecret": {"name": "a", "value": "secret"}}},
        {"keda": {"night": {"start": "17:00"}}},
        {"networkPolicy": {"kafka": {"ports": [99999]}}},
        {"networkPolicy": {"kafka": {"to": [{"host": "kafka"}]}}},
        {"image": {"digest": "latest"}},
    ],
    ids=lambda change: json.dumps(change),
)
def test_unknown_keys_wrong_types_and_secrets_are_refused(change: Document) -> None:
    assert is_valid(DEFAULTS)
    assert not is_valid(merged(DEFAULTS, change))


def test_every_value_has_its_default_and_its_line_in_the_schema() -> None:
    def compare(schema: Document, values: Document, where: str) -> None:
        if "$ref" in schema:
            schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
        if "properties" not in schema or where == ".settings":
            return
        assert set(schema["properties"]) - {"global"} == set(values), where
        for key, value in values.items():
            if isinstance(value, dict) and "resources" not in where:
                compare(schema["properties"][key], value, f"{where}.{key}")

    for key, value in DEFAULTS.items():
        if isinstance(value, dict):
            without = {name: part for name, part in value.items() if name != "resources"}
            part = SCHEMA["properties"][key]
            properties = {name: sub for name, sub in part.get("properties", {}).items() if name != "resources"}
            compare({**part, "properties": properties} if properties else part, without, f".{key}")
    assert set(SCHEMA["properties"]) - {"global"} == set(DEFAULTS)


def test_settings_are_those_of_the_service_with_their_bounds() -> None:
    ours = SCHEMA["properties"]["settings"]["properties"]
    secrets = {name for name, field in Settings.model_fields.items() if field.annotation is SecretStr}
    assert set(ours) == set(Settings.model_fields) - OWNED - NOT_HERE - secrets
    theirs = Settings.model_json_schema()["properties"]
    for name, schema in ours.items():
        for key in ("type", "minimum", "maximum", "exclusiveMinimum", "pattern", "enum", "description"):
            assert schema.get(key) == theirs[name].get(key), (name, key)


def _leaves(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


@pytest.mark.parametrize("path", [CHART / "values.yaml", *CASES.values()], ids=lambda path: path.stem)
def test_secrets_are_named_and_never_written(path: Any) -> None:
    for where, value in _leaves(load(path)):
        if where == ("image", "pullSecrets"):
            continue  # a list of names
        if any(re.search("secret|password|token|credential", part, re.IGNORECASE) for part in where):
            assert len(where) >= 2, where
            assert where[-2].endswith("Secret"), where
            assert where[-1] in ("name", "key", "certificateKey", "keyKey"), where
        if isinstance(value, str) and "://" in value:
            assert "@" not in value, where
