"""Calibrations as an observatory would estimate them from a few noisy frames; never the truth itself."""

from pathlib import Path
from typing import Any, Final

import fitsio
import numpy as np
from numpy.typing import NDArray

from benchmarks.simulator.config import SimulationConfig
from benchmarks.simulator.electronics import BRIGHTER_FATTER
from benchmarks.simulator.hardware import Hardware, low_order, vignetting
from benchmarks.simulator.photometry import BANDS
from benchmarks.simulator.randomness import stream
from core.camera import Detector

Float32 = NDArray[np.float32]

VALID_DAYS: Final = 40
_FLAT_ELECTRONS: Final = 40_000.0
_DARK_S: Final = 300.0
DOME_ERROR: Final = 0.005
"""Rms of the smooth difference between the dome's and the sky's illumination."""


def write_calibrations(
    out: Path, config: SimulationConfig, detector: Detector, hardware: Hardware, bands: list[str]
) -> None:
    """Write all kinds for one detector, valid ``VALID_DAYS`` around the visits."""
    first = int(config.start_mjd_tai) - VALID_DAYS
    last = int(config.start_mjd_tai) + VALID_DAYS
    folder = out / "calib" / f"{detector.detector:03d}"
    folder.mkdir(parents=True, exist_ok=True)
    rng = stream(config.seed, "calibrations", detector.detector)
    noisy = 1.0 if config.effects.calibration_noise else 0.0

    def write(kind: str, data: NDArray[Any], band: str = "") -> None:
        header = {
            "KIND": kind.partition("-")[0],
            "DETECTOR": detector.detector,
            "BAND": band,
            "VALIDSTA": float(first),
            "VALIDEND": float(last),
            "NFRAMES": config.calibration_frames,
        }
        path = folder / f"{kind}_{first}_{last}.fits"
        with fitsio.FITS(str(path), "rw", clobber=True) as fits:
            fits.write(None, header=header)
            fits.write(data)

    noise_adu = per_pixel(hardware.read_noise / hardware.gain, detector)
    gain = per_pixel(hardware.gain, detector)
    shape = detector.shape
    root_n = np.float32(noisy / np.sqrt(config.calibration_frames))
    pushed = BRIGHTER_FATTER if config.effects.brighter_fatter else 0.0
    write("amplifiers", _amplifier_table(rng, detector, hardware, noisy, pushed))
    write("bias", hardware.bias + root_n * noise_adu * rng.standard_normal(shape, np.float32))
    dark_noise = np.sqrt(hardware.dark * np.float32(_DARK_S) + (noise_adu * gain) ** 2) / np.float32(_DARK_S)
    write("dark", hardware.dark + root_n * dark_noise * rng.standard_normal(shape, np.float32))
    write("defects", _known_defects(rng, hardware, noisy))
    for band in bands:
        write(f"flat-{band}", _flat(config, detector, hardware, band, root_n), band)


def _flat(config: SimulationConfig, detector: Detector, hardware: Hardware, band: str, root_n: np.float32) -> Float32:
    rng = stream(config.seed, "flat", detector.detector, BANDS.index(band))
    flat = hardware.response * vignetting(config, detector, band)
    if config.effects.dome_error:
        flat *= np.float32(1) + low_order(rng, detector.shape, DOME_ERROR)
    flat += root_n / np.float32(np.sqrt(_FLAT_ELECTRONS)) * rng.standard_normal(detector.shape, np.float32)
    flat[hardware.is_dead] *= np.float32(0.05)
    return np.asarray(flat / flat.mean(dtype=np.float64), np.float32)


def per_pixel(values: Float32, detector: Detector) -> Float32:
    """(ny, nx) plane of a value by amplifier."""
    plane = np.empty(detector.shape, np.float32)
    for amp, value in zip(detector.amplifiers, values, strict=True):
        y0, y1, x0, x1 = amp.bbox
        plane[y0:y1, x0:x1] = value
    return plane


def _known_defects(rng: np.random.Generator, hardware: Hardware, noisy: float) -> NDArray[np.uint8]:
    """Defects found: all dead pixels, and 97 % of the hot ones."""
    missed = rng.random(hardware.is_defect.shape, np.float32) < 0.03 * noisy
    known = hardware.is_defect & ~(missed & ~hardware.is_dead)
    return known.astype(np.uint8)


def _amplifier_table(
    rng: np.random.Generator, detector: Detector, hardware: Hardware, noisy: float, brighter_fatter: float
) -> NDArray[np.void]:
    """Gain from photon transfer (0.2 %), saturation from the roll-off; the rest with errors."""
    n = len(detector.amplifiers)
    table = np.zeros(
        n,
        [
            ("name", "S8"), ("gain", "<f4"), ("read_noise", "<f4"), ("saturation", "<f4"), ("linearity", "<f4", (2,)),
            ("crosstalk", "<f4", (n,)), ("brighter_fatter", "<f4"),
        ],
    )  # fmt: skip
    table["name"] = [amp.name for amp in detector.amplifiers]
    table["gain"] = hardware.gain * (1 + 0.002 * noisy * rng.normal(size=n))
    table["read_noise"] = hardware.read_noise * (1 + 0.01 * noisy * rng.normal(size=n))
    raw = hardware.full_well / hardware.gain
    raw = raw - hardware.linearity[:, 0] * raw**2
    # the level where the response is known to bend, a few percent below the true full well
    table["saturation"] = raw * (0.96 + 0.005 * noisy * rng.normal(size=n))
    table["linearity"] = hardware.linearity * (1 + 0.03 * noisy * rng.normal(size=(n, 2)))
    crosstalk = hardware.crosstalk * (1 + 0.02 * noisy * rng.normal(size=(n, n)))
    off_diagonal = ~np.eye(n, dtype=bool)
    crosstalk[off_diagonal] += 1e-6 * noisy * rng.normal(size=n * n - n)
    table["crosstalk"] = crosstalk
    # from the covariances of flats: one value for the detector, good to a few percent
    table["brighter_fatter"] = brighter_fatter * (1 + 0.05 * noisy * rng.normal())
    return table
