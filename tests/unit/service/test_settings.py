"""Settings: frozen, complete, and a stranger among the variables stops the service."""

from pathlib import Path

import pytest

from core.errors import ConfigurationError
from service.settings import Settings, allowed_roots, read_settings, to_environment


def test_variables_and_overrides() -> None:
    settings = read_settings({"SUB60_DATASET": "/data", "SUB60_WORKERS": "3", "PATH": "/bin"}, partitions=8)
    assert (settings.dataset, settings.workers, settings.partitions) == (Path("/data"), 3, 8)


def test_unknown_variable_refuses_to_start() -> None:
    with pytest.raises(ConfigurationError, match="SUB60_DATASETT"):
        read_settings({"SUB60_DATASETT": "/data"})


@pytest.mark.parametrize(("name", "value"), [("WORKERS", "none"), ("WORKERS", "0"), ("LOG_LEVEL", "loud")])
def test_bad_value_refuses_to_start(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name.lower()):
        read_settings({f"SUB60_{name}": value})


def test_a_child_that_cannot_hold_its_cache_refuses_to_start() -> None:
    with pytest.raises(ConfigurationError, match="SUB60_CHILD_MEMORY_MB must be SUB60_CACHE_MB"):
        read_settings({"SUB60_CACHE_MB": "2000"})
    assert read_settings({"SUB60_CACHE_MB": "2000", "SUB60_CHILD_MEMORY_MB": "7000"}).cache_mb == 2000


@pytest.mark.parametrize("roots", ["/", "relative/folder", "/raws:."])
def test_raws_may_not_lie_anywhere(roots: str) -> None:
    with pytest.raises(ConfigurationError, match="absolute"):
        allowed_roots(read_settings({}, raw_roots=roots))


def test_a_process_gets_its_parents_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read_settings({}, slot=3, measure_reference=True, kafka_password="secret", log_url="redis://h:1")
    for name, value in to_environment(settings).items():
        monkeypatch.setenv(name, value)
    again = read_settings()
    assert again == settings
    assert "secret" not in repr(again)


def test_every_setting_is_described_and_frozen() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
    with pytest.raises(ValueError, match="frozen"):
        Settings().workers = 3  # type: ignore[misc]
