"""One line that says how far a command is."""

import sys
import time
from typing import Final

import click

EVERY_S: Final = 0.5


class ProgressLine:
    """Writes to stderr, at most twice a second and once at each end; on a terminal the line is overwritten."""

    def __init__(self) -> None:
        self._next_s = 0.0
        self._last = ""

    def show(self, name: str, n_done: int, n_all: int) -> None:
        """``n_done`` of ``n_all`` of something."""
        is_end = n_done >= n_all
        if not is_end and time.monotonic() < self._next_s:
            return
        text = f"{name} {n_done}/{max(n_all, n_done)}"
        if text == self._last:
            return
        self._next_s, self._last = time.monotonic() + EVERY_S, text
        if sys.stderr.isatty():
            click.echo(f"\r\033[K{text}", nl=is_end, err=True)
        else:
            click.echo(text, err=True)
