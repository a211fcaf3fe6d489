"""What one check found."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line: what was looked at, and what to do about it where it is not right.

    ``can_heal``: a failure that may pass by itself (a server that is away), so that a start waits instead of refusing.
    """

    name: str
    level: Level
    text: str
    can_heal: bool = False


def ok(name: str, text: str) -> Finding:
    """All is well."""
    return Finding(name=name, level=Level.OK, text=text)


def warning(name: str, text: str) -> Finding:
    """It runs, but look at it."""
    return Finding(name=name, level=Level.WARNING, text=text)


def failed(name: str, text: str, *, can_heal: bool = False) -> Finding:
    """It would not run, or not as promised."""
    return Finding(name=name, level=Level.FAILED, text=text, can_heal=can_heal)
