"""Structure of a FITS file from its bytes: headers and where each data unit lies, without touching the pixels.

Used on files from outside: every number is checked against the file's length before it is believed, nothing is
decompressed and nothing allocated by what a header says.
"""

import re
from dataclasses import dataclass
from typing import Final

from core.errors import Outcome, RejectedInputError, UnusableDataError

BLOCK: Final = 2880
_CARD: Final = 80
_BITPIX: Final = (8, 16, 32, 64, -32, -64)
_MAX_HEADER_BLOCKS: Final = 64
"""Of one HDU: 2,304 cards."""
_MAX_ALL_BLOCKS: Final = 512
"""Of all headers together; a raw of the camera has about 40."""
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}")
"""Fits 64 bits, and is not what else Python takes for an integer (``1_000``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hdu:
    """One header and the place of its data unit [byte]."""

    cards: dict[str, str]
    """First value of each keyword as written, without quotes and comment."""
    data_start: int
    data_size: int

    @property
    def name(self) -> str:
        """EXTNAME, empty where there is none."""
        return self.cards.get("EXTNAME", "")

    def integer(self, key: str, default: int | None = None) -> int:
        """Value of an integer keyword; a missing one without default, or text, makes the file unusable."""
        text = self.cards.get(key)
        if text is None and default is not None:
            return default
        if text is None or _INTEGER.fullmatch(text) is None:
            raise broken(f"header keyword {key} is not an integer", hdu=self.name, value=text)
        return int(text)


def broken(message: str, **context: object) -> UnusableDataError:
    """The error of a raw file that is a FITS file but cannot be read."""
    return UnusableDataError(message, outcome=Outcome.BAD_RAW, code=None, **context)


def read_structure(content: memoryview, max_hdus: int) -> list[Hdu]:
    """All HDUs of the file ``content``.

    Raises ``RejectedInputError`` for what is no FITS file, ``UnusableDataError`` for one that is cut short.
    """
    if bytes(content[:9]) != b"SIMPLE  =":
        raise RejectedInputError("not a FITS file", code="not_fits", first_bytes=bytes(content[:9]).hex())
    hdus: list[Hdu] = []
    position = n_blocks = 0
    while position < len(content):
        if len(hdus) == max_hdus:
            raise RejectedInputError(f"more than {max_hdus} HDUs", code="too_many_hdus")
        hdu = _read_hdu(content, position)
        n_blocks += (hdu.data_start - position) // BLOCK
        if n_blocks > _MAX_ALL_BLOCKS:
            raise RejectedInputError("more header cards than any raw has", code="bad_header", at_byte=position)
        hdus.append(hdu)
        position = hdu.data_start + -(-hdu.data_size // BLOCK) * BLOCK
    return hdus


def _read_hdu(content: memoryview, start: int) -> Hdu:
    cards: dict[str, str] = {}
    for block in range(_MAX_HEADER_BLOCKS):
        begin = start + block * BLOCK
        text = bytes(content[begin : begin + BLOCK])
        if len(text) < BLOCK:
            raise broken("truncated: a header is cut off", at_byte=begin)
        if _read_cards(text, cards):
            hdu = Hdu(cards=cards, data_start=begin + BLOCK, data_size=0)
            return _with_data(hdu, len(content))
    raise RejectedInputError("a header without END", code="bad_header", at_byte=start)


def _read_cards(block: bytes, cards: dict[str, str]) -> bool:
    """Add the block's cards; True when it holds END."""
    for i in range(0, BLOCK, _CARD):
        card = block[i : i + _CARD]
        if card[8:10] == b"= ":
            key = card[:8].rstrip().decode("latin-1")
            if key not in cards:
                cards[key] = _value(card[10:].decode("latin-1"))
        elif card[:8] == b"END     ":
            return True
    return False


def _value(text: str) -> str:
    """A card's value: a string without its quotes, or what stands before the comment."""
    text = text.lstrip()
    if not text.startswith("'"):
        return text.partition("/")[0].strip()
    end = 1
    while (end := text.find("'", end)) != -1 and text[end : end + 2] == "''":
        end += 2
    return text[1 : end if end != -1 else None].replace("''", "'").rstrip()


def _with_data(hdu: Hdu, n_bytes: int) -> Hdu:
    """The HDU with its data unit's size (FITS standard 4.0, equation 2), which must lie in the file."""
    n_axes = hdu.integer("NAXIS")
    if not 0 <= n_axes <= 8:
        raise RejectedInputError("absurd NAXIS", code="bad_header", naxis=n_axes)
    n_pixels = 1 if n_axes else 0
    n_extra, n_groups = hdu.integer("PCOUNT", 0), hdu.integer("GCOUNT", 1)
    for axis in range(1, n_axes + 1):
        length = hdu.integer(f"NAXIS{axis}")
        n_pixels *= length
        if min(length, n_extra) < 0:  # each: two negative ones would make a positive size
            raise RejectedInputError("a negative size in a header", code="bad_header", hdu=hdu.name)
    bits = hdu.integer("BITPIX")
    if n_groups != 1 or bits not in _BITPIX:
        raise RejectedInputError("random groups or an unknown BITPIX", code="bad_header", hdu=hdu.name, bitpix=bits)
    size = abs(bits) // 8 * (n_extra + n_pixels)
    if hdu.data_start + size > n_bytes:
        missing = hdu.data_start + size - n_bytes
        raise broken("truncated: data end behind the file's end", hdu=hdu.name, missing_bytes=missing)
    return Hdu(cards=hdu.cards, data_start=hdu.data_start, data_size=size)
