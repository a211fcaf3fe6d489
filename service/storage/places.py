"""Where files from outside may lie: one way from an address in an event to an open file, for raws and for sidecars.

An event may come from anybody who can write to the input topics; so an address names a file below an allowed folder, or
nothing. Calibrations, templates and catalogs come from the dataset's own listing and are trusted.
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from core.errors import RejectedInputError

MAX_URI: Final = 1024
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_FORBIDDEN: Final = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]")
"""Control characters, backslashes and halves of surrogate pairs."""
# A FIFO is opened without waiting for its other end, a terminal does not become ours, a late link is not followed.
_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY | os.O_NOFOLLOW


def resolve_uri(uri: str, roots: tuple[Path, ...]) -> Path:
    """The file that a path or ``file:`` URI names, links followed, which must lie below one of ``roots``.

    A relative path counts from the first. Percent signs are decoded once. Raises ``RejectedInputError``, and nothing
    else, for whatever is no such address; whether the file is there is not asked.
    """
    path = _path_of(uri)
    try:
        found = (roots[0] / path).resolve()
        is_inside = any(found.is_relative_to(root.resolve()) for root in roots)
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise _refused("not a path", uri) from error
    if not is_inside:
        raise _refused("the file lies outside the allowed folders", uri)
    return found


@contextmanager
def open_regular(path: Path, roots: tuple[Path, ...], max_bytes: int) -> Iterator[tuple[int, int]]:
    """A resolved file as (descriptor, size [byte]).

    Raises ``OSError`` for one that cannot be opened, ``RejectedInputError`` for what is no regular file, is larger than
    ``max_bytes``, or has been moved out of ``roots`` since it was resolved.
    """
    descriptor = os.open(path, _FLAGS)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise RejectedInputError("not a regular file", code="not_a_file", path=str(path))
        if status.st_size > max_bytes:
            raise RejectedInputError("the file is larger than allowed", code="too_large", n_bytes=status.st_size)
        place = Path(f"/proc/self/fd/{descriptor}").readlink()
        if not any(place.is_relative_to(root.resolve()) for root in roots):
            raise _refused("the file lies outside the allowed folders", str(path))
        yield descriptor, status.st_size
    finally:
        os.close(descriptor)


def read_small(path: Path, roots: tuple[Path, ...], max_bytes: int) -> bytes:
    """All bytes of a small file; raises as :func:`open_regular`."""
    with open_regular(path, roots, max_bytes) as (descriptor, n_bytes):
        content = bytearray()
        while len(content) < n_bytes and (piece := os.read(descriptor, n_bytes - len(content))):
            content += piece
    return bytes(content)


def _path_of(uri: str) -> str:
    """The path in an address, decoded."""
    if not uri or len(uri) > MAX_URI or _FORBIDDEN.search(uri) or uri.startswith("//"):
        raise _refused("not a path", uri)
    path = uri
    if _SCHEME.match(uri):
        try:
            parts = urlsplit(uri)
        except ValueError as error:
            raise _refused("not a path", uri) from error
        is_local = parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/")
        if not is_local or parts.query or parts.fragment or parts.path.startswith("//"):
            raise _refused("only files are read", uri)
        path = parts.path
    decoded = unquote(path)
    if _FORBIDDEN.search(decoded) or ".." in decoded.split("/"):
        raise _refused("not a path below the allowed folders", uri)
    return decoded


def _refused(why: str, uri: str) -> RejectedInputError:
    shown = uri[:200].encode("utf-8", "backslashreplace").decode()
    return RejectedInputError(why, code="bad_uri", uri=shown)
