"""Is the dataset what was asked for? Sky noise, star counts and zero point, measured without any pipeline stage."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import fitsio
import numpy as np
from numpy.typing import NDArray

from benchmarks.simulator.config import Effects, SimulationConfig, preset
from core.camera import Detector, load_camera

Float32 = NDArray[np.float32]

TOLERANCE: Final = 0.05
_APERTURE: Final = 12
_ANNULUS: Final = (20, 26)
_READ_NOISE: Final = 6.0


@dataclass(frozen=True, slots=True)
class Check:
    """One figure of one raw: what was asked for and what is there."""

    raw: str
    name: str
    asked: float
    found: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether they agree within the tolerance (relative)."""
        return bool(abs(self.found - self.asked) <= self.tolerance * abs(self.asked))


def assemble(path: Path, detector: Detector) -> Float32:
    """Electrons (ny, nx) of a raw by nominal gains and the median of each row's serial overscan."""
    image = np.zeros(detector.shape, np.float32)
    with fitsio.FITS(str(path)) as fits:
        for amp, hdu in zip(detector.amplifiers, list(fits)[1:], strict=True):
            segment = hdu.read().astype(np.float32)
            oy0, oy1, ox0, ox1 = amp.serial_overscan
            level = np.median(segment[oy0:oy1, ox0 + 4 : ox1], axis=1)
            dy0, dy1, dx0, dx1 = amp.data
            data = (segment[dy0:dy1, dx0:dx1] - level[:, None]) * np.float32(amp.gain)
            y0, y1, x0, x1 = amp.bbox
            image[y0:y1, x0:x1] = data[:: -1 if amp.flip_y else 1, :: -1 if amp.flip_x else 1]
    return image


def _stars(truth: NDArray[np.void], shape: tuple[int, int]) -> NDArray[np.void]:
    """Isolated unsaturated stars away from the edge."""
    margin = _ANNULUS[1] + 2
    inside = (truth["x"] > margin) & (truth["x"] < shape[1] - margin - 1)
    inside &= (truth["y"] > margin) & (truth["y"] < shape[0] - margin - 1)
    stars = truth[(truth["kind"] == "star") & inside & (truth["mag"] > 17.5) & (truth["mag"] < 20.0)]
    bright = truth[truth["mag"] < 22.5]
    distance = np.hypot(stars["x"][:, None] - bright["x"], stars["y"][:, None] - bright["y"])
    crowd = ((distance > 0) & (distance < _APERTURE + 8)).any(axis=1)
    return np.asarray(stars[~crowd])


def zero_point(image: Float32, stars: NDArray[np.void], psf: Float32, psf_sum: float) -> float:
    """Median of true flux over electrons [nJy/e-] in a 25 x 25 pixel box, its losses taken from the true PSF.

    ``psf_sum`` is the fraction of a star's light inside the PSF images.
    """
    half = psf.shape[-1] // 2
    box = slice(half - _APERTURE, half + _APERTURE + 1)
    enclosed = float(psf[:, box, box].sum(axis=(1, 2)).mean()) * psf_sum
    ratios = []
    for star in stars:
        y, x = round(float(star["y"])), round(float(star["x"]))
        wide = image[y - _ANNULUS[1] : y + _ANNULUS[1] + 1, x - _ANNULUS[1] : x + _ANNULUS[1] + 1]
        offset = np.abs(np.arange(wide.shape[0]) - _ANNULUS[1])
        ring = np.maximum(offset[:, None], offset[None, :]) >= _ANNULUS[0]
        near = image[y - _APERTURE : y + _APERTURE + 1, x - _APERTURE : x + _APERTURE + 1]
        counted = float((near - np.median(wide[ring])).sum())
        if counted > 0:
            ratios.append(float(star["science_flux"]) * enclosed / counted)
    return float(np.median(ratios)) if ratios else float("nan")


def empty_sky(truth: NDArray[np.void], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels (ny, nx) away from all sources, further from the bright ones."""
    empty = np.ones(shape, bool)
    for row in truth:
        reach = int(np.clip(10 + 8 * (22.0 - row["mag"]), 9, 90)) if np.isfinite(row["mag"]) else 9
        y, x = round(float(row["y"])), round(float(row["x"]))
        empty[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1] = False
    return empty


def sky_noise(image: Float32, empty: NDArray[np.bool_]) -> float:
    """Noise of an empty pixel [e-] from differences of neighbors in x: blind to gradients."""
    even = image.shape[1] // 2 * 2
    both = empty[:, 1:even:2] & empty[:, 0:even:2]
    difference = (image[:, 1:even:2] - image[:, 0:even:2])[both]
    return float(1.4826 * np.median(np.abs(difference)) / np.sqrt(2))


def check_dataset(out: Path) -> list[Check]:
    """Three figures of every raw of a dataset."""
    described = json.loads((out / "dataset.json").read_text(encoding="utf-8"))
    config = _config(described["simulation"]["config"])
    camera = load_camera(described["camera"])
    checks = []
    for path in sorted((out / "truth").glob("*.fits")):
        header = fitsio.read_header(str(path), 0)
        detector = camera.detectors[header["DETECTOR"]]
        truth = fitsio.read(str(path), ext="TRUTH")
        raw = out / "raw" / str(header["VISIT"] // 100_000) / path.name
        image = assemble(raw, detector)
        empty = empty_sky(truth, detector.shape)
        response = 0.006 * header["SKY"] if config.effects.flat else 0.0
        noise = float(np.sqrt(header["SKY"] + _READ_NOISE**2 + response**2))
        checks.append(Check(path.stem, "sky noise [e-]", noise, sky_noise(image, empty), TOLERANCE))
        checks.append(Check(path.stem, "sky level [e-]", header["SKY"], float(np.median(image[empty])), TOLERANCE))
        stars = _stars(truth, detector.shape)
        measured = zero_point(image, stars, fitsio.read(str(path), ext="PSF"), header["PSFSUM"])
        checks.append(Check(path.stem, "zero point [nJy/e-]", header["ZP"], measured, TOLERANCE))
        area = detector.shape[0] * detector.shape[1] * (camera.pixel_scale_arcsec / 3600) ** 2
        asked = config.gaia_stars_deg2 * config.star_density_factor * area * 2.6
        n_stars = float((truth["kind"] == "star").sum())
        poisson = max(TOLERANCE, float(3.5 / np.sqrt(asked)))
        checks.append(Check(path.stem, "stars", asked, n_stars, poisson))
    return checks


def _config(values: dict[str, Any]) -> SimulationConfig:
    """The configuration in dataset.json, as far as the checks need it."""
    keep = {"gaia_stars_deg2", "star_density_factor", "seed"}
    effects = Effects(**values["effects"])
    return preset(values["preset"], effects=effects, **{key: values[key] for key in keep})
