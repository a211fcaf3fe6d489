"""FITS files taken apart into cards and data units, changed where it hurts, and put together again."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from service.storage.fits_structure import BLOCK, read_structure
from tests.fuzz.mutate import spoil_bytes

CARD: Final = 80
STRUCTURAL: Final = (
    "SIMPLE", "XTENSION", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "NAXIS3", "NAXIS9", "PCOUNT", "GCOUNT", "TFIELDS",
    "TTYPE1", "TFORM1", "TTYPE2", "TFORM2", "THEAP", "ZIMAGE", "ZTILE1", "ZTILE2", "ZCMPTYPE", "ZBITPIX", "ZNAXIS",
    "ZNAXIS1", "ZNAXIS2", "ZNAME1", "ZVAL1", "ZNAME2", "ZVAL2", "ZBLANK", "ZSCALE", "ZZERO", "ZQUANTIZ", "BLANK",
    "BSCALE", "BZERO", "EXTNAME", "EXTVER", "GROUPS", "INHERIT", "END",
)  # fmt: skip
KEYWORDS: Final = (
    "INSTRUME", "TIMESYS", "DETECTOR", "BAND", "DATE-BEG", "DATE-END", "EXPTIME", "RA", "DEC", "ROTPA", "DAYOBS",
    "SEQNUM", "GROUPID", "AMSTART", "AMEND",
)  # fmt: skip
VALUES: Final = (
    b"0", b"-1", b"1", b"2", b"3", b"4", b"8", b"16", b"32", b"-32", b"64", b"40", b"24", b"2880", b"2147483647",
    b"-2147483648", b"4294967296", b"9223372036854775807", b"-9223372036854775808", b"18446744073709551616",
    b"1" + b"0" * 60, b"1.5", b"1E400", b"-1E400", b"NaN", b"inf", b"1D3", b"0x10", b"1_000", b"+5", b"T", b"F",
    b"''", b"'1PB(80)'", b"'1QB(8)'", b"'1PI(8)'", b"'PB'", b"'1QB'", b"'2PB'", b"'RICE_1'", b"'GZIP_1'", b"'GZIP_2'",
    b"'RICE_ONE'", b"'PLIO_1'", b"'HCOMPRESS_1'", b"'NOCOMPRESS'", b"'BLOCKSIZE'", b"'BYTEPIX'", b"'COMPRESSED_DATA'",
    b"'Segment10'", b"'IMAGE   '", b"'BINTABLE'", b"'2026-11-23T00:01:02.500'", b"'9999-12-31T23:59:59'",
    b"'0001-01-01'", b"'2026-02-30'", b"'20260230'", b"'TestCam'", b"'TAI'", b"'r'", b"'unterminated", b"'it''s'",
    b"'\xe9\xff\x00'", b"\xff\xfe", b"", b"/", b"' / '", b"(1, 2)", b"32768", b"100000",
)  # fmt: skip
SIZES: Final = (0, 1, 3, 4, 5, -1, 2**31 - 1, -(2**31), 2**16, 2**24, 80, 159, 160, 161)


@dataclass(slots=True)
class Unit:
    """One HDU: cards without END, and the data unit without its padding."""

    cards: list[bytes]
    data: bytes
    end: bytes = b"END".ljust(CARD)

    def join(self) -> bytes:
        """As it stands in a file."""
        header = b"".join(self.cards) + self.end
        return header.ljust(_padded(len(header))) + self.data.ljust(_padded(len(self.data)), b"\0")

    def find(self, key: str) -> int | None:
        """Number of the first card of a keyword."""
        start = f"{key:<8}=".encode()
        return next((i for i, card in enumerate(self.cards) if card.startswith(start)), None)

    def copy(self) -> "Unit":
        """One that may be changed."""
        return Unit(list(self.cards), self.data, self.end)


def take_apart(content: bytes) -> list[Unit]:
    """HDUs of a good file."""
    units, start = [], 0
    for hdu in read_structure(memoryview(content), max_hdus=64):
        header = content[start : hdu.data_start]
        cards = [header[i : i + CARD] for i in range(0, len(header), CARD)]
        end = next(i for i, card in enumerate(cards) if card.startswith(b"END "))
        units.append(Unit(cards[:end], content[hdu.data_start : hdu.data_start + hdu.data_size]))
        start = hdu.data_start + _padded(hdu.data_size)
    return units


def card(key: str, value: bytes) -> bytes:
    """A card with a value as written."""
    return (f"{key:<8}= ".encode() + value)[:CARD].ljust(CARD)


def spoil_value(units: list[Unit], random: Random) -> None:
    """One keyword has another value; it is added where it is not there."""
    unit = random.choice(units)
    key = random.choice(STRUCTURAL if random.random() < 0.7 else KEYWORDS)
    unit = units[0] if key in KEYWORDS else unit
    i = unit.find(key)
    new = card(key, random.choice(VALUES) if random.random() < 0.8 else str(random.randrange(-300, 3000)).encode())
    if i is None:
        unit.cards.insert(random.randrange(len(unit.cards) + 1), new)
    else:
        unit.cards[i] = new


def spoil_card(units: list[Unit], random: Random) -> None:
    """A card is doubled, dropped, moved, renamed, garbled, or of a kind that has rules of its own."""
    unit = random.choice(units)
    i = random.randrange(len(unit.cards))
    how = random.randrange(9)
    if how == 0:
        key = unit.cards[i][:8].decode("latin-1").rstrip()
        unit.cards.insert(random.choice((i, i + 1, 0, len(unit.cards))), card(key, random.choice(VALUES)))
    elif how == 1:
        del unit.cards[i]
    elif how == 2:
        unit.cards.insert(random.randrange(len(unit.cards)), unit.cards.pop(i))
    elif how == 3:
        unit.cards[i] = (
            random.choice((b"HIERARCH ", b"CONTINUE  ", b"COMMENT ", b"END     ", b"\0", b"")) + unit.cards[i]
        )
        unit.cards[i] = unit.cards[i][:CARD].ljust(CARD)
    elif how == 4:
        unit.cards[i] = unit.cards[i][: random.randrange(CARD)]
    elif how == 5:
        unit.cards[i] = spoil_bytes(unit.cards[i], random)[:CARD].ljust(CARD)
    elif how == 6:
        unit.cards[i] = unit.cards[i].lower()
    elif how == 7:
        unit.cards[i:i] = [unit.cards[i]] * random.choice((1, 36, 3000))
    else:
        unit.end = random.choice(
            (b"", b"END".ljust(CARD, b"x"), b"end".ljust(CARD), b" END".ljust(CARD), b"END=".ljust(CARD))
        )


def spoil_units(units: list[Unit], random: Random) -> None:
    """HDUs in another order or number."""
    i, j = random.randrange(len(units)), random.randrange(len(units))
    how = random.randrange(4)
    if how == 0:
        units[i], units[j] = units[j], units[i]
    elif how == 1:
        del units[i]
    elif how == 2:
        units[i:i] = [units[j].copy() for _ in range(random.choice((1, 2, 30)))]
    else:
        units[i].cards, units[j].cards = units[j].cards, units[i].cards


def spoil_descriptors(units: list[Unit], random: Random) -> None:
    """Place or size of a compressed tile is another."""
    unit = random.choice(units)
    width = 8 if b"QB" in b"".join(unit.cards) else 4
    at = random.randrange(48) * width
    if at + width <= len(unit.data):
        number = random.choice(SIZES) if random.random() < 0.6 else random.randrange(len(unit.data) + 9)
        new = struct.pack(">q" if width == 8 else ">i", number)
        unit.data = unit.data[:at] + new + unit.data[at + width :]


def spoil_data(units: list[Unit], random: Random) -> None:
    """Bits of the pixels, most of them compressed."""
    unit = random.choice(units)
    if unit.data:
        for _ in range(random.choice((1, 1, 2, 10))):
            changed = bytearray(unit.data)
            changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
            unit.data = bytes(changed)


def spoil_length(units: list[Unit], random: Random) -> None:
    """A data unit is shorter or longer than its header says."""
    unit = random.choice(units)
    if random.random() < 0.5:
        unit.data = unit.data[: random.randrange(len(unit.data) + 1)]
    else:
        unit.data += random.randbytes(random.choice((1, 100, BLOCK, 3 * BLOCK)))


CHANGES: Final[tuple[tuple[Callable[[list[Unit], Random], None], int], ...]] = (
    (spoil_value, 8), (spoil_card, 4), (spoil_units, 2), (spoil_descriptors, 5), (spoil_data, 5), (spoil_length, 2),
)  # fmt: skip


def spoil(units: list[Unit], random: Random) -> bytes:
    """A file with a few changes; now and then none, or bytes changed without regard to structure."""
    units = [unit.copy() for unit in units]
    functions, weights = zip(*CHANGES, strict=True)
    for change in random.choices(functions, weights, k=random.choice((0, 1, 1, 1, 1, 2, 3))):
        if units:
            change(units, random)
    content = b"".join(unit.join() for unit in units)
    if random.random() < 0.15:
        content = spoil_bytes(content, random)
    if random.random() < 0.1:
        content = (
            content[: random.randrange(len(content) + 1)] if random.random() < 0.5 else content + random.randbytes(99)
        )
    return content


def _padded(n_bytes: int) -> int:
    return -(-n_bytes // BLOCK) * BLOCK
