"""History straight from an SQL APDB's tables, a column at a time.

``lsst-dax-apdb`` reads through pandas: 30-50 µs a row and 1.3 s of imports. The same rows by plain queries cost 4 µs.
Written is the APDB by that package alone (``service.storage.apdb``), which also reads what is no SQL database.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import parse_qsl, quote, unquote, urlencode

import numpy as np
import yaml
from lsst.sphgeom import Angle, Circle, HtmPixelization, LonLat, UnitVector3d
from numpy.typing import NDArray

from core.contracts.bundle import History
from core.contracts.catalogs import (
    DIA_FORCED_SOURCE,
    DIA_OBJECT,
    DIA_SOURCE,
    NULL_OF,
    TABLES,
    Catalog,
    Column,
    empty_catalog,
    join_rows,
)
from core.errors import ConfigurationError, TransientError
from service.storage.tables import sort_history

HISTORY_DAYS: Final = 365.0
_VALIDITY_END: Final = "validityEndMjdTai"
_FROZEN: Final = "config:apdb-sql.json"
_ROWS: Final = 5000
"""Fetched at once: a row of DiaSource is 100 Python values."""
_IDS: Final = 1000
BUSY_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _TableNames:
    """Schema and prefix that the tables' names carry."""

    schema: str
    prefix: str

    def quoted(self, table: str) -> str:
        """As the database wants it."""
        return f'"{self.schema}"."{self.prefix}{table}"' if self.schema else f'"{self.prefix}{table}"'


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlRegions:
    """The tables of one SQL APDB, as far as they are read."""

    connect: Callable[[], Any]
    """Opens a DB-API connection."""
    names: _TableNames
    object_table: str
    columns: Mapping[str, frozenset[str]]
    """Of each table that is read."""
    pixelization: HtmPixelization
    pixel_column: str
    max_ranges: int

    @classmethod
    def open(cls, config: str) -> Self | None:
        """The tables that a configuration file names; None for one that only ``lsst-dax-apdb`` understands.

        Raises ``TransientError`` where the database does not answer.
        """
        settings = _read_config(config)
        if settings is None:
            return None
        connect = _connector(settings["db_url"])
        if connect is None:
            return None
        names = _TableNames(schema=settings.get("namespace") or "", prefix=settings.get("prefix") or "")
        with _answering(config), closing(connect()) as connection:
            found = _run(
                connection, f"SELECT value FROM {names.quoted('metadata')} WHERE name = '{_FROZEN}'"
            ).fetchone()
            frozen = json.loads(found[0]) if found else {}
            index = frozen.get("dia_object_index", settings.get("dia_object_index", "baseline"))
            table = "DiaObjectLast" if index == "last_object_table" else "DiaObject"
            tables = (table, "DiaSource", "DiaForcedSource")
            columns = {name: _columns_of(connection, names.quoted(name)) for name in tables}
        if table == "DiaObject" and _VALIDITY_END not in columns[table]:
            return None
        pixels = settings.get("pixelization") or {}
        return cls(
            connect=connect,
            names=names,
            object_table=table,
            columns=columns,
            pixelization=HtmPixelization(frozen.get("htm_level", pixels.get("htm_level", 20))),
            pixel_column=frozen.get("htm_index_column", pixels.get("htm_index_column", "pixelId")),
            max_ranges=pixels.get("htm_max_ranges", 64),
        )

    def read_region(self, ra_deg: float, dec_deg: float, radius_deg: float, mjd_tai: float) -> History:
        """As :meth:`service.storage.apdb.ApdbStore.read_region`."""
        region = Circle(UnitVector3d(LonLat.fromDegrees(ra_deg, dec_deg)), Angle.fromDegrees(radius_deg))
        ranges = self.pixelization.envelope(region, self.max_ranges).ranges()
        inside = " OR ".join(f'"{self.pixel_column}" BETWEEN {low} AND {end - 1}' for low, end in ranges)
        since = f'"midpointMjdTai" > {mjd_tai - HISTORY_DAYS!r}'
        latest = f' AND "{_VALIDITY_END}" IS NULL' if self.object_table == "DiaObject" else ""
        with _answering(), closing(self.connect()) as connection:
            read = partial(self._read, connection)
            objects = read("diaObject", DIA_OBJECT, self.object_table, f"({inside}){latest}")
            sources = read("diaSource", DIA_SOURCE, "DiaSource", f"({inside}) AND {since}")
            ids = np.sort(objects["diaObjectId"])
            parts = [ids[i : i + _IDS] for i in range(0, ids.size, _IDS)]
            wanted = (f'"diaObjectId" IN ({",".join(map(str, part.tolist()))}) AND {since}' for part in parts)
            forced = [read("diaForcedSource", DIA_FORCED_SOURCE, "DiaForcedSource", w) for w in wanted]
        forced = forced or [empty_catalog(DIA_FORCED_SOURCE, 0)]
        return sort_history(
            History(dia_objects=objects, dia_sources=sources, dia_forced_sources=join_rows(forced)),
        )

    def _read(self, connection: Any, table: str, dtype: np.dtype[np.void], name: str, where: str) -> Catalog:
        """Rows of a table; columns that the database lacks are null."""
        columns = [column for column in TABLES[table] if column.name in self.columns[name]]
        chosen = ", ".join(f'"{column.name}"' for column in columns)
        cursor = _run(connection, f"SELECT {chosen} FROM {self.names.quoted(name)} WHERE {where}")
        chunks = [_to_rows(columns, dtype, chunk) for chunk in _chunks(cursor.fetchmany)]
        cursor.close()
        return join_rows(chunks) if chunks else empty_catalog(dtype, 0)


def _chunks(fetch: Callable[[int], Any]) -> Iterator[list[tuple[Any, ...]]]:
    while chunk := fetch(_ROWS):
        yield chunk


def _to_rows(columns: list[Column], dtype: np.dtype[np.void], values: list[tuple[Any, ...]]) -> Catalog:
    rows = empty_catalog(dtype, len(values))
    for column, found in zip(columns, zip(*values, strict=True), strict=True):
        rows[column.name] = _to_array(column, found, dtype[column.name])
    return rows


def _to_array(column: Column, values: tuple[Any, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """A column's values, missing ones as its null: NaN of floats comes by itself."""
    if column.avro_type not in ("float", "double") and None in values:
        null = NULL_OF[column.avro_type]
        values = tuple(null if value is None else value for value in values)
    return np.array(values, dtype)


def _run(connection: Any, query: str) -> Any:
    """A cursor on a query, whose text holds names and numbers of ours only."""
    cursor = connection.cursor()
    cursor.execute(query)
    return cursor


def _columns_of(connection: Any, quoted: str) -> frozenset[str]:
    return frozenset(column[0] for column in _run(connection, f"SELECT * FROM {quoted} WHERE 1 = 0").description)


def _read_config(config: str) -> dict[str, Any] | None:
    """Settings of a local file for an SQL database."""
    path = Path(config.removeprefix("file://"))
    if not path.is_file():
        return None
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    is_sql = isinstance(settings, dict) and settings.get("implementation_type") == "sql" and "db_url" in settings
    return settings if is_sql and not settings.get("connection_config") else None


@contextmanager
def _answering(config: str = "") -> Iterator[None]:
    """Errors of a database as ours: ``config`` is named where it is being opened, and may be wrong."""
    try:
        yield
    except Exception as error:
        if not is_database_error(error):
            raise
        if config and not is_away(error):
            raise ConfigurationError(f"the APDB cannot be opened: {error}", code="bad_apdb", uri=config) from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TransientError(f"the APDB does not answer: {reason}", code="apdb_unavailable") from error


def is_database_error(error: BaseException) -> bool:
    """Whether a DB-API driver or SQLAlchemy raised it: all their errors derive from one of this name."""
    return any(kind.__name__ in ("Error", "SQLAlchemyError") for kind in type(error).__mro__)


def is_away(error: BaseException) -> bool:
    """Whether a database was away or locked, which may heal; a wrong file, name or login does not by itself."""
    never = ("unable to open", "authentication failed", "does not exist")
    return type(error).__name__ == "OperationalError" and not any(words in str(error) for words in never)


def _connector(url: str) -> Callable[[], Any] | None:
    """Opens connections to the database of an SQLAlchemy URL; None for a kind that is not read here."""
    kind, _, rest = url.partition("://")
    if kind == "sqlite":
        path, _, query = rest.removeprefix("/").partition("?")
        options = dict(parse_qsl(query))
        # SQLite makes a file that is not there unless the URL forbids it
        if options.pop("uri", "") != "true" or "mode" not in options:
            return None
        file = unquote(path)
        file = file if file.startswith("file:") else f"file:{quote(file)}"
        return partial(sqlite3.connect, f"{file}?{urlencode(options)}", uri=True, timeout=BUSY_S)
    if kind in ("postgresql", "postgresql+psycopg2"):
        import psycopg2

        return partial(psycopg2.connect, _with_login(f"postgresql://{rest}"), connect_timeout=int(BUSY_S))
    return None


def _with_login(url: str) -> str:
    """With what the survey's credentials file has for it, as ``lsst-dax-apdb`` does."""
    from lsst.utils.db_auth import DbAuth, DbAuthNotFoundError

    try:
        return str(DbAuth().getUrl(url))
    except DbAuthNotFoundError:
        return url
