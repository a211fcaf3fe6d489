"""What a detector truly is: gains, pattern, linearity, crosstalk, defects. Calibrations only estimate it."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.simulator.config import SimulationConfig
from benchmarks.simulator.photometry import BANDS
from benchmarks.simulator.randomness import stream
from core.camera import Detector

Float32 = NDArray[np.float32]

ADC_MAX: Final = 262_143
_FULL_WELL_MIN: Final = 60_000.0
_READ_NOISE_MAX: Final = 14.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """True properties of one detector. Amplifier arrays follow the camera's order; planes are (ny, nx) float32."""

    gain: Float32
    read_noise: Float32
    full_well: Float32
    """[e-]"""
    offset: Float32
    """Bias level [ADU]."""
    linearity: Float32
    """(n_amp, 2): ``true = raw + c0 raw² + c1 raw³`` [ADU]."""
    crosstalk: Float32
    bias: Float32
    dark: Float32
    """[e-/s]"""
    response: Float32
    """Pixel-to-pixel response, mean one."""
    is_defect: NDArray[np.bool_]
    is_dead: NDArray[np.bool_]


def low_order(rng: np.random.Generator, shape: tuple[int, int], rms: float) -> Float32:
    """A random second-order surface of given rms and zero mean."""
    v, u = np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij", sparse=True)
    c = rng.normal(size=5)
    surface = c[0] * u + c[1] * v + c[2] * (u * u - 1 / 3) + c[3] * u * v + c[4] * (v * v - 1 / 3)
    surface -= surface.mean()
    return np.asarray(surface * (rms / surface.std()), np.float32)


def vignetting(config: SimulationConfig, detector: Detector, band: str) -> Float32:
    """Smooth response of a band over the detector, mean one."""
    rng = stream(config.seed, "vignetting", detector.detector, BANDS.index(band))
    return np.float32(1) + low_order(rng, detector.shape, 0.01)


def make_hardware(config: SimulationConfig, detector: Detector) -> Hardware:
    """Draw a detector's truth around its nominal values."""
    rng = stream(config.seed, "hardware", detector.detector)
    effects = config.effects
    amps = detector.amplifiers
    n = len(amps)
    nominal = np.array([a.gain for a in amps])
    gain = nominal * (1 + rng.normal(0, 0.01, n))
    linearity = np.stack([rng.uniform(0.6e-7, 1.6e-7, n), rng.normal(0, 1e-13, n)], axis=-1)
    crosstalk = rng.normal(0, 5e-6, (n, n))
    index = np.arange(n)
    adjacent = np.abs(index[:, None] - index[None, :]) == 1
    crosstalk[adjacent] += rng.uniform(5e-5, 2e-4, int(adjacent.sum()))
    crosstalk[index, index] = 0
    ny, nx = detector.shape
    bias = np.zeros((ny, nx), np.float32)
    if effects.bias_structure:
        bias += rng.normal(0, 0.5, nx).astype(np.float32)[None, :]
        for amp in amps:
            y0, y1, x0, x1 = amp.bbox
            from_readout = np.arange(x1 - x0)[:: -1 if amp.flip_x else 1]
            bias[y0:y1, x0:x1] += (rng.uniform(1, 4) * np.exp(-from_readout / 15.0)).astype(np.float32)[None, :]
    dark = np.full((ny, nx), 0.02 if effects.dark else 0.0, np.float32)
    is_defect, is_dead = np.zeros((ny, nx), bool), np.zeros((ny, nx), bool)
    if effects.defects:
        _add_defects(rng, dark, is_defect, is_dead)
    response = np.ones((ny, nx), np.float32)
    if effects.flat:
        response += np.float32(0.006) * rng.standard_normal((ny, nx), np.float32)
    return Hardware(
        gain=gain.astype(np.float32),
        read_noise=np.minimum([a.read_noise for a in amps], _READ_NOISE_MAX).astype(np.float32),
        full_well=np.maximum([a.saturation_adu * a.gain for a in amps], _FULL_WELL_MIN).astype(np.float32),
        offset=rng.uniform(24_000, 26_500, n).astype(np.float32),
        linearity=(linearity * (1.0 if effects.nonlinearity else 0.0)).astype(np.float32),
        crosstalk=(crosstalk * (1.0 if effects.crosstalk else 0.0)).astype(np.float32),
        bias=bias,
        dark=dark,
        response=response,
        is_defect=is_defect,
        is_dead=is_dead,
    )


def _add_defects(
    rng: np.random.Generator, dark: Float32, is_defect: NDArray[np.bool_], is_dead: NDArray[np.bool_]
) -> None:
    """Hot pixels, dead spots and a few bad columns: about 0.15 % of the pixels."""
    ny, nx = dark.shape
    scale = ny * nx / 16e6
    for _ in range(rng.poisson(300 * scale) + 3):
        y, x = rng.integers(0, ny), rng.integers(0, nx)
        size = int(rng.integers(1, 3))
        dark[y : y + size, x : x + size] += np.float32(10 ** rng.uniform(0.7, 2.5))
        is_defect[y : y + size, x : x + size] = True
    for _ in range(rng.poisson(60 * scale) + 1):
        y, x = rng.integers(0, ny), rng.integers(0, nx)
        size = int(rng.integers(2, 7))
        is_dead[y : y + size, x : x + size] = True
    for _ in range(rng.poisson(5 * scale) + (1 if scale > 0.5 else 0)):
        x, half = rng.integers(0, nx), rng.integers(0, 2)
        y0 = int(rng.integers(0, ny // 2))
        rows = slice(y0, ny // 2) if half == 0 else slice(ny // 2, ny - y0)
        is_dead[rows, x] = True
    is_defect |= is_dead
