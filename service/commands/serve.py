"""``sub60 serve``: run one role, or all of them."""

from importlib import import_module
from typing import Final

import click

from service.app import configure_logging
from service.connections import check_access
from service.masking import known_secrets
from service.settings import allowed_roots, read_settings, use_compiled_cache

MODULES: Final = {
    "all": "service.supervisor",
    "api": "service.roles.run_api",
    "archive": "service.roles.run_archive",
    "fanout": "service.roles.run_fanout",
    "prefetch": "service.roles.run_prefetch",
    "worker": "service.roles.run_worker",
}

COMPUTING: Final = frozenset({"all", "worker"})


@click.command(
    epilog="""\b
Examples:
  sub60 serve --role all                      everything on this machine, servers included
  SUB60_LOG_URL=kafka://broker:9092 SUB60_CACHE_URL=redis://cache:6379 \\
  SUB60_SLOT=3 sub60 serve --role worker      one worker of a larger site"""
)
@click.option("--role", type=click.Choice(sorted(MODULES)), default="all", show_default=True)
def command(role: str) -> None:
    """Run the service until SIGTERM or Ctrl-C; work under way is finished first."""
    settings = read_settings()
    configure_logging(settings.log_level, known_secrets(dict(settings)))
    if settings.pipeline and role in COMPUTING:
        use_compiled_cache(settings)  # before the first kernel is imported
        from service.pipeline_config import pipeline_config

        pipeline_config(settings)  # better refused here than by every child
    allowed_roots(settings)
    check_access(settings)  # a refused login is an error of the start, not something to wait for
    raise SystemExit(import_module(MODULES[role]).run(settings))
