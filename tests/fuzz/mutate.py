"""Quick ways to break bytes and JSON: one call changes one thing."""

import copy
import json
from collections.abc import Callable
from random import Random
from typing import Any, Final

JUNK: Final = (
    b"\x00",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\x80",
    b"\r\n",
    b"{}",
    b"'",
    b'"',
    b"-1",
    b"9" * 20,
    b"\xed\xa0\x80",
)
NUMBERS: Final = (
    0, -1, 1, 2**31, -(2**31), 2**53, 2**63 - 1, -(2**63), 2**64, 10**30, 10**400, 1e308, -1e308, 5e-324, 0.1,
    float("nan"), float("inf"), float("-inf"), -0.0, 99, 360, -90.000001, 20260528, 2026052800001, 2026023100001,
)  # fmt: skip
TEXTS: Final = (
    "", " ", "\x00", "a\x00b", "\ud800", "\udfff\ud800", "é", "\U0001f52d", "\u202e", "../../etc/passwd", "/", "..",
    ".", "a" * 300, "x" * 5000, "%00", "null", "NaN", "1e999", "true", "0", "-0", "{}", "2026-02-30T00:00:00", "r",
    "r_57", "u", "2026-05-28T00:00:00+00:00", "2026-05-28", "20260528T000000", "9999-12-31T23:59:59.999999",
    "0001-01-01", "TestCam", "s3:ObjectCreated:Put", "ObjectCreated:", "f" * 64, "'; DROP TABLE x; --", "<script>",
    "\n", "\\", "//host/x", "file:///x",
)  # fmt: skip


def spoil_bytes(data: bytes, random: Random) -> bytes:
    """One change to bytes: bits, pieces cut, doubled, overwritten, moved, junk put in."""
    if not data:
        return random.choice(JUNK)
    a, b = sorted((random.randrange(len(data) + 1), random.randrange(len(data) + 1)))
    b = min(b, a + 1 + random.getrandbits(random.randrange(1, 9)))
    how = random.randrange(7)
    if how == 0:
        changed = bytearray(data)
        for _ in range(random.choice((1, 1, 1, 2, 8))):
            changed[random.randrange(len(data))] ^= 1 << random.randrange(8)
        return bytes(changed)
    if how == 1:
        return data[:a]
    if how == 2:
        return data[:a] + data[b:]
    if how == 3:
        return data[:b] + data[a:]
    if how == 4:
        return data[:a] + random.choice(JUNK) + data[b:]
    if how == 5:
        return data[:a] + random.randbytes(b - a) + data[b:]
    return data[:a] + random.choice(JUNK) * random.choice((1, 1, 3, 100)) + data[a:]


def spoil_value(value: Any, random: Random) -> Any:
    """Another value in place of one: of another type, absurd, or nested."""
    how = random.randrange(9)
    if how == 0:
        return random.choice(NUMBERS)
    if how == 1:
        return random.choice(TEXTS)
    if how == 2:
        return random.choice((None, True, False, [], {}, [[]], {"": None}))
    if how == 3:
        return [value] * random.choice((1, 2, 3, 50))
    if how == 4:
        return {random.choice(TEXTS): value}
    if how == 5:
        return str(value)
    if how == 6 and isinstance(value, int | float) and abs(value) < 1e300:
        return random.choice((-value, value * 1e10, value + random.choice((1, -1, 0.5)), bool(value), float(value)))
    if how == 7 and isinstance(value, str):
        at = random.randrange(len(value) + 1)
        return value[:at] + random.choice(TEXTS) + value[at:]
    for _ in range(random.choice((1, 5, 60))):
        value = [value]
    return value


def spoil_object(value: dict[str, Any], random: Random) -> dict[str, Any]:
    """A copy of a JSON object with one member, at any depth, dropped, renamed, changed or swapped."""
    value = copy.deepcopy(value)
    places = list(_places(value))
    if not places:
        return {random.choice(TEXTS): random.choice(NUMBERS)}
    container, key = random.choice(places)
    how = random.randrange(8)
    if how == 0:
        del container[key]
    elif how == 1 and isinstance(container, dict):
        container[random.choice(TEXTS) or str(key).upper()] = container.pop(key)
    elif how == 2:
        other, other_key = random.choice(places)
        if not _holds(container[key], other) and not _holds(other[other_key], container):
            container[key] = other[other_key]
    else:
        container[key] = spoil_value(container[key], random)
    return value


def _holds(value: Any, container: Any) -> bool:
    return value is container or any(item is container for item, _ in _places(value))


def _places(value: Any) -> Any:
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield value, key
        yield from _places(item)


ENCODERS: Final[tuple[Callable[[str], bytes], ...]] = (
    lambda text: text.encode("utf-8", "surrogatepass"),
    lambda text: text.encode("utf-16", "surrogatepass"),
    lambda text: text.encode("utf-32-be", "surrogatepass"),
    lambda text: b"\xef\xbb\xbf" + text.encode("utf-8", "surrogatepass"),
    lambda text: text.encode("latin-1", "replace"),
)


def json_bytes(value: Any, random: Random) -> bytes:
    """As text in some encoding, sometimes with doubled members, raw characters, or deep nesting around it."""
    text = json.dumps(value, ensure_ascii=random.random() < 0.7)
    how = random.randrange(40)
    if how == 0 and text[-1] == "}":
        text = text[:-1] + ", " + text[1:]
    elif how == 1:
        deep = random.choice((10, 1000, 100_000))
        text = "[" * deep + text + "]" * deep
    elif how == 2:
        deep = random.choice((10, 900, 50_000))
        text = text[:-1] + ',"deep":' + '{"a":' * deep + "1" + "}" * deep + "}"
    elif how == 3:
        text = text.replace(": ", ": " + "1" * random.choice((1, 30, 5000)), 1)
    encode = ENCODERS[0] if random.random() < 0.9 else random.choice(ENCODERS)
    return encode(text)
