"""What a fuzz target is: it makes inputs and says what became of each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final, Protocol

ACCEPTED: Final = "accepted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One process in which a target runs for a share of its time."""

    name: str = "plain"
    share: float = 1.0
    env: Mapping[str, str] = field(default_factory=dict)


class Session(Protocol):
    """What a target that makes its own loop is given."""

    random: Random

    def is_over(self) -> bool:
        """Whether the time is up."""

    def attempt(self, data: bytes) -> None:
        """Try one input: watched, counted, kept if it fails."""


class Target:
    """A reader of outside bytes. An input is bytes, so that each can be kept, made smaller and tried again."""

    def __init__(self, scratch: Path) -> None:
        """Build the reader and compile what it needs; ``scratch`` is an empty folder, gone after the run."""

    def make(self, random: Random) -> bytes:
        """The next input."""
        raise NotImplementedError

    def check(self, data: bytes) -> str:
        """Try one input: ``accepted``, or the code with which it was refused; whatever else is raised is a find."""
        raise NotImplementedError

    def drive(self, session: Session) -> None:
        """Make inputs until the time is up."""
        while not session.is_over():
            session.attempt(self.make(session.random))
