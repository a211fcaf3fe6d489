"""All checks by name, and which of them matter to which role."""

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Final

from core.errors import Sub60Error, TransientError
from service.checks.finding import Finding, failed
from service.settings import Settings

Check = Callable[[Settings], Iterator[Finding]]

CHECKS: Final = {
    "dataset": "service.checks.dataset:check_dataset",
    "disk": "service.checks.disk:check_disk",
    "apdb": "service.checks.apdb:check_apdb",
    "log": "service.checks.log:check_log",
    "topics": "service.checks.log:check_topics",
    "clock": "service.checks.clock:check_clock",
    "cache": "service.checks.redis:check_cache",
    "schema": "service.checks.schema:check_schema",
    "mpsky": "service.checks.mpsky:check_mpsky",
    "pipeline": "service.checks.pipeline:check_pipeline",
}
"""Modules are imported when their check runs: the APDB's packages alone take seconds."""
_SERVERS: Final = ("log", "topics", "clock")
ROLE_CHECKS: Final[dict[str, tuple[str, ...]]] = {
    "all": tuple(CHECKS),
    "api": (*_SERVERS, "schema"),
    "archive": ("dataset", "disk", "apdb", *_SERVERS, "cache", "schema"),
    "fanout": ("dataset", *_SERVERS),
    "prefetch": ("dataset", *_SERVERS, "cache", "mpsky"),
    "worker": ("dataset", *_SERVERS, "cache", "schema", "mpsky", "pipeline"),
}


def run_checks(settings: Settings, names: Sequence[str] = tuple(CHECKS)) -> Iterator[Finding]:
    """Findings, as they come; an error of ours ends its check as a failure, anything else is a bug."""
    for name in names:
        module, _, function = CHECKS[name].partition(":")
        check: Check = getattr(import_module(module), function)
        try:
            yield from check(settings)
        except Sub60Error as error:
            yield failed(
                name, f"{error.code}: {str(error).splitlines()[0]}", can_heal=isinstance(error, TransientError)
            )
