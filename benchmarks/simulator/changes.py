"""What changes in the sky of one detector: variables, transients and movers."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from benchmarks.simulator.config import SimulationConfig
from benchmarks.simulator.photometry import BANDS, mag_to_njy
from benchmarks.simulator.randomness import stream
from benchmarks.simulator.skymodel import SKY, Rows
from core.camera import Camera

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

VARIABLE_IDS: Final = 10**15
TRANSIENT_IDS: Final = 2 * 10**15
MOVER_IDS: Final = 3 * 10**15
CORE_ARCSEC: Final = 0.1
NEAR_BRIGHT_ARCSEC: Final = 5.0
SEPARATION_ARCSEC: Final = 3.0
"""No transient is drawn this near to another, or to a variable: two changes in one PSF are one source to anybody."""
BRIGHT_MAG: Final = 18.0
_MAX_DRAWS: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Variables:
    """Periodic stars; ``rows`` holds positions and mean magnitudes, the arrays (n,) their light curves."""

    rows: Rows
    period_days: Float64
    amplitude: Float64
    phase: Float64

    def flux(self, band: str, mjd_tai: float | Float64) -> Float64:
        """Fluxes [nJy] in a band: (n,) at one time, (n, m) at m times."""
        mean = mag_to_njy(self.rows["mag"][:, BANDS.index(band)])
        times = np.atleast_1d(np.asarray(mjd_tai, np.float64))
        wave = np.sin(2 * np.pi * times[None, :] / self.period_days[:, None] + self.phase[:, None])
        # redder bands vary less
        strength = self.amplitude * (1.15 - 0.1 * BANDS.index(band))
        flux = mean[:, None] * (1 + strength[:, None] * wave)
        return flux if np.ndim(mjd_tai) else flux[:, 0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transients:
    """New point sources of one visit."""

    ids: Int64
    ra: Float64
    dec: Float64
    is_hosted: NDArray[np.bool_]
    is_near_bright: NDArray[np.bool_]
    is_bright: NDArray[np.bool_]
    """Drawn from ``bright_snr_range``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Movers:
    """Solar-system objects: position at ``epoch_mjd_tai`` and apparent motion; the ephemeris is off by a constant."""

    ids: Int64
    ra: Float64
    dec: Float64
    rate_east_deg_day: Float64
    rate_north_deg_day: Float64
    distance_au: Float64
    mag: Float64
    error_east_arcsec: Float64
    error_north_arcsec: Float64
    epoch_mjd_tai: float

    def position(self, mjd_tai: float) -> tuple[Float64, Float64]:
        """Apparent ICRS (ra, dec) [deg]."""
        days = mjd_tai - self.epoch_mjd_tai
        return (
            self.ra + self.rate_east_deg_day * days / np.cos(np.radians(self.dec)),
            self.dec + self.rate_north_deg_day * days,
        )


def _uniform_sky(
    rng: np.random.Generator, config: SimulationConfig, camera: Camera, detector: int, n: int
) -> tuple[Float64, Float64]:
    """n positions on the detector as the mean pointing sees it, away from its edge."""
    ny, nx = camera.detectors[detector].shape
    margin = config.edge_margin_pix
    x, y = rng.uniform(margin, nx - 1 - margin, n), rng.uniform(margin, ny - 1 - margin, n)
    return camera.pixel_to_sky(detector, x, y, config.ra_deg, config.dec_deg, config.rot_sky_deg)


def make_variables(config: SimulationConfig, camera: Camera, detector: int) -> Variables:
    """Stars of 18.5 to 21.5 mag with periods of hours to months."""
    rng = stream(config.seed, "variables", detector)
    n = config.variables
    rows = np.zeros(n, SKY)
    rows["ra"], rows["dec"] = _uniform_sky(rng, config, camera, detector, n)
    rows["id"] = VARIABLE_IDS + detector * 10_000 + np.arange(n)
    rows["is_star"] = True
    rows["axis_ratio"] = 1.0
    r, g_r = rng.uniform(18.5, 21.5, n), rng.uniform(0.1, 0.7, n)
    r_i = 0.4 * g_r
    offsets = np.stack([g_r * 2.2 + 0.6, g_r, 0 * g_r, -r_i, -1.4 * r_i, -1.7 * r_i], axis=-1)
    rows["mag"] = r[:, None] + offsets
    return Variables(
        rows=rows,
        period_days=np.exp(rng.uniform(np.log(0.3), np.log(60.0), n)),
        amplitude=rng.uniform(0.25, 0.55, n),
        phase=rng.uniform(0, 2 * np.pi, n),
    )


def make_transients(
    config: SimulationConfig, camera: Camera, detector: int, visit_index: int, sky: Rows, variables: Variables
) -> Transients:
    """Half of them last through the night, half are of this visit only, and the bright ones too."""
    n_lasting = config.transients // 2
    taken = np.stack([variables.rows["ra"], variables.rows["dec"]], axis=-1)
    lasting = _transients(config, camera, detector, -1, n_lasting, 0, sky, taken)
    taken = np.concatenate([taken, np.stack([lasting.ra, lasting.dec], axis=-1)])
    n_new = config.transients - n_lasting
    new = _transients(config, camera, detector, visit_index, n_new, config.bright_transients, sky, taken)
    names = ("ids", "ra", "dec", "is_hosted", "is_near_bright", "is_bright")
    return Transients(**{name: np.concatenate([getattr(lasting, name), getattr(new, name)]) for name in names})


def _transients(
    config: SimulationConfig,
    camera: Camera,
    detector: int,
    index: int,
    n_usual: int,
    n_bright: int,
    sky: Rows,
    taken: Float64,
) -> Transients:
    """A tenth in galaxies' cores, four tenths elsewhere on galaxies, a tenth near bright stars, the rest anywhere.

    ``taken`` (m, 2) are positions (ra, dec) [deg] to keep away from.
    """
    rng = stream(config.seed, "transients", detector, index + 1)
    n = n_usual + n_bright
    kind = np.concatenate([rng.permutation(np.arange(n_usual) / max(n_usual, 1)), np.ones(n_bright)])
    inside = _inside(config, camera, detector, sky)
    magnitude = sky["mag"][:, 2]
    hosts = sky[inside & ~sky["is_star"] & (magnitude < 24.0) & (magnitude > 18.5)]
    stars = sky[inside & sky["is_star"] & (magnitude < BRIGHT_MAG)]
    ra, dec = np.empty(n), np.empty(n)
    rows = np.arange(n)
    for _ in range(_MAX_DRAWS):
        ra[rows], dec[rows] = _places(rng, config, camera, detector, kind[rows], hosts, stars)
        rows = _crowded(ra, dec, taken)
        if rows.size == 0:
            break
    ids = TRANSIENT_IDS + (detector * 1000 + index + 1) * 10_000 + np.arange(n)
    return Transients(
        ids=ids,
        ra=ra,
        dec=dec,
        is_hosted=(kind < 0.5) & (hosts.size > 0),
        is_near_bright=(kind >= 0.5) & (kind < 0.6) & (stars.size > 0),
        is_bright=np.arange(n) >= n_usual,
    )


def _places(
    rng: np.random.Generator,
    config: SimulationConfig,
    camera: Camera,
    detector: int,
    kind: Float64,
    hosts: Rows,
    stars: Rows,
) -> tuple[Float64, Float64]:
    """Positions (ra, dec) [deg] of transients: in cores below ``kind`` 0.1, on galaxies to 0.5, near stars to 0.6."""
    n = kind.size
    ra, dec = _uniform_sky(rng, config, camera, detector, n)
    angle = rng.uniform(0, 2 * np.pi, n)
    for where, pool in ((kind < 0.5, hosts), ((kind >= 0.5) & (kind < 0.6), stars)):
        m = int(where.sum())
        if m == 0 or pool.size == 0:
            continue
        host = pool[rng.integers(0, pool.size, m)]
        if pool is hosts:
            radius = np.where(kind[where] < 0.1, CORE_ARCSEC, 1.2 * host["re"]) * np.sqrt(rng.random(m))
        else:
            radius = np.sqrt(rng.uniform(1.5**2, NEAR_BRIGHT_ARCSEC**2, m))
        dec[where] = host["dec"] + radius * np.cos(angle[where]) / 3600
        ra[where] = host["ra"] + radius * np.sin(angle[where]) / 3600 / np.cos(np.radians(host["dec"]))
    return ra, dec


def _crowded(ra: Float64, dec: Float64, taken: Float64) -> Int64:
    """Rows nearer than :data:`SEPARATION_ARCSEC` to a taken position or to an earlier row."""
    if ra.size == 0:
        return np.zeros(0, np.int64)
    scale = 3600 * np.array([np.cos(np.radians(dec.mean())), 1.0])
    own = np.stack([ra, dec], axis=-1) * scale
    crowded = {int(j) for _, j in cKDTree(own).query_pairs(SEPARATION_ARCSEC)}
    if taken.size:
        distance, _ = cKDTree(taken * scale).query(own)
        crowded |= set(np.flatnonzero(distance < SEPARATION_ARCSEC).tolist())
    return np.array(sorted(crowded), np.int64)


def _inside(config: SimulationConfig, camera: Camera, detector: int, sky: Rows) -> NDArray[np.bool_]:
    ny, nx = camera.detectors[detector].shape
    margin = config.edge_margin_pix
    x, y = camera.sky_to_pixel(detector, sky["ra"], sky["dec"], config.ra_deg, config.dec_deg, config.rot_sky_deg)
    return (x > margin) & (x < nx - 1 - margin) & (y > margin) & (y < ny - 1 - margin)


def make_movers(config: SimulationConfig, camera: Camera, detector: int) -> Movers:
    """Main-belt-like motions of 0.05 to 0.4 deg/day; ephemerides off by 0.1 to 1 arcsec."""
    rng = stream(config.seed, "movers", detector)
    n = config.movers
    ra, dec = _uniform_sky(rng, config, camera, detector, n)
    rate, direction = rng.uniform(0.05, 0.4, n), rng.uniform(0, 2 * np.pi, n)
    error, towards = rng.uniform(0.1, 1.0, n), rng.uniform(0, 2 * np.pi, n)
    return Movers(
        ids=MOVER_IDS + detector * 10_000 + np.arange(n),
        ra=ra,
        dec=dec,
        rate_east_deg_day=rate * np.sin(direction),
        rate_north_deg_day=rate * np.cos(direction),
        distance_au=rng.uniform(1.2, 3.0, n),
        mag=rng.uniform(20.0, 24.0, n),
        error_east_arcsec=error * np.sin(towards),
        error_north_arcsec=error * np.cos(towards),
        epoch_mjd_tai=config.start_mjd_tai,
    )
