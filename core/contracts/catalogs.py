"""Catalogs as NumPy structured arrays whose columns carry the LSST Science Data Model's names.

Nulls: a nullable float is NaN, a nullable integer ``NULL_LONG``/``NULL_INT``, a nullable boolean (stored as int8) -1, a
nullable string empty. ``empty_catalog`` starts every nullable column as null, so a column nobody measures is null on
the wire and not a made-up zero.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from core.contracts import columns

Catalog = NDArray[np.void]

NULL_LONG: Final = np.iinfo(np.int64).min
NULL_INT: Final = np.iinfo(np.int32).min
NULL_BOOL: Final = -1

BANDS: Final = ("u", "g", "r", "i", "z", "y")

_STRING_LENGTH: Final = {"band": 1, "reliabilityVersion": 7, "mpc_orb_jsonb": 1}
_DEFAULT_STRING_LENGTH: Final = 24

_NUMPY_TYPE: Final = {
    "long": "<i8",
    "timestamp-micros": "<i8",
    "int": "<i4",
    "float": "<f4",
    "double": "<f8",
    "boolean": "i1",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column: Avro type, whether it may be null, unit (empty = none)."""

    name: str
    avro_type: str
    is_nullable: bool
    unit: str


def parse_columns(table: str) -> tuple[Column, ...]:
    """Read one table of :mod:`core.contracts.columns`."""
    rows = (line.split() for line in table.strip().splitlines())
    return tuple(Column(name, kind.rstrip("?"), kind.endswith("?"), "" if u == "-" else u) for name, kind, u in rows)


def _numpy_type(column: Column) -> str:
    if column.avro_type == "string":
        return f"<U{_STRING_LENGTH.get(column.name, _DEFAULT_STRING_LENGTH)}"
    return _NUMPY_TYPE[column.avro_type]


def _dtype(table: tuple[Column, ...]) -> np.dtype[np.void]:
    return np.dtype([(column.name, _numpy_type(column)) for column in table])


TABLES: Final[dict[str, tuple[Column, ...]]] = {
    "diaSource": parse_columns(columns.DIA_SOURCE_COLUMNS),
    "diaForcedSource": parse_columns(columns.DIA_FORCED_SOURCE_COLUMNS),
    "diaObject": parse_columns(columns.DIA_OBJECT_COLUMNS),
    "ssSource": parse_columns(columns.SS_SOURCE_COLUMNS),
    "mpc_orbits": parse_columns(columns.MPC_ORBITS_COLUMNS),
}
"""Columns of every record of the alert schema, by the schema's record name."""

OWN_TABLES: Final[dict[str, tuple[Column, ...]]] = {
    "lightCurveFeatures": parse_columns(columns.light_curve_feature_columns(BANDS)),
}
"""The same of records with a schema of our own."""

RECORDS: Final = TABLES | OWN_TABLES

DIA_SOURCE: Final = _dtype(TABLES["diaSource"])
DIA_FORCED_SOURCE: Final = _dtype(TABLES["diaForcedSource"])
DIA_OBJECT: Final = _dtype(TABLES["diaObject"])
SS_SOURCE: Final = _dtype(TABLES["ssSource"])
MPC_ORBITS: Final = _dtype(TABLES["mpc_orbits"])
LIGHT_CURVE_FEATURES: Final = _dtype(OWN_TABLES["lightCurveFeatures"])

NULL_OF: Final[dict[str, Any]] = {
    "long": NULL_LONG,
    "timestamp-micros": NULL_LONG,
    "int": NULL_INT,
    "float": np.nan,
    "double": np.nan,
    "boolean": NULL_BOOL,
    "string": "",
}
"""What stands for a missing value, by Avro type."""


def _null_row(table: tuple[Column, ...]) -> NDArray[np.void]:
    row = np.zeros(1, _dtype(table))
    for column in table:
        if column.is_nullable:
            row[column.name] = NULL_OF[column.avro_type]
    return row


_NULL_ROWS: Final = {_dtype(table): _null_row(table) for table in (*TABLES.values(), *OWN_TABLES.values())}


def empty_catalog(dtype: np.dtype[np.void], n: int) -> Catalog:
    """``n`` rows with every nullable column null and every required one zero."""
    return np.repeat(_NULL_ROWS[dtype], n)


def take_rows(catalog: Catalog, index: NDArray[np.int64] | NDArray[np.bool_]) -> Catalog:
    """Rows by index or mask, copied as bytes: ten times faster than ``catalog[index]``, which goes by field."""
    rows = np.flatnonzero(index) if index.dtype == np.bool_ else index
    return catalog.take(rows)


def join_rows(catalogs: list[Catalog]) -> Catalog:
    """All rows of catalogs of one dtype; ten times faster than ``np.concatenate``, which goes by field."""
    dtype = catalogs[0].dtype
    whole = np.dtype((np.void, dtype.itemsize))
    assert all(catalog.dtype == dtype for catalog in catalogs)
    return np.concatenate([np.ascontiguousarray(catalog).view(whole) for catalog in catalogs]).view(dtype)


# Catalogs of our own, not in the alert schema.

SOURCE: Final = np.dtype(
    [
        ("x", "<f8"),
        ("y", "<f8"),
        ("xErr", "<f4"),
        ("yErr", "<f4"),
        ("psfFlux", "<f4"),
        ("psfFluxErr", "<f4"),
        ("apFlux", "<f4"),
        ("apFluxErr", "<f4"),
        ("peak", "<f4"),
        ("snr", "<f4"),
        ("ixx", "<f4"),
        ("iyy", "<f4"),
        ("ixy", "<f4"),
        ("mask", "<u2"),
        ("isPsfStar", "?"),
        ("widthExcess", "<f4"),
    ]
)
"""Sources of the science image: positions [pixel], fluxes [e-] (before calibrate) or [nJy], moments [pixel**2].

``mask`` is the union of the mask bits within two pixels of the center.
``widthExcess`` is how much wider a PSF star is than the PSF's polynomial, as a fraction; NaN for other sources.
"""

REFERENCE_STAR: Final = np.dtype(
    [
        ("ra", "<f8"),
        ("dec", "<f8"),
        ("raErr", "<f4"),
        ("decErr", "<f4"),
        ("epochMjdTai", "<f8"),
        ("pmRa", "<f4"),
        ("pmDec", "<f4"),
        ("parallax", "<f4"),
        ("isStar", "?"),
        *((f"{band}_flux", "<f4") for band in BANDS),
        *((f"{band}_fluxErr", "<f4") for band in BANDS),
    ]
)
"""Reference catalog: position at ``epochMjdTai`` [deg], errors [mas] (raErr times cos dec), proper motion [mas/yr]
(pmRa times cos dec), parallax [mas], AB fluxes [nJy]. NaN where the catalog has no value."""

N_CHEBYSHEV: Final = 6

EPHEMERIS: Final = np.dtype(
    [
        ("ssObjectId", "<i8"),
        ("designation", "<U24"),
        ("startMjdTai", "<f8"),
        ("endMjdTai", "<f8"),
        ("object", "<f8", (3, N_CHEBYSHEV)),
        ("observer", "<f8", (3, N_CHEBYSHEV)),
        ("errorArcsec", "<f4"),
        ("ephVmag", "<f4"),
    ]
)
"""Ephemerides as the mpSky service gives them: Chebyshev coefficients (increasing degree; time scaled to [-1, 1]
between start and end) of barycentric x, y, z [AU, ICRS axes] of the object, light time included, and of the
observer."""
