"""The truth of a campaign: when the field is visited, what is in it, what each visit detects.

Nothing here imports a stage. Everything follows from the configuration: the compute children draw from it, and whoever
judges the result draws the same again.
"""

import json
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from core.camera import Camera, load_camera

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

PSF_SIGMA_PIX: Final = 2.0
PSF_HALF: Final = 12
THRESHOLD: Final = 5.0
SPURIOUS: Final = -1
"""Label of a detection of nothing; objects have labels from 0, asteroids from :data:`FIRST_ASTEROID`."""
FIRST_ASTEROID: Final = 10_000_000
BANDS: Final = "ugrizy"
MIN_SEPARATION_ARCSEC: Final = 3.0
PAIR_DAYS: Final = 33 / 1440
EPHEMERIS_SPAN_DAYS: Final = 0.1
N_EPHEMERIS: Final = 6
EXPOSURE_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignConfig:
    """What is asked of a campaign."""

    seed: int = 1
    visits: int = 272
    camera: str = "lsstcam"
    detectors: tuple[int, ...] = (93, 94, 96, 97)
    """A block of two by two, so that a turn by 90 degrees puts one detector's sky on another."""
    end_mjd_tai: float = 61370.0
    days: float = 360.0
    ra_deg: float = 150.0
    dec_deg: float = 2.2
    variables: int = 160
    transients: int = 120
    """Explosions during the campaign in the whole block."""
    spurious: float = 4.0
    """Per detector-visit, mean."""
    asteroids: int = 24
    """Known ones in the block, each night others."""

    def write(self, folder: Path) -> None:
        """``campaign.json`` of a dataset."""
        (folder / "campaign.json").write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Inverse of :meth:`write`."""
        values = json.loads((folder / "campaign.json").read_text(encoding="utf-8"))
        return cls(**(values | {"detectors": tuple(values["detectors"])}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One visit of the campaign; the two of a pair are read out at the same instant of the replay."""

    order: int
    visit: int
    night: int
    pair: int
    mjd_tai: float
    """Middle of the exposure."""
    band: str
    ra_deg: float
    dec_deg: float
    rot_sky_deg: float
    noise_njy: float
    """Of one pixel of the difference."""

    @property
    def flux_err_njy(self) -> float:
        """Of a point source under the matched filter."""
        return float(self.noise_njy / np.sqrt((psf_stamp(0.0, 0.0) ** 2).sum()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections:
    """What one detector-visit detects (n,), in the order of its rows: by (y, x)."""

    label: Int64
    x: Float64
    y: Float64
    """As measured [pixel]."""
    position_err_pix: Float64
    flux: Float64
    true_flux: Float64
    """On the difference image [nJy]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asteroids:
    """Known asteroids of a night (n,): place [deg] and rate [deg/d] at ``mjd_tai``, apparent flux [nJy]."""

    label: Int64
    ra: Float64
    dec: Float64
    ra_rate: Float64
    dec_rate: Float64
    flux: Float64
    mjd_tai: float
    ephemeris_east: Float64
    ephemeris_north: Float64
    """Error of the ephemeris [arcsec]."""

    def at(self, mjd_tai: float) -> tuple[Float64, Float64]:
        """True place [deg]."""
        days = mjd_tai - self.mjd_tai
        return self.ra + days * self.ra_rate, self.dec + days * self.dec_rate


class Campaign:
    """Draws a campaign."""

    def __init__(self, config: CampaignConfig) -> None:
        self.config = config
        self.camera: Camera = load_camera(config.camera)
        self._block = np.mean([self._center(d, config.ra_deg, config.dec_deg, 0.0) for d in config.detectors], axis=0)
        rng = np.random.default_rng([config.seed, 1])
        n = config.variables + config.transients
        self.ra, self.dec = self._scatter(n, rng)
        self.static_flux = 10 ** rng.uniform(2.5, 4.5, n)
        self._amplitude = 10 ** rng.uniform(2.9, 4.3, n) * np.where(rng.random(n) < 0.5, -1, 1)
        self._amplitude[config.variables :] = np.abs(self._amplitude[config.variables :])
        self._period = 10 ** rng.uniform(-0.5, 2.0, n)
        self._phase = rng.uniform(0, 2 * np.pi, n)
        self._begin = config.end_mjd_tai - rng.uniform(0, config.days, n)
        self._color = rng.uniform(0.6, 1.2, (n, len(BANDS)))

    @cached_property
    def visits(self) -> list[Visit]:
        """In the order of time."""
        config, rng = self.config, np.random.default_rng([self.config.seed, 2])
        n_pairs = -(-config.visits // 2)
        nights = np.sort(rng.choice(int(config.days), n_pairs, replace=n_pairs > config.days))
        first = int(config.end_mjd_tai - config.days)
        visits: list[Visit] = []
        for order in range(config.visits):
            pair, second = divmod(order, 2)
            mjd = first + nights[pair] + 0.1 + 0.002 * rng.random() + second * PAIR_DAYS
            day = date(1858, 11, 17) + timedelta(days=int(mjd) - 1)
            turn = 90.0 * rng.integers(4) if not second else visits[-1].rot_sky_deg + 180.0
            rotation = float((turn + rng.normal(0, 0.02)) % 360)
            shift = rng.normal(0, 8.0, 2) / 3600
            ra, dec = self._pointing(rotation)
            visits.append(
                Visit(
                    order=order,
                    visit=(day.year * 10_000 + day.month * 100 + day.day) * 100_000 + order + 1,
                    night=int(mjd),
                    pair=pair,
                    mjd_tai=float(mjd),
                    band=BANDS[rng.choice(6, p=[0.07, 0.1, 0.22, 0.22, 0.2, 0.19])] if not second else visits[-1].band,
                    ra_deg=float(ra + shift[0] / np.cos(np.radians(dec))),
                    dec_deg=float(dec + shift[1]),
                    rot_sky_deg=rotation,
                    noise_njy=float(20.0 * rng.uniform(0.8, 1.3)),
                )
            )
        return visits

    def flux(self, visit: Visit) -> Float64:
        """(n,) flux of every object on the difference image of a visit [nJy]."""
        config, t = self.config, visit.mjd_tai
        wave = np.sin(2 * np.pi * t / self._period + self._phase)
        age = (t - self._begin) / 20.0
        explosion = np.where(age > 0, np.maximum(age, 0) * np.exp(1 - np.maximum(age, 0)), 0.0)
        shape = np.where(np.arange(self.ra.size) < config.variables, wave, explosion)
        return np.asarray(self._amplitude * shape * self._color[:, BANDS.index(visit.band)], np.float64)

    def asteroids(self, visit: Visit) -> Asteroids:
        """Of the visit's night."""
        config, rng = self.config, np.random.default_rng([self.config.seed, 3, visit.night])
        n = config.asteroids
        ra, dec = self._scatter(n, rng)
        angle, size = rng.uniform(0, 2 * np.pi, n), rng.uniform(0.1, 0.3, n)
        along, rate = rng.uniform(0, 2 * np.pi, n), rng.uniform(0.1, 0.5, n)
        return Asteroids(
            label=FIRST_ASTEROID + visit.night % 10_000 * 1000 + np.arange(n, dtype=np.int64),
            ra=ra,
            dec=dec,
            ra_rate=rate * np.cos(along) / np.cos(np.radians(dec)),
            dec_rate=rate * np.sin(along),
            flux=10 ** rng.uniform(2.7, 4.0, n),
            mjd_tai=visit.night + 0.11,
            ephemeris_east=size * np.cos(angle),
            ephemeris_north=size * np.sin(angle),
        )

    def sky_to_pixel(self, visit: Visit, detector: int, ra: Float64, dec: Float64) -> tuple[Float64, Float64]:
        """True pixel places of a detector-visit."""
        return self.camera.sky_to_pixel(detector, ra, dec, visit.ra_deg, visit.dec_deg, visit.rot_sky_deg)

    def scene(self, visit: Visit, detector: int, margin_pix: float) -> tuple[Int64, Float64, Float64, Float64, Float64]:
        """Everything on the detector: label, x, y [pixel], flux on the difference, flux that never changes [nJy].

        ``margin_pix`` inside its edges, outside where negative.
        """
        movers = self.asteroids(visit)
        ra, dec = movers.at(visit.mjd_tai)
        label = np.concatenate([np.arange(self.ra.size), movers.label])
        flux = np.concatenate([self.flux(visit), movers.flux])
        static = np.concatenate([self.static_flux, np.zeros(movers.label.size)])
        x, y = self.sky_to_pixel(visit, detector, np.concatenate([self.ra, ra]), np.concatenate([self.dec, dec]))
        ny, nx = self.camera.detectors[detector].shape
        inside = (x > margin_pix) & (y > margin_pix) & (x < nx - 1 - margin_pix) & (y < ny - 1 - margin_pix)
        return label[inside], x[inside], y[inside], flux[inside], static[inside]

    def detections(self, visit: Visit, detector: int) -> Detections:
        """Rows of a detector-visit above the threshold, with their noise."""
        rng = np.random.default_rng([self.config.seed, 4, visit.order, detector])
        label, x, y, true_flux, _ = self.scene(visit, detector, PSF_HALF)
        error = visit.flux_err_njy
        flux = true_flux + rng.normal(0, error, true_flux.size)
        n = rng.poisson(self.config.spurious)
        ny, nx = self.camera.detectors[detector].shape
        label = np.concatenate([label, np.full(n, SPURIOUS)])
        x = np.concatenate([x, rng.uniform(PSF_HALF, nx - PSF_HALF, n)])
        y = np.concatenate([y, rng.uniform(PSF_HALF, ny - PSF_HALF, n)])
        flux = np.concatenate([flux, error * rng.uniform(5.0, 6.5, n) * rng.choice([-1, 1], n)])
        true_flux = np.concatenate([true_flux, np.zeros(n)])
        snr = np.abs(flux) / error
        seen = snr > THRESHOLD
        position_err = np.hypot(1.2 * PSF_SIGMA_PIX / snr, 0.05)
        x, y = x + rng.normal(0, position_err), y + rng.normal(0, position_err)
        order = np.flatnonzero(seen)[np.lexsort((x[seen], y[seen]))]
        return Detections(
            label=label[order],
            x=x[order],
            y=y[order],
            position_err_pix=position_err[order],
            flux=flux[order],
            true_flux=true_flux[order],
        )

    def ephemerides(self, visit: Visit) -> list[tuple[int, Float64, Float64]]:
        """(label, object, observer) of each known asteroid: (3, m) Chebyshev coefficients [AU] over the span."""
        movers = self.asteroids(visit)
        nodes = chebyshev.chebpts1(N_EPHEMERIS)
        times = visit.mjd_tai + 0.5 * EPHEMERIS_SPAN_DAYS * nodes
        angle = 2 * np.pi * times / 365.25
        observer = np.stack([np.cos(angle), 0.9175 * np.sin(angle), 0.3978 * np.sin(angle)])
        result = []
        for i in range(movers.label.size):
            days = times - movers.mjd_tai
            dec = movers.dec[i] + days * movers.dec_rate[i] + movers.ephemeris_north[i] / 3600
            east = movers.ephemeris_east[i] / 3600 / np.cos(np.radians(movers.dec[i]))
            ra = np.radians(movers.ra[i] + days * movers.ra_rate[i] + east)
            dec = np.radians(dec)
            topo = 2.0 * np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
            fits = [chebyshev.chebfit(nodes, row, N_EPHEMERIS - 1) for row in (*(topo + observer), *observer)]
            result.append((int(movers.label[i]), np.array(fits[:3]), np.array(fits[3:])))
        return result

    def _center(self, detector: int, ra: float, dec: float, rotation: float) -> Float64:
        ny, nx = self.camera.detectors[detector].shape
        found = self.camera.pixel_to_sky(detector, np.array([nx / 2.0]), np.array([ny / 2.0]), ra, dec, rotation)
        return np.array([float(found[0][0]), float(found[1][0])])

    def _pointing(self, rotation: float) -> tuple[float, float]:
        """Boresight that puts the middle of the block on the same sky under a rotation."""
        ra, dec = self.config.ra_deg, self.config.dec_deg
        for _ in range(3):
            middle = np.mean([self._center(d, ra, dec, rotation) for d in self.config.detectors], axis=0)
            ra, dec = ra + self._block[0] - middle[0], dec + self._block[1] - middle[1]
        return float(ra), float(dec)

    def _scatter(self, n: int, rng: np.random.Generator) -> tuple[Float64, Float64]:
        """Places in the block, none within :data:`MIN_SEPARATION_ARCSEC` of another."""
        side = 1.05 * self._side_deg
        ra, dec = np.empty(0), np.empty(0)
        while ra.size < n:
            east, north = rng.uniform(-side / 2, side / 2, 2)
            new_ra, new_dec = self._block[0] + east / np.cos(np.radians(self._block[1])), self._block[1] + north
            apart = np.hypot((ra - new_ra) * np.cos(np.radians(new_dec)), dec - new_dec) * 3600
            if not (apart < MIN_SEPARATION_ARCSEC).any():
                ra, dec = np.append(ra, new_ra), np.append(dec, new_dec)
        return ra, dec

    @property
    def _side_deg(self) -> float:
        """Of the square that the block covers."""
        ny, _ = self.camera.detectors[self.config.detectors[0]].shape
        return float(np.sqrt(len(self.config.detectors)) * ny * self.camera.pixel_scale_arcsec / 3600)


def psf_stamp(dx: float, dy: float) -> Float64:
    """Gaussian PSF off the middle of a stamp, of sum one."""
    axis = np.arange(-PSF_HALF, PSF_HALF + 1)
    across = np.exp(-0.5 * ((axis - dx) / PSF_SIGMA_PIX) ** 2)
    down = np.exp(-0.5 * ((axis - dy) / PSF_SIGMA_PIX) ** 2)
    return np.outer(down / down.sum(), across / across.sum())


def draw(campaign: Campaign, visit: Visit, detector: int, noise: NDArray[np.float32]) -> tuple[Float32, Float32]:
    """Difference and science image of a detector-visit [nJy], float32, from unit noise of the detector's shape.

    The noise is one plane, shifted anew each time; the science image has the same, and the light that never changes.
    """
    rng = np.random.default_rng([campaign.config.seed, 5, visit.order, detector])
    shift = (int(rng.integers(noise.shape[0])), int(rng.integers(noise.shape[1])))
    difference = np.roll(noise, shift, axis=(0, 1)) * np.float32(visit.noise_njy)
    _, x, y, flux, static = campaign.scene(visit, detector, -PSF_HALF)
    science = difference.copy()
    for x_i, y_i, flux_i, static_i in zip(x, y, flux, static, strict=True):
        column, row = round(float(x_i)), round(float(y_i))
        stamp = psf_stamp(x_i - column, y_i - row)
        low_y, low_x = max(row - PSF_HALF, 0), max(column - PSF_HALF, 0)
        box = np.s_[low_y : row + PSF_HALF + 1, low_x : column + PSF_HALF + 1]
        stamp = stamp[low_y - row + PSF_HALF :, low_x - column + PSF_HALF :]
        stamp = stamp[: noise.shape[0] - low_y, : noise.shape[1] - low_x]
        difference[box] += (flux_i * stamp).astype(np.float32)
        science[box] += ((flux_i + static_i) * stamp).astype(np.float32)
    return difference, science
