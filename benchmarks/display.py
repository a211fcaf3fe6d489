"""What a person sees of long work: progress bars, and tables as wide as they need."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def bar(name: str, console: Console, *, transient: bool = False) -> Progress:
    """A progress bar with its name before it and what is being done behind it."""
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, TextColumn("{task.description}"), console=console, transient=transient)


def table_console(width: int) -> Console:
    """Standard output; where it is no terminal, so wide that tables are not broken."""
    console = Console()
    return console if console.is_terminal else Console(width=width)
