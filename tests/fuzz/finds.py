"""Failing inputs: told apart by where they fail, made smaller, kept in files."""

import hashlib
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PRODUCT: Final = ("core", "alerts", "service")
ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Find:
    """One way in which inputs fail, with its smallest input."""

    kind: str
    """crash, hang, leak or descriptors."""
    where: str
    """What tells it from others: error and place."""
    detail: str
    file: str = ""


def place(error: BaseException) -> str:
    """Type of an error and the innermost line of the product (or of the target) that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if _module(f.filename).partition("/")[0] in PRODUCT]
    frame = (ours or frames)[-1] if frames else None
    at = f"{_module(frame.filename)}:{frame.lineno}" if frame else "?"
    said = f" {str(error)[:60]}" if isinstance(error, AssertionError) else ""
    return f"{type(error).__name__} at {at}{said}"


def _module(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def shrink(data: bytes, fails: Callable[[bytes], bool], is_over: Callable[[], bool]) -> bytes:
    """A shorter input that fails alike: pieces are cut out, halves first, as long as it does and there is time."""
    size = max(len(data) // 2, 1)
    while size and not is_over():
        start = 0
        while start < len(data) and not is_over():
            shorter = data[:start] + data[start + size :]
            if shorter and fails(shorter):
                data = shorter
            else:
                start += size
        size //= 2
    return data


def keep(folder: Path, target: str, data: bytes, replay: str, why: str) -> Path:
    """Write an input and, beside it, what it does and how to see it again."""
    path = folder / target / hashlib.sha256(data).hexdigest()[:16]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.with_suffix(".txt").write_text(f"{why}\n\n{replay} {path}\n", encoding="utf-8")
    return path


def kept(folder: Path, target: str) -> list[Path]:
    """Inputs of a target in a folder, without their notes."""
    found = (folder / target).glob("*") if (folder / target).is_dir() else ()
    return sorted(path for path in found if path.suffix != ".txt")
