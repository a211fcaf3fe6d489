"""``python -m tests.fuzz``."""

from tests.fuzz.command import command

command(prog_name="python -m tests.fuzz")
