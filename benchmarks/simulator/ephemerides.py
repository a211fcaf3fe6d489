"""Ephemerides of the movers and of others in the field, as a solar-system service would answer for the night."""

from pathlib import Path
from typing import Final

import fitsio
import numpy as np
from numpy.typing import NDArray

from benchmarks.simulator.changes import Movers
from benchmarks.simulator.config import SimulationConfig
from benchmarks.simulator.randomness import stream
from benchmarks.simulator.skymodel import earth_barycentric
from benchmarks.simulator.visits import Visit

Float64 = NDArray[np.float64]

N_CHEBYSHEV: Final = 6
FIELD_RADIUS_DEG: Final = 3.0
_OTHERS: Final = 300

EPHEMERIS: Final = np.dtype(
    [
        ("ssObjectId", "<i8"), ("designation", "S24"), ("startMjdTai", "<f8"), ("endMjdTai", "<f8"),
        ("object", "<f8", (3, N_CHEBYSHEV)), ("observer", "<f8", (3, N_CHEBYSHEV)), ("errorArcsec", "<f4"),
        ("ephVmag", "<f4"),
    ]
)  # fmt: skip
"""The columns of docs/dataset.md, "Ephemerides"."""


def _field_movers(config: SimulationConfig) -> Movers:
    """Objects elsewhere in the 3-degree field: predicted, but on none of the detectors by intention."""
    rng = stream(config.seed, "field movers")
    radius, angle = FIELD_RADIUS_DEG * np.sqrt(rng.uniform(0.002, 1, _OTHERS)), rng.uniform(0, 2 * np.pi, _OTHERS)
    rate, direction = rng.uniform(0.05, 0.4, _OTHERS), rng.uniform(0, 2 * np.pi, _OTHERS)
    return Movers(
        ids=4 * 10**15 + np.arange(_OTHERS),
        ra=config.ra_deg + radius * np.sin(angle) / np.cos(np.radians(config.dec_deg)),
        dec=config.dec_deg + radius * np.cos(angle),
        rate_east_deg_day=rate * np.sin(direction),
        rate_north_deg_day=rate * np.cos(direction),
        distance_au=rng.uniform(1.2, 3.0, _OTHERS),
        mag=rng.uniform(24.0, 26.5, _OTHERS),
        error_east_arcsec=np.zeros(_OTHERS),
        error_north_arcsec=np.zeros(_OTHERS),
        epoch_mjd_tai=config.start_mjd_tai,
    )


def _table(config: SimulationConfig, movers: Movers) -> NDArray[np.void]:
    """Chebyshev coefficients over one day of barycentric vectors whose direction is the predicted apparent one."""
    start, end = config.start_mjd_tai - 0.5, config.start_mjd_tai + 0.5
    nodes = np.cos(np.pi * (np.arange(12) + 0.5) / 12)
    times = (start + end) / 2 + nodes * (end - start) / 2
    observer = np.stack([earth_barycentric(float(t)) for t in times])
    table = np.zeros(movers.ids.size, EPHEMERIS)
    table["ssObjectId"] = movers.ids
    table["designation"] = [f"2026 S{i % 100_000:05d}" for i in movers.ids % 1_000_000]
    table["startMjdTai"], table["endMjdTai"] = start, end
    table["observer"] = np.polynomial.chebyshev.chebfit(nodes, observer, N_CHEBYSHEV - 1).T
    directions = np.stack([_predicted(movers, float(t)) for t in times])
    vectors = observer[:, None, :] + directions * movers.distance_au[None, :, None]
    fit = np.polynomial.chebyshev.chebfit(nodes, vectors.reshape(times.size, -1), N_CHEBYSHEV - 1)
    table["object"] = fit.reshape(N_CHEBYSHEV, movers.ids.size, 3).transpose(1, 2, 0)
    table["errorArcsec"] = np.maximum(0.3, np.hypot(movers.error_east_arcsec, movers.error_north_arcsec))
    table["ephVmag"] = movers.mag
    return table


def _predicted(movers: Movers, mjd_tai: float) -> Float64:
    """(n, 3) unit vectors to where the ephemeris has the objects."""
    ra, dec = movers.position(mjd_tai)
    dec = dec + movers.error_north_arcsec / 3600
    ra = ra + movers.error_east_arcsec / 3600 / np.cos(np.radians(dec))
    a, d = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=-1)


def write_ephemerides(out: Path, config: SimulationConfig, visits: list[Visit], movers: list[Movers]) -> None:
    """One file a visit: all objects within 3 degrees of the boresight."""
    table = np.concatenate([_table(config, m) for m in [*movers, _field_movers(config)]])
    folder = out / "ephemerides"
    folder.mkdir(parents=True, exist_ok=True)
    for visit in visits:
        with fitsio.FITS(str(folder / f"{visit.visit}.fits"), "rw", clobber=True) as fits:
            fits.write(table, extname="EPHEMERIS")
