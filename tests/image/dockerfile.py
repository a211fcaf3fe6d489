"""The Dockerfile and .dockerignore read as data; what is not understood is an error, not a guess."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
DOCKERFILE: Final = ROOT / "docker" / "Dockerfile"
DOCKERIGNORE: Final = ROOT / ".dockerignore"
PASSIVE: Final = frozenset(("CMD", "ENTRYPOINT", "EXPOSE", "HEALTHCHECK", "LABEL", "STOPSIGNAL", "USER", "VOLUME"))
"""They change how the image runs, not what is in it."""
KEYWORDS: Final = PASSIVE | {"ARG", "COPY", "ENV", "FROM", "RUN", "WORKDIR"}
_VARIABLE: Final = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


class DockerfileError(ValueError):
    """An instruction that this reader does not know; the message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One instruction: ``value`` is its text behind the flags, with lines joined."""

    keyword: str
    flags: Mapping[str, str]
    value: str

    @property
    def words(self) -> list[str]:
        """The value's words: of the JSON form, or as a shell would split them."""
        if self.value.startswith("["):
            words: list[str] = json.loads(self.value)
            return words
        return shlex.split(self.value)

    @property
    def pairs(self) -> dict[str, str]:
        """``NAME=value`` words of ENV, LABEL and ARG."""
        parts = (word.partition("=") for word in self.words)
        return {name: value for name, _, value in parts}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One FROM with what follows it, up to the next."""

    base: str
    name: str
    instructions: tuple[Instruction, ...]

    def last(self, keyword: str) -> Instruction | None:
        """The instruction that counts where only the last does."""
        return next((item for item in reversed(self.instructions) if item.keyword == keyword), None)

    def environment(self) -> dict[str, str]:
        """All of ENV."""
        return {k: v for item in self.instructions if item.keyword == "ENV" for k, v in item.pairs.items()}


def read_instructions(text: str) -> Iterator[Instruction]:
    """Instructions of a Dockerfile's text."""
    lines = (line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    for joined in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        keyword, _, value = joined.strip().partition(" ")
        if keyword not in KEYWORDS or "<<" in value:
            raise DockerfileError(f"not understood: {joined}")
        flags = {}
        while (match := re.match(r"\s*--([\w-]+)=(\S+)\s+", value)) is not None:
            flags[match[1]] = match[2]
            value = value[match.end() :]
        yield Instruction(keyword=keyword, flags=flags, value=value.strip())


def read_stages(text: str) -> list[Stage]:
    """Stages in order; arguments before the first FROM have their defaults."""
    defaults: dict[str, str] = {}
    stages: list[tuple[str, str, list[Instruction]]] = []
    for item in read_instructions(text):
        if item.keyword == "FROM":
            words = expand(item.value, defaults).split()
            stages.append((words[0], words[2] if len(words) == 3 else str(len(stages)), []))
        elif stages:
            stages[-1][2].append(item)
        elif item.keyword == "ARG":
            defaults |= item.pairs
        else:
            raise DockerfileError(f"before the first FROM: {item.keyword}")
    return [Stage(base=base, name=name, instructions=tuple(items)) for base, name, items in stages]


def expand(text: str, variables: Mapping[str, str]) -> str:
    """``$NAME`` and ``${NAME}`` replaced; a name without a value is an error."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in variables:
            raise DockerfileError(f"${name} has no value")
        return variables[name]

    return _VARIABLE.sub(value, text)


class Ignored:
    """A .dockerignore: of the patterns that match a path or a folder above it, the last decides."""

    def __init__(self, lines: Sequence[str]) -> None:
        rules = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        self._rules = [(rule.startswith("!"), re.compile(_pattern(rule.lstrip("!").strip("/")))) for rule in rules]

    def __contains__(self, path: object) -> bool:
        parts = Path(str(path)).parts
        names = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
        is_out = False
        for is_exception, pattern in self._rules:
            if any(pattern.fullmatch(name) for name in names):
                is_out = not is_exception
        return is_out


def _pattern(rule: str) -> str:
    """A regular expression: ``**/`` is any number of folders, ``*`` does not cross one."""
    tokens = {"**/": r"(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(tokens.get(token) or re.escape(token) for token in re.findall(r"\*\*/|\*\*|\*|\?|[^*?]+", rule))
