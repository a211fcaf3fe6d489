"""Plain NumPy twin of ``core.kernels.isr``: one amplifier at a time, no crosstalk flags."""

import numpy as np
from numpy.typing import NDArray

from core.camera import Detector
from core.contracts.bundle import Calibrations

Float64 = NDArray[np.float64]


def calibrate(
    segments: NDArray[np.int32], calibrations: Calibrations, detector: Detector, exposure_s: float
) -> tuple[Float64, Float64]:
    """Image [e-] and variance [e-**2]: overscan by the clipped row mean, crosstalk of all pixels above the sky."""
    placed = []
    for segment, amplifier in zip(segments.astype(np.float64), detector.amplifiers, strict=True):
        y0, y1, x0, x1 = amplifier.data
        overscan = segment[y0:y1, amplifier.serial_overscan[2] + 4 : amplifier.serial_overscan[3]]
        placed.append(segment[y0:y1, x0:x1] - overscan.mean(axis=1, keepdims=True))
    signals = np.stack(placed)
    sky = np.median(signals, axis=(1, 2), keepdims=True)
    signals = signals - np.tensordot(calibrations.crosstalk.astype(np.float64), signals - sky, axes=1)
    image, noise = np.empty(detector.shape), np.empty(detector.shape)
    for index, amplifier in enumerate(detector.amplifiers):
        y0, y1, x0, x1 = amplifier.bbox
        box = np.s_[y0:y1, x0:x1]
        part = signals[index][:: -1 if amplifier.flip_y else 1, :: -1 if amplifier.flip_x else 1]
        adu = part - calibrations.bias[box]
        powers = sum(c * adu ** (j + 2) for j, c in enumerate(calibrations.linearity[index]))
        electrons = calibrations.gain[index] * (adu + powers)
        image[box] = (electrons - calibrations.dark[box] * exposure_s) / calibrations.flat[box]
        noise[box] = (np.maximum(electrons, 0) + calibrations.read_noise[index] ** 2) / calibrations.flat[box] ** 2
    return image, noise


def restore_boundaries(image: Float64, coefficient: float, most: float) -> Float64:
    """Charge that crossed each boundary of two pixels goes back: the shift times the mean of both.

    Over the rim nothing moves.
    """
    charge, out = np.minimum(image, most), image.copy()
    for axis in (0, 1):
        a, b = (np.take(charge, range(n, charge.shape[axis] - 1 + n), axis) for n in (0, 1))
        moved = coefficient * (a - b) * (a + b) / 2
        out += np.pad(moved, [(0, 1) if i == axis else (0, 0) for i in (0, 1)])
        out -= np.pad(moved, [(1, 0) if i == axis else (0, 0) for i in (0, 1)])
    return out
