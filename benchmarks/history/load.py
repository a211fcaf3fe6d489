"""How long a cold process takes to have a detector's history, from an APDB of a given size."""

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from core.contracts.catalogs import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, Catalog, empty_catalog
from core.ids import pack_visit, source_ids
from service.bundle_loader import LazyApdb

RA, DEC, SIDE_DEG, MJD = 150.0, 2.0, 0.2, 61000.0
RADIUS_DEG: Final = 0.17


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Rows of one detector's sky."""

    objects: int
    sources: int
    forced: int


LOADS: Final = {
    "12 months: 20,000 DIASources, 100,000 forced": Size(objects=2000, sources=20_000, forced=100_000),
    "ten times that": Size(objects=20_000, sources=200_000, forced=1_000_000),
}


def time_load(size: Size) -> dict[str, float]:
    """Fill an APDB, then let a new process read the region; its wall seconds, with and without its start."""
    from service.storage.apdb import ApdbStore, create_apdb

    with tempfile.TemporaryDirectory(prefix="sub60-") as name:
        folder = Path(name)
        create_apdb(f"sqlite:///{folder}/apdb.sqlite", folder / "config.yaml")
        store = ApdbStore(str(folder / "config.yaml"))
        objects, sources, forced = make_rows(size)
        begin = time.perf_counter()
        store.store(1, 1, MJD - 1, objects, sources, forced)
        written_s = time.perf_counter() - begin
        command = [sys.executable, "-m", "benchmarks.history.load", str(folder / "config.yaml")]
        begin = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        wall_s = time.perf_counter() - begin
    n_objects, n_sources, n_forced, read_s = done.stdout.split()
    if (int(n_objects), int(n_sources), int(n_forced)) != (size.objects, size.sources, size.forced):
        raise AssertionError(f"not all rows were read: {done.stdout}")
    return {"load_wall_s": wall_s, "read_wall_s": float(read_s), "write_wall_s": written_s}


def make_rows(size: Size) -> tuple[Catalog, Catalog, Catalog]:
    """Objects anywhere in the square, rows of random ones among them."""
    rng = np.random.default_rng(3)
    objects = empty_catalog(DIA_OBJECT, size.objects)
    objects["ra"] = RA + rng.uniform(-SIDE_DEG / 2, SIDE_DEG / 2, size.objects)
    objects["dec"] = DEC + rng.uniform(-SIDE_DEG / 2, SIDE_DEG / 2, size.objects)
    objects["diaObjectId"] = source_ids(1, pack_visit(20251231, 1), 1, np.arange(size.objects, dtype=np.int64))
    objects["nDiaSources"] = 2
    objects["firstDiaSourceMjdTai"] = MJD - 300
    objects["validityStartMjdTai"] = MJD - 1
    tables = []
    for dtype, key, n in (
        (DIA_SOURCE, "diaSourceId", size.sources),
        (DIA_FORCED_SOURCE, "diaForcedSourceId", size.forced),
    ):
        rows = empty_catalog(dtype, n)
        owner = np.sort(rng.integers(0, size.objects, n))
        for name in ("diaObjectId", "ra", "dec"):
            rows[name] = objects[name][owner]
        rows[key] = 1 + np.arange(n)
        rows["visit"], rows["detector"], rows["band"] = 1 + np.arange(n), 1, "r"
        rows["midpointMjdTai"] = MJD - rng.uniform(1, 360, n)
        rows["timeProcessedMjdTai"] = rows["midpointMjdTai"]
        rows["psfFlux"], rows["psfFluxErr"] = rng.normal(500, 200, n), 60.0
        rows["scienceFlux"], rows["scienceFluxErr"] = rng.normal(5000, 200, n), 60.0
        tables.append(rows)
    return objects, tables[0], tables[1]


def main(config: str) -> None:
    """Read the region and say how many rows came, and how long it took after the start."""
    begin = time.perf_counter()
    found = LazyApdb(config).read_region(RA, DEC, RADIUS_DEG, MJD)
    print(found.dia_objects.size, found.dia_sources.size, found.dia_forced_sources.size, time.perf_counter() - begin)


if __name__ == "__main__":
    main(sys.argv[1])
