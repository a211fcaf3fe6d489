"""From expected electrons on the detector to ADU in its segments."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.simulator.config import SimulationConfig
from benchmarks.simulator.drawing import jit
from benchmarks.simulator.hardware import ADC_MAX, Hardware
from core.camera import Detector

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

_REPEL_MAX: Final = np.float32(2.0e5)
BRIGHTER_FATTER: Final = 4.0e-7
"""Shift of a pixel boundary per electron of difference across it [pixel/e-]: widens bright stars by 1-2 %."""


@jit
def _repel(charge: Float32, out: Float32, coefficient: float) -> None:
    """Move charge over each boundary by the field of the difference between its two pixels; total is kept."""
    ny, nx = charge.shape
    for y in range(ny):
        for x in range(nx):
            out[y, x] = charge[y, x]
    for y in range(ny):
        for x in range(nx):
            q = charge[y, x]
            if x + 1 < nx:
                r = charge[y, x + 1]
                d = np.float32(coefficient * (q - r) * 0.5 * (q + r))
                out[y, x] -= d
                out[y, x + 1] += d
            if y + 1 < ny:
                r = charge[y + 1, x]
                d = np.float32(coefficient * (q - r) * 0.5 * (q + r))
                out[y, x] -= d
                out[y + 1, x] += d


@jit
def _bleed(charge: Float32, columns: Int64, full_well: Float32, y_begin: int, y_end: int, spill: bool) -> None:
    """Spill charge above full well along ``columns`` in rows [y_begin, y_end), half to each side; drop it at the ends.

    ``full_well`` (nx,) [e-]. Without ``spill`` the excess vanishes.
    """
    for x in columns:
        well = full_well[x]
        for direction in range(2):
            carried = np.float32(0)
            for k in range(y_end - y_begin):
                y = y_begin + k if direction == 0 else y_end - 1 - k
                q = charge[y, x]
                if direction == 0 and q > well and spill:
                    # half goes up now; the other half stays above the well for the way down
                    excess = (q - well) * np.float32(0.5)
                    charge[y, x] = q - excess
                    carried += excess
                    continue
                if carried > 0 and q < well:
                    room = min(well - q, carried)
                    charge[y, x] = q + room
                    carried -= room
                if charge[y, x] > well:
                    if direction == 1 and spill:
                        carried += charge[y, x] - well
                    if direction == 1 or not spill:
                        charge[y, x] = well


@jit
def _nonlinear(signal: Float32, gain: float, c0: float, c1: float) -> None:
    """Electrons to the ADU that the amplifier makes of them, in place: solves ``t = r + c0 r**2 + c1 r**3`` for r."""
    for i in range(signal.size):
        t = signal[i] / gain
        r = t
        for _ in range(3):
            r = t - c0 * r * r - c1 * r * r * r
        signal[i] = np.float32(r)


@jit
def _digitize(signal: Float32, level: Float32, noise: Float32, noise_adu: float, out: Int32) -> None:
    """``round(signal + level of the row + noise)`` clipped to the converter's range; (ny, nx) each, level (ny,)."""
    for y in range(signal.shape[0]):
        for x in range(signal.shape[1]):
            value = signal[y, x] + level[y] + noise_adu * noise[y, x]
            out[y, x] = min(max(int(np.floor(value + 0.5)), 0), ADC_MAX)


def collect(
    expected: Float32, hardware: Hardware, config: SimulationConfig, rng: np.random.Generator, dark_s: float
) -> Float32:
    """Photo-electrons that a detector holds at the end of the exposure, before cosmic rays.

    ``expected`` (ny, nx) [e-], response included. Poisson noise is drawn as Gaussian (hundreds of electrons a pixel).
    """
    mean: Float32 = np.asarray(expected + hardware.dark * np.float32(dark_s), np.float32)
    charge: Float32 = rng.standard_normal(mean.shape, np.float32)
    charge *= np.sqrt(np.maximum(mean, 0))
    charge += mean
    if config.effects.brighter_fatter:
        # far above full well the approximation would move more than there is
        held: Float32 = np.minimum(charge, _REPEL_MAX)
        out = np.empty_like(charge)
        _repel(held, out, BRIGHTER_FATTER)
        charge += out
        charge -= held
    charge[hardware.is_dead] *= np.float32(0.05)
    return charge


def spill_columns(charge: Float32, full_well: Float32, spill: bool) -> None:
    """Clip a frame without halves at ``full_well`` (nx,) [e-], bleeding along its columns, in place."""
    columns = np.flatnonzero((charge > full_well).any(axis=0))
    _bleed(charge, columns, full_well, 0, charge.shape[0], spill)


def saturate(charge: Float32, detector: Detector, hardware: Hardware, config: SimulationConfig) -> None:
    """Clip at full well and bleed along columns, in place; bleeds stop at the line between the two halves."""
    if not config.effects.saturation:
        return
    for half in (0, 1):
        well = np.empty(detector.shape[1], np.float32)
        rows = (0, 0)
        for amp, full_well in zip(detector.amplifiers, hardware.full_well, strict=True):
            y0, y1, x0, x1 = amp.bbox
            if (y0 > 0) == bool(half):
                well[x0:x1] = full_well
                rows = (y0, y1)
        columns = np.flatnonzero((charge[rows[0] : rows[1]] > well).any(axis=0))
        _bleed(charge, columns, well, rows[0], rows[1], config.effects.bleeds)


def disassemble(image: Float32, detector: Detector) -> Float32:
    """(n_amp, ny_raw, nx_raw) segments holding the detector's pixels in reading order; zero in pre- and overscan."""
    shape = detector.amplifiers[0].raw_shape
    segments = np.zeros((len(detector.amplifiers), *shape), np.float32)
    for segment, amp in zip(segments, detector.amplifiers, strict=True):
        y0, y1, x0, x1 = amp.bbox
        part = image[y0:y1, x0:x1]
        part = part[:: -1 if amp.flip_y else 1, :: -1 if amp.flip_x else 1]
        segment[amp.data[0] : amp.data[1], amp.data[2] : amp.data[3]] = part
    return segments


def read_out(
    charge: Float32, detector: Detector, hardware: Hardware, config: SimulationConfig, rng: np.random.Generator
) -> Int32:
    """Segments in ADU: gain, linearity, crosstalk, bias structure, drifting overscan level and read noise."""
    segments = disassemble(charge, detector)
    flat = segments.reshape(segments.shape[0], -1)
    for i in range(flat.shape[0]):
        c0, c1 = hardware.linearity[i]
        _nonlinear(flat[i], float(hardware.gain[i]), float(c0), float(c1))
    if config.effects.crosstalk:
        flat += hardware.crosstalk @ flat
    if config.effects.bias_structure:
        segments += disassemble(hardware.bias, detector)
    out = np.empty(segments.shape, np.int32)
    ny = segments.shape[1]
    for i, segment in enumerate(segments):
        level = np.full(ny, hardware.offset[i], np.float32)
        if config.effects.overscan_drift:
            steps = rng.normal(0, 0.05, ny)
            level += (rng.normal(0, 2.0) + 1.5 * np.exp(-np.arange(ny) / 200.0) + np.cumsum(steps)).astype(np.float32)
        noise = rng.standard_normal(segment.shape, np.float32)
        _digitize(segment, level, noise, float(hardware.read_noise[i] / hardware.gain[i]), out[i])
    return out
