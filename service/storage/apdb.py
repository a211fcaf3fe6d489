"""The store of record: lsst-dax-apdb, read into catalogs and written by exactly one sink."""

from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import sqlalchemy
from astropy.time import Time
from lsst.dax.apdb import Apdb, ApdbTables
from lsst.dax.apdb.sql import ApdbSql
from lsst.sphgeom import Angle, Circle, LonLat, UnitVector3d

from core.contracts.bundle import History
from core.contracts.catalogs import (
    DIA_FORCED_SOURCE,
    DIA_OBJECT,
    DIA_SOURCE,
    NULL_BOOL,
    NULL_OF,
    TABLES,
    Catalog,
    Column,
    empty_catalog,
)
from core.errors import ConfigurationError, TransientError
from service.storage.apdb_rows import HISTORY_DAYS, is_away
from service.storage.tables import sort_history

_TRIED: Final = "sub60:check"

_DTYPES: Final = {"diaObject": DIA_OBJECT, "diaSource": DIA_SOURCE, "diaForcedSource": DIA_FORCED_SOURCE}


def create_apdb(db_url: str, config_path: Path) -> None:
    """Make the tables at a SQLAlchemy URL (``sqlite:///path`` or PostgreSQL) and write the configuration file."""
    config = ApdbSql.init_database(db_url)
    config.save(config_path)


class ApdbStore:
    """One open APDB. Opening raises ``TransientError`` for one that is away, ``ConfigurationError`` for a wrong one.

    ``store`` may be called again for the same visit-detector, or late for an older one.
    """

    def __init__(self, config_uri: str) -> None:
        try:
            self._apdb = Apdb.from_uri(config_uri)
        except Exception as error:  # the package raises whatever its YAML, schema and database layers do
            if is_away(error):
                raise TransientError("the APDB does not answer", code="apdb_unavailable", uri=config_uri) from error
            raise ConfigurationError(f"the APDB cannot be opened: {error}", code="bad_apdb", uri=config_uri) from error
        self._newest_mjd: float | None = None
        self._newest_ids: set[int] = set()

    def read_region(self, ra_deg: float, dec_deg: float, radius_deg: float, mjd_tai: float) -> History:
        """Current DIAObjects in a circle and their sources of the 365 days before ``mjd_tai``.

        The index is coarse: rows a little outside the circle come too. 30-50 µs a row: SQL databases are read by
        :class:`service.storage.apdb_rows.SqlRegions` instead.
        """
        region = Circle(UnitVector3d(LonLat.fromDegrees(ra_deg, dec_deg)), Angle.fromDegrees(radius_deg))
        time = Time(mjd_tai, format="mjd", scale="tai")
        start = Time(mjd_tai - HISTORY_DAYS, format="mjd", scale="tai")
        try:
            objects = self._apdb.getDiaObjects(region)
            ids = objects["diaObjectId"].tolist()
            sources = self._apdb.getDiaSources(region, None, time, start)
            forced = self._apdb.getDiaForcedSources(region, ids, time, start)
        except Exception as error:  # as above
            raise TransientError("the APDB does not answer", code="apdb_unavailable") from error
        return sort_history(
            History(
                dia_objects=to_catalog("diaObject", objects),
                dia_sources=to_catalog("diaSource", sources),
                dia_forced_sources=to_catalog("diaForcedSource", forced),
            )
        )

    def store(
        self, visit: int, detector: int, mjd_tai: float, objects: Catalog, sources: Catalog, forced_sources: Catalog
    ) -> bool:
        """Write one visit-detector in one transaction; False where it is there already.

        Of an older visit that comes late, objects with a newer version keep it.
        """
        if not (objects.size or sources.size or forced_sources.size):
            return True
        try:
            if self._apdb.containsVisitDetector(visit, detector):
                return False
            # The database replaces the start of the versions' validity by the time it is given.
            start = float(objects["validityStartMjdTai"].max()) if objects.size else mjd_tai
            time = Time(start, format="mjd", scale="tai")
            newer = self._with_newer_version(start, time)
            current = objects[~np.isin(objects["diaObjectId"], newer)]
            self._apdb.store(
                time,
                to_frame("diaObject", current),
                to_frame("diaSource", sources),
                to_frame("diaForcedSource", forced_sources),
            )
        except Exception as error:  # as above
            raise TransientError("the APDB does not take a visit", code="apdb_unavailable", visit=visit) from error
        finally:
            self._forget_statements()
        if self._newest_mjd is None or start >= self._newest_mjd:
            same = self._newest_ids if start == self._newest_mjd else set()
            self._newest_mjd, self._newest_ids = start, same | {int(i) for i in current["diaObjectId"]}
        return True

    def _forget_statements(self) -> None:
        """The package inserts through pandas, with new tables each time: SQLAlchemy would keep 200 MB of them."""
        if isinstance(self._apdb, ApdbSql):
            self._apdb._engine.clear_compiled_cache()

    def schema_version(self) -> str:
        """Version of the database's schema, as it was made; raises TransientError when it does not answer."""
        try:
            return str(self._apdb.metadata.get("version:schema", "unknown"))
        except Exception as error:  # as above
            raise TransientError(f"the APDB does not answer: {error}", code="apdb_unavailable") from error

    def try_write(self) -> None:
        """Write a word into the database's metadata and take it out.

        Raises ConfigurationError where it may not, TransientError where it does not answer or is locked.
        """
        try:
            self._apdb.metadata.set(_TRIED, "1", force=True)
            self._apdb.metadata.delete(_TRIED)
        except Exception as error:  # as above
            reason = str(error).splitlines()[0]
            if isinstance(error, sqlalchemy.exc.OperationalError) and "readonly" not in reason:
                raise TransientError(f"the APDB takes no write now: {reason}", code="apdb_unavailable") from error
            raise ConfigurationError(
                f"the APDB cannot be written: {reason}; has its user the right to write?", code="apdb_read_only"
            ) from error

    def count_rows(self, start_mjd_tai: float, end_mjd_tai: float) -> dict[tuple[int, int], tuple[int, int]] | None:
        """Rows of DiaSource and of DiaForcedSource by (visit, detector), midpoints within both bounds.

        None where the database is no SQL one: Cassandra cannot be asked without reading all of it.
        """
        if not isinstance(self._apdb, ApdbSql):
            return None
        counts: dict[tuple[int, int], list[int]] = {}
        try:
            with self._apdb._engine.begin() as connection:
                for i, table in enumerate((ApdbTables.DiaSource, ApdbTables.DiaForcedSource)):
                    columns = self._apdb._schema.get_table(table).c
                    query = sqlalchemy.select(columns.visit, columns.detector, sqlalchemy.func.count())
                    query = query.where(columns.midpointMjdTai.between(start_mjd_tai, end_mjd_tai))
                    for visit, detector, count in connection.execute(query.group_by(columns.visit, columns.detector)):
                        counts.setdefault((int(visit), int(detector)), [0, 0])[i] = int(count)
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise TransientError("the APDB does not answer", code="apdb_unavailable") from error
        return {key: (sources, forced) for key, (sources, forced) in counts.items()}

    def _with_newer_version(self, start_mjd: float, time: Time) -> list[int]:
        """Objects whose stored version begins at or after a time; asked of the database for a late visit, and at first.

        What the database held already is remembered too: a second detector of the same time may bring the same objects.
        """
        if self._newest_mjd is not None and start_mjd > self._newest_mjd:
            return []
        if self._newest_mjd is not None and start_mjd == self._newest_mjd:
            return list(self._newest_ids)
        stored = self._apdb.getDiaObjectsForDedup(since=time)
        if self._newest_mjd is None and len(stored):
            starts = stored["validityStartMjdTai"]
            self._newest_mjd = float(starts.max())
            self._newest_ids = {int(i) for i in stored["diaObjectId"][starts == self._newest_mjd]}
        return [int(i) for i in stored["diaObjectId"]]


def to_catalog(table: str, frame: pd.DataFrame) -> Catalog:
    """Columns of a data frame as a catalog; missing values become the nulls of ``core.contracts.catalogs``."""
    catalog = empty_catalog(_DTYPES[table], len(frame))
    if len(frame):
        for column in TABLES[table]:
            if column.name in frame.columns:
                catalog[column.name] = _from_series(column, frame[column.name], catalog.dtype[column.name])
    return catalog


def _from_series(column: Column, series: "pd.Series[Any]", dtype: np.dtype[Any]) -> Any:
    if column.avro_type in ("float", "double"):
        return series.to_numpy(dtype=dtype, na_value=np.nan)
    if column.avro_type == "string":
        return series.fillna("").to_numpy(dtype=dtype)
    null = NULL_OF[column.avro_type]
    if series.hasnans:
        return series.to_numpy(dtype=object, na_value=null).astype(dtype)
    return series.to_numpy(dtype=dtype)


def to_frame(table: str, catalog: Catalog) -> pd.DataFrame:
    """A catalog as the data frame that the APDB takes: nulls missing, whole numbers whole."""
    frame = pd.DataFrame({column.name: _to_series(column, catalog[column.name]) for column in TABLES[table]})
    if table == "diaObject":
        frame["validityEndMjdTai"] = np.nan
    return frame


def _to_series(column: Column, values: Any) -> Any:
    if column.avro_type in ("float", "double"):
        return np.ascontiguousarray(values)
    if column.avro_type == "string":
        texts = values.astype(object)
        return np.where(values == "", None, texts) if column.is_nullable else texts
    if column.avro_type == "boolean":
        return pd.arrays.BooleanArray(values > 0, values == NULL_BOOL)
    if not column.is_nullable:
        return np.ascontiguousarray(values)
    return pd.arrays.IntegerArray(np.ascontiguousarray(values), values == NULL_OF[column.avro_type])
