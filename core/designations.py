"""Designations of minor planets: packed as the Minor Planet Center does, and numbered as Rubin does."""

import re
from typing import Final

_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PROVISIONAL: Final = re.compile(r"([1-9][0-9])([0-9]{2}) ([A-HJ-Y])([A-HJ-Z])([1-9][0-9]{0,2})?")
_SURVEY: Final = re.compile(r"([1-9][0-9]{3}) ([PT])-([L123])")
_MAX_CYCLE: Final = 619


def pack_designation(designation: str) -> str | None:
    """Packed form (7 characters) of an unpacked provisional designation; None for what is none.

    ``1995 XA`` is ``J95X00A``, ``2008 AA360`` is ``K08Aa0A``, ``2040 P-L`` is ``PLS2040``. Source: Minor Planet Center,
    "Packed Provisional and Permanent Designations". Comets, numbers alone, and cycles above 619 have no such form.
    """
    if (survey := _SURVEY.fullmatch(designation)) is not None:
        number, first, second = survey.groups()
        return f"{first}{second}S{number}"
    if (found := _PROVISIONAL.fullmatch(designation)) is None:
        return None
    century, year, half_month, order, cycle = found.groups()
    tens, units = divmod(int(cycle or 0), 10)
    if int(century) >= len(_BASE62) or int(cycle or 0) > _MAX_CYCLE:
        return None
    return f"{_BASE62[int(century)]}{year}{half_month}{_BASE62[tens]}{units}{order}"


def ss_object_id(designation: str) -> int | None:
    """ssObjectId of a provisional designation, packed or not: the packed one's characters as bytes, the first highest.

    As in lsst/pipe_tasks, ``associationUtils``; None where there is no packed form of 7 or 8 characters.
    """
    packed = pack_designation(designation) if " " in designation else designation
    if packed is None or len(packed) not in (7, 8) or packed.isdigit() or max(map(ord, packed)) > 255:
        return None
    number = int.from_bytes(packed.encode("latin-1"), "big")
    return number if number < 1 << 63 else None
