"""The static sky: stars with motions and galaxies with profiles, drawn tile by tile so that regions can be redone."""

from functools import cache
from importlib.resources import files
from typing import Final

import numpy as np
from astropy.coordinates import get_body_barycentric
from astropy.time import Time
from numpy.typing import NDArray

from benchmarks.simulator.config import SimulationConfig
from benchmarks.simulator.photometry import BANDS
from benchmarks.simulator.randomness import stream

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Rows = NDArray[np.void]

TILE_DEG: Final = 0.05
REFERENCE_EPOCH: Final = 57388.0
"""MJD TAI of the positions (J2016.0, as Gaia's)."""
_JULIAN_YEAR: Final = 365.25

SKY: Final = np.dtype(
    [
        ("id", "<i8"), ("is_star", "?"), ("ra", "<f8"), ("dec", "<f8"), ("pm_ra", "<f8"), ("pm_dec", "<f8"),
        ("parallax", "<f8"), ("mag", "<f8", (6,)), ("re", "<f8"), ("is_bulge", "?"), ("axis_ratio", "<f8"),
        ("pa", "<f8"),
    ]
)  # fmt: skip
"""Positions at the reference epoch [deg], motions [mas/yr, mas], magnitudes by band, half-light radius [arcsec]."""


@cache
def _star_table() -> tuple[Float64, Float64, Float64]:
    """(n,) Gaia G, (n, 6) magnitudes minus G, (n, 3) proper motions and parallax."""
    text = (files("benchmarks.simulator") / "data" / "stars.csv").read_text(encoding="utf-8")
    table = np.genfromtxt(text.splitlines(), delimiter=",", names=True)
    magnitudes = np.stack([table[b] for b in BANDS[1:]], axis=-1)
    g_r = magnitudes[:, 0] - magnitudes[:, 1]
    u = magnitudes[:, 0] + 0.75 + 1.1 * np.clip(g_r, 0, 1.5) + 0.25 * np.clip(0.2 - g_r, 0, 1) * -1
    offsets = np.column_stack([u, magnitudes]) - table["gaia_g"][:, None]
    motion = np.nan_to_num(np.stack([table["pm_ra"], table["pm_dec"], table["parallax"]], axis=-1))
    return table["gaia_g"], offsets, motion


def _draw_stars(rng: np.random.Generator, area_deg2: float, config: SimulationConfig) -> Rows:
    """Stars of one tile: the table's to G = 20.8, fainter ones with a shallow count slope and its faint colors."""
    table_g, offsets, motion = _star_table()
    density = config.gaia_stars_deg2 * config.star_density_factor
    n_bright = rng.poisson(density * area_deg2)
    # Counts from G = 12 to 14.5 follow the slope of the shards (0.2 dex/mag), 4 % of the stars above 20.8
    g = table_g[rng.integers(0, table_g.size, n_bright)] + rng.normal(0.0, 0.05, n_bright)
    is_brilliant = rng.random(n_bright) < 0.04
    g[is_brilliant] = 14.5 + np.log10(rng.uniform(10 ** (0.2 * -2.5), 1.0, int(is_brilliant.sum()))) / 0.2
    n_faint = rng.poisson(density * area_deg2 * 1.6)
    span = config.faintest_mag - 20.8
    faint = 20.8 + np.log10(rng.uniform(1.0, 10 ** (0.12 * span), n_faint)) / 0.12
    red = np.flatnonzero(table_g > 19.0)
    index = np.concatenate([np.clip(np.searchsorted(table_g, g), 0, table_g.size - 1), rng.choice(red, n_faint)])
    near = np.clip(index + rng.integers(-40, 41, index.size), 0, table_g.size - 1)
    rows = np.zeros(index.size, SKY)
    total = np.concatenate([g, faint])
    rows["is_star"] = True
    rows["mag"] = total[:, None] + offsets[near]
    # distant faint stars move less
    damping = np.where(total > 20.8, 0.5, 1.0)
    rows["pm_ra"], rows["pm_dec"] = motion[near, 0] * damping, motion[near, 1] * damping
    rows["parallax"] = np.abs(motion[near, 2]) * damping
    return rows[rows["mag"][:, 2] > config.brightest_mag]


def _draw_galaxies(rng: np.random.Generator, area_deg2: float, config: SimulationConfig) -> Rows:
    """Galaxies with counts of slope 0.33 dex/mag in r, a red and a blue sequence, sizes that shrink with magnitude."""
    slope = 0.33
    expected = config.galaxies_arcmin2 * 3600 * area_deg2 * 10 ** (slope * (config.faintest_mag - 24.5))
    n = rng.poisson(expected)
    low = 10 ** (slope * (17.0 - config.faintest_mag))
    r = config.faintest_mag + np.log10(rng.uniform(low, 1.0, n)) / slope
    rows = np.zeros(n, SKY)
    red = rng.random(n) < 0.3
    g_r = np.where(red, rng.normal(1.1, 0.2, n), rng.normal(0.5, 0.2, n))
    r_i = np.where(red, rng.normal(0.5, 0.1, n), rng.normal(0.2, 0.1, n))
    u_g = np.where(red, rng.normal(1.5, 0.2, n), rng.normal(0.7, 0.2, n))
    i = r - r_i
    rows["mag"] = np.stack([r + g_r + u_g, r + g_r, r, i, i - 0.6 * r_i, i - 0.8 * r_i], axis=-1)
    rows["is_bulge"] = red & (rng.random(n) < 0.8)
    rows["re"] = np.clip(0.45 * 10 ** (-0.11 * (r - 23.0)) * np.exp(rng.normal(0, 0.3, n)), 0.08, 4.0)
    rows["axis_ratio"] = rng.uniform(0.3, 1.0, n)
    rows["pa"] = rng.uniform(0, 180.0, n)
    return rows


def _plane_to_sky(xi: Float64, eta: Float64, ra0: float, dec0: float) -> tuple[Float64, Float64]:
    x, e = np.radians(xi), np.radians(eta)
    s, c = np.sin(np.radians(dec0)), np.cos(np.radians(dec0))
    ra = ra0 + np.degrees(np.arctan2(x, c - e * s))
    return ra % 360.0, np.degrees(np.arctan2(s + e * c, np.hypot(x, c - e * s)))


def sky_to_plane(ra: Float64, dec: Float64, ra0: float, dec0: float) -> tuple[Float64, Float64]:
    """Gnomonic (xi east, eta north) [deg] about a point."""
    a, d = np.radians(ra - ra0), np.radians(dec)
    s, c = np.sin(np.radians(dec0)), np.cos(np.radians(dec0))
    cosine = np.sin(d) * s + np.cos(d) * c * np.cos(a)
    xi = np.degrees(np.cos(d) * np.sin(a) / cosine)
    return xi, np.degrees((np.sin(d) * c - np.cos(d) * s * np.cos(a)) / cosine)


def plane_to_sky(xi: Float64, eta: Float64, ra0: float, dec0: float) -> tuple[Float64, Float64]:
    """Inverse of :func:`sky_to_plane`."""
    return _plane_to_sky(xi, eta, ra0, dec0)


def draw_region(config: SimulationConfig, ra_deg: float, dec_deg: float, radius_deg: float) -> Rows:
    """All stars and galaxies within ``radius_deg`` of a point."""
    xi0, eta0 = sky_to_plane(np.array([ra_deg]), np.array([dec_deg]), config.ra_deg, config.dec_deg)
    span = int(np.ceil(radius_deg / TILE_DEG)) + 1
    ci, cj = int(np.floor(xi0[0] / TILE_DEG)), int(np.floor(eta0[0] / TILE_DEG))
    tiles = [_tile(config, i, j) for j in range(cj - span, cj + span + 1) for i in range(ci - span, ci + span + 1)]
    rows = np.concatenate(tiles)
    xi, eta = sky_to_plane(rows["ra"], rows["dec"], ra_deg, dec_deg)
    return rows[np.hypot(xi, eta) < radius_deg]


def _tile(config: SimulationConfig, i: int, j: int) -> Rows:
    rng = stream(config.seed, "tile", i, j)
    area = TILE_DEG**2
    rows = np.concatenate([_draw_stars(rng, area, config), _draw_galaxies(rng, area, config)])
    xi = (i + rng.random(rows.size)) * TILE_DEG
    eta = (j + rng.random(rows.size)) * TILE_DEG
    rows["ra"], rows["dec"] = _plane_to_sky(xi, eta, config.ra_deg, config.dec_deg)
    rows["id"] = ((i + 2048) * 4096 + (j + 2048)) * 100_000 + np.arange(rows.size) + 1
    return rows


def earth_barycentric(mjd_tai: float) -> Float64:
    """Earth's center from the solar system's barycenter [AU, ICRS axes]."""
    position = get_body_barycentric("earth", Time(mjd_tai, format="mjd", scale="tai"), ephemeris="builtin")
    return np.asarray(position.xyz.to_value("au"), np.float64)


def positions_at(rows: Rows, mjd_tai: float, *, proper_motion: bool) -> tuple[Float64, Float64]:
    """ICRS (ra, dec) [deg] at an epoch, proper motion and parallax applied."""
    if not proper_motion:
        return rows["ra"].copy(), rows["dec"].copy()
    years = (mjd_tai - REFERENCE_EPOCH) / _JULIAN_YEAR
    x, y, z = earth_barycentric(mjd_tai)
    ra, dec = np.radians(rows["ra"]), np.radians(rows["dec"])
    east = rows["pm_ra"] * years + rows["parallax"] * (x * np.sin(ra) - y * np.cos(ra))
    north = rows["pm_dec"] * years + rows["parallax"] * (
        x * np.cos(ra) * np.sin(dec) + y * np.sin(ra) * np.sin(dec) - z * np.cos(dec)
    )
    return rows["ra"] + east / 3.6e6 / np.cos(dec), rows["dec"] + north / 3.6e6


_U: Final = np.linspace(0.0, 1.0, 2001)


@cache
def _radius_quantiles(is_bulge: bool) -> Float64:
    """Radius in half-light radii that holds each fraction of the light; exponential, or de Vaucouleurs cut at 6."""
    r = np.linspace(0.0, 6.0, 6001)
    profile = np.exp(-7.669 * r**0.25) if is_bulge else np.exp(-1.678 * r)
    growth = np.concatenate([[0.0], np.cumsum((r[1:] + r[:-1]) / 2 * (profile[1:] + profile[:-1]) / 2)])
    return np.interp(_U, growth / growth[-1], r)


def galaxy_points(rows: Rows, rot_deg: float, scale_arcsec: float) -> tuple[Int64, Float32, Float32]:
    """Points of equal flux that make up each row: start (n + 1,) and pixel offsets in a frame.

    A sunflower pattern of the profile's radii: stars have one point, bright galaxies up to 300. ``rot_deg`` is the
    position angle of the frame's +y, east of north; +x is west at 0. A galaxy has the same points in every frame.
    """
    mag = rows["mag"][:, 2]
    counts = np.clip(12 * 10 ** (0.25 * (23.5 - mag)), 12, 300).astype(np.int64)
    counts[rows["is_star"]] = 1
    start = np.concatenate([[0], np.cumsum(counts)])
    owner = np.repeat(np.arange(rows.size), counts)
    k = np.arange(start[-1]) - start[owner]
    u = (k + 0.5) / counts[owner]
    bulge = np.interp(u, _U, _radius_quantiles(True))
    disk = np.interp(u, _U, _radius_quantiles(False))
    radius = np.where(rows["is_bulge"][owner], bulge, disk) * rows["re"][owner]
    radius[rows["is_star"][owner]] = 0.0
    theta = k * 2.399963 + rows["id"][owner] % 628 / 100.0
    major, minor = radius * np.cos(theta), radius * np.sin(theta) * rows["axis_ratio"][owner]
    pa = np.radians(rows["pa"][owner])
    east = major * np.sin(pa) + minor * np.cos(pa)
    north = major * np.cos(pa) - minor * np.sin(pa)
    c, s = np.cos(np.radians(rot_deg)), np.sin(np.radians(rot_deg))
    dx, dy = (-east * c + north * s) / scale_arcsec, (east * s + north * c) / scale_arcsec
    return start, dx.astype(np.float32), dy.astype(np.float32)
