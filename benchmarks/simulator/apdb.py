"""Writes the past into an alert production database, through its own interface only."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from astropy.time import Time
from lsst.dax.apdb import ApdbTables
from lsst.dax.apdb.sql import ApdbSql

from benchmarks.simulator.config import SimulationConfig
from benchmarks.simulator.history import Table, detector_history
from benchmarks.simulator.objects import dia_objects
from benchmarks.simulator.photometry import BANDS
from core.camera import Camera


def write_apdb(out: Path, config: SimulationConfig, camera: Camera, release: int) -> None:
    """Make ``apdb/apdb.sqlite`` with the history of all detectors, and ``apdb/config.yaml``."""
    folder = (out / "apdb").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    database = folder / "apdb.sqlite"
    database.unlink(missing_ok=True)
    settings = ApdbSql.init_database(f"sqlite:///{database}")
    settings.save(str(folder / "config.yaml"))
    apdb = ApdbSql(settings)
    for detector in config.detectors:
        sources, forced = detector_history(config, camera, detector, release)
        objects = dia_objects(sources, forced)
        newest = Time(float(sources["midpointMjdTai"].max()) + 60 / 86400, format="mjd", scale="tai")
        with warnings.catch_warnings():
            # the store itself calls pandas in ways that the next major version drops
            warnings.simplefilter("ignore", category=DeprecationWarning)
            apdb.store(
                newest,
                _frame(apdb, ApdbTables.DiaObject, objects),
                _frame(apdb, ApdbTables.DiaSource, sources),
                _frame(apdb, ApdbTables.DiaForcedSource, forced),
            )


def _frame(apdb: ApdbSql, table: ApdbTables, columns: Table) -> pd.DataFrame:
    """The columns that the table has, bands as letters; NaN becomes null."""
    definition = apdb.tableDef(table)
    names = [c.name for c in definition.columns] if definition is not None else []
    data: dict[str, Any] = {name: columns[name] for name in names if name in columns}
    if "band" in names:
        data["band"] = np.array(BANDS)[columns["band_index"]]
    return pd.DataFrame(data)
