"""The ``sub60`` command: a reader starts here."""

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Final

import click

from core.errors import ConfigurationError, Sub60Error

EXIT_CONFIGURATION: Final = 78
"""As in sysexits.h."""
OWN: Final = (
    "audit",
    "check",
    "compile",
    "difference",
    "hold",
    "process",
    "recall",
    "redrive",
    "release",
    "serve",
    "tail",
    "topics",
    "warm",
)
CONTRIBUTED: Final = "sub60.commands"
"""Entry-point group of commands that other packages bring."""


class LazyGroup(click.Group):
    """Loads a command's module when it is asked for: ``sub60 --help`` imports no kernel and no broker."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Ours and the contributed ones."""
        return sorted({*OWN, *(point.name for point in entry_points(group=CONTRIBUTED))})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name in OWN:
            command: click.Command = import_module(f"service.commands.{cmd_name}").command
            return command
        for point in entry_points(group=CONTRIBUTED, name=cmd_name):
            loaded: click.Command = point.load()
            return loaded
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Names with their first lines; a contributed command that cannot be loaded is named all the same."""
        rows = []
        for name in self.list_commands(ctx):
            try:
                loaded = self.get_command(ctx, name)
                rows.append((name, loaded.get_short_help_str(90) if loaded else ""))
            except ImportError as error:
                rows.append((name, f"(not available: {error})"))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        """Errors of ours end with their message, not with a traceback."""
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            click.echo(f"sub60: {error}", err=True)
            raise SystemExit(EXIT_CONFIGURATION) from error
        except Sub60Error as error:
            click.echo(f"sub60: {error.code}: {error}", err=True)
            raise SystemExit(1) from error


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sub60")
def main() -> None:
    """From telescope readout to Avro alerts inside sixty seconds.

    Settings are SUB60_* variables, described in service/settings.py; an unknown one refuses to start.
    """


if __name__ == "__main__":
    main()
