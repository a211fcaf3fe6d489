"""What a bundle is made of, before any of it is loaded: names of arrays and the little numbers that go with them."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import msgpack

from core.contracts.wcs import separation_arcsec
from service.storage.codec import SPOILED
from service.wire import unpack_msgpack

FORMAT: Final = 1


class PartKind(StrEnum):
    """Parts of a bundle: labels of the metrics."""

    CALIBRATIONS = "calibrations"
    TEMPLATE = "template"
    REFERENCE_STARS = "reference_stars"
    EPHEMERIDES = "ephemerides"
    HISTORY = "history"


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleKey:
    """Which bundle: one detector of one pointing. ``visit`` is None before the visit has a number."""

    instrument: str
    group: str
    detector: int
    band: str
    mjd_tai: float
    ra_deg: float
    dec_deg: float
    rot_sky_deg: float
    visit: int | None = None
    duration_s: float = 0.0
    """From ``mjd_tai`` to the end of the exposure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRecipe:
    """One part: its arrays by role, each by a name that changes with its content, and plain numbers and texts."""

    kind: PartKind
    arrays: tuple[tuple[str, str], ...]
    """(role, name)."""
    meta: dict[str, Any]


Recipe = tuple[PartRecipe, ...]


def pack_recipe(key: BundleKey, recipe: Recipe) -> bytes:
    """One recipe and the pointing it was made for, as msgpack."""
    parts = [(part.kind.value, part.arrays, part.meta) for part in recipe]
    pointing = (key.visit, key.band, key.mjd_tai, key.ra_deg, key.dec_deg, key.rot_sky_deg)
    return bytes(msgpack.packb({"format": FORMAT, "pointing": pointing, "parts": parts}))


def unpack_recipe(key: BundleKey, data: bytes) -> Recipe | None:
    """The recipe, None if its format is unknown or it was made for another pointing than ``key``.

    A pointing may move by a tenth of the template's padding; the visit may get its number later, which changes
    ephemerides filed by visit only: then their part is missing from the answer. So it is where ephemerides of a place
    in the sky are for another time.
    """
    try:
        message = unpack_msgpack(data, use_list=False)
        if message["format"] not in (FORMAT - 1, FORMAT):
            return None
        visit, band, _, ra, dec, rotation = message["pointing"]
        if band != key.band or not _is_near(key, ra, dec, rotation):
            return None
        parts = message["parts"]
        recipe = tuple(PartRecipe(kind=PartKind(kind), arrays=arrays, meta=meta) for kind, arrays, meta in parts)
    except SPOILED:
        return None
    return tuple(part for part in recipe if part.kind is not PartKind.EPHEMERIDES or _is_of(part, visit, key))


MAX_OFFSET_ARCSEC: Final = 5.0
MAX_ROTATION_DEG: Final = 0.1
MAX_SHIFT_D: Final = 1 / 96
"""Between the time that ephemerides were asked for and the exposure's: a quarter of an hour."""


def _is_of(part: PartRecipe, visit: int | None, key: BundleKey) -> bool:
    """Whether ephemerides, filed under ``visit`` or with their time in ``meta``, are those of ``key``."""
    mjd_tai = part.meta.get("mjd_tai") if isinstance(part.meta, dict) else None
    if isinstance(mjd_tai, float):
        return abs(mjd_tai - key.mjd_tai) <= MAX_SHIFT_D
    return visit == key.visit


def _is_near(key: BundleKey, ra_deg: float, dec_deg: float, rot_sky_deg: float) -> bool:
    turn = (key.rot_sky_deg - rot_sky_deg + 180.0) % 360.0 - 180.0
    offset = separation_arcsec(key.ra_deg, key.dec_deg, ra_deg, dec_deg)
    return bool(offset <= MAX_OFFSET_ARCSEC) and abs(turn) <= MAX_ROTATION_DEG
