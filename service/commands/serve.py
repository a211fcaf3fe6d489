"""``sub60 serve``: run one role, or all of them."""

from importlib import import_module
from typing import Final

import click
import structlog

from service.app import configure_logging
from service.checks import ROLE_CHECKS, Level, run_checks
from service.failpoints import arm
from service.masking import known_secrets
from service.settings import Settings, read_settings, use_compiled_cache

MODULES: Final = {
    "all": "service.supervisor",
    "api": "service.roles.run_api",
    "archive": "service.roles.run_archive",
    "fanout": "service.roles.run_fanout",
    "prefetch": "service.roles.run_prefetch",
    "worker": "service.roles.run_worker",
}

EXIT_REFUSED: Final = 78

log = structlog.get_logger()


@click.command(
    epilog="""\b
Examples:
  sub60 serve --role all                      everything on this machine, servers included
  SUB60_LOG_URL=kafka://broker:9092 SUB60_CACHE_URL=redis://cache:6379 \\
  SUB60_SLOT=3 sub60 serve --role worker      one worker of a larger site"""
)
@click.option("--role", type=click.Choice(sorted(MODULES)), default="all", show_default=True)
def command(role: str) -> None:
    """Run the service until SIGTERM or Ctrl-C; work under way is finished first.

    What `sub60 check` finds wrong, and cannot heal, refuses to start: exit 78.
    """
    settings = read_settings()
    configure_logging(settings.log_level, known_secrets(dict(settings)))
    arm(settings.failpoints)
    use_compiled_cache(settings)  # before the first kernel is imported
    if settings.start_checks and not may_start(settings, role):
        raise SystemExit(EXIT_REFUSED)
    raise SystemExit(import_module(MODULES[role]).run(settings))


def may_start(settings: Settings, role: str) -> bool:
    """Run the role's checks; what may heal is logged and waited for by the role itself."""
    is_sound = True
    for finding in run_checks(settings, ROLE_CHECKS[role]):
        if finding.level is Level.OK:
            continue
        refuses = finding.level is Level.FAILED and not finding.can_heal
        is_sound &= not refuses
        if finding.level is Level.FAILED:
            log.error("check_failed", check=finding.name, reason=finding.text, can_heal=finding.can_heal)
        else:
            log.warning("check_warning", check=finding.name, reason=finding.text)
        if refuses:
            click.echo(f"sub60: {finding.name}: {finding.text}", err=True)
    return is_sound
