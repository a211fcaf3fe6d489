"""Instrument signature removal: segments in ADU to one detector in electrons."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.camera import Amplifier, Detector
from core.contracts.bundle import Calibrations
from core.contracts.exposure import Frame, RawExposure
from core.errors import Outcome, RejectedInputError, UnusableDataError
from core.flags import MASK_DTYPE, Mask
from core.kernels.isr import (
    assemble,
    calibrate_pixels,
    column_levels,
    correct_crosstalk,
    grow_saturation,
    row_levels,
)
from core.workspace import Workspace

Float32 = NDArray[np.float32]

_MAX_LINEARITY_TERMS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class IsrConfig:
    """How segments become a frame."""

    skip_serial_pix: int = 4
    """First serial overscan columns left out: they carry deferred charge."""
    skip_parallel_pix: int = 4
    """First parallel overscan rows left out."""
    overscan_clip_sigma: float = 15.0
    """Overscan values this many read noises from the amplifier's median are left out; a third of it around the row."""
    column_smoothing_pix: int = 33
    """Running mean of the parallel overscan over columns: what single columns add is in the bias already."""
    crosstalk_threshold_adu: float = 500.0
    """Pixels this far above the amplifier's sky have their ghosts taken off."""
    crosstalk_min_ghost_adu: float = 2.0
    """Ghosts of saturated pixels beyond this set CROSSTALK."""
    suspect_fraction: float = 0.9
    """SUSPECT from this fraction of saturation."""
    saturation_grow_y_pix: int = 2
    saturation_grow_x_pix: int = 1
    min_flat: float = 0.1
    max_dead_fraction: float = 0.5
    """More amplifiers than this dead or saturated: the readout is unusable."""


def isr(
    raw: RawExposure, calibrations: Calibrations, detector: Detector, workspace: Workspace, config: IsrConfig
) -> Frame:
    """Assemble and calibrate one detector.

    In the order in which the electronics added them: overscan, bias, crosstalk, linearity, gain; then dark and flat.
    Variance is the Poisson variance of all electrons plus read noise, over the flat squared [e-**2]. A dead
    amplifier is masked BAD and NODATA, its pixels 0 with variance 1. Buffers: ``science.image``, ``science.variance``,
    ``science.mask``. About 0.04 s CPU for a full detector.

    Raises ``UnusableDataError`` (bad_raw) where more than half the amplifiers carry no signal or are saturated,
    ``RejectedInputError`` where segments or calibrations do not fit the detector.
    """
    _check_shapes(raw, calibrations, detector)
    frame = _new_frame(detector.shape, workspace)
    frame.mask.fill(0)
    is_dead = np.array([_is_dead(s, a) for s, a in zip(raw.segments, detector.amplifiers, strict=True)])
    if is_dead.mean() > config.max_dead_fraction:
        raise UnusableDataError("no signal in the raw", outcome=Outcome.BAD_RAW, n_dead=int(is_dead.sum()))
    for index, amplifier in enumerate(detector.amplifiers):
        _assemble(raw.segments[index], amplifier, index, calibrations, frame.image, config)
    _correct_crosstalk(frame, detector, calibrations, ~is_dead, config)
    n_saturated = 0
    for index, amplifier in enumerate(detector.amplifiers):
        n = _calibrate(frame, amplifier, index, calibrations, raw.visit_info.exposure_time_s, config)
        box = amplifier.bbox
        if n > config.max_dead_fraction * (box[1] - box[0]) * (box[3] - box[2]):
            is_dead[index] = True
        elif not is_dead[index]:
            n_saturated += n
        if is_dead[index]:
            _blank(frame, amplifier)
    if is_dead.mean() > config.max_dead_fraction:
        raise UnusableDataError("the raw is saturated or empty", outcome=Outcome.BAD_RAW, n_dead=int(is_dead.sum()))
    if n_saturated:
        capacity = 1 << max(int(frame.mask.size * 0.02), 2 * n_saturated).bit_length()
        found = workspace.array("isr.saturated", (capacity,), np.int64)
        grow_saturation(frame.mask, found, config.saturation_grow_y_pix, config.saturation_grow_x_pix)  # type: ignore[arg-type]
    return frame


def _new_frame(shape: tuple[int, int], workspace: Workspace) -> Frame:
    return Frame(
        image=workspace.array("science.image", shape),  # type: ignore[arg-type]
        variance=workspace.array("science.variance", shape),  # type: ignore[arg-type]
        mask=workspace.array("science.mask", shape, MASK_DTYPE),  # type: ignore[arg-type]
    )


def _check_shapes(raw: RawExposure, calibrations: Calibrations, detector: Detector) -> None:
    n_amp, raw_shape = len(detector.amplifiers), detector.amplifiers[0].raw_shape
    if raw.segments.shape != (n_amp, *raw_shape):
        raise RejectedInputError(
            "segments do not fit the detector", code="bad_array", shape=raw.segments.shape, expected=(n_amp, *raw_shape)
        )
    if calibrations.bias.shape != detector.shape or calibrations.gain.shape != (n_amp,):
        raise RejectedInputError(
            "calibrations do not fit the detector", code="bad_array", shape=calibrations.bias.shape
        )
    if calibrations.linearity.shape[1] > _MAX_LINEARITY_TERMS:
        raise RejectedInputError("too many linearity terms", code="bad_array", n=calibrations.linearity.shape[1])


def _is_dead(segment: NDArray[np.int32], amplifier: Amplifier) -> bool:
    """Whether a segment's data are constant: a disconnected or blanked amplifier. Looks at every 16th row."""
    y0, y1, x0, x1 = amplifier.data
    sample = segment[y0:y1:16, x0:x1]
    low, high = np.percentile(sample[:, ::8], (5, 95))
    return bool(low == high)


def _assemble(
    segment: NDArray[np.int32],
    amplifier: Amplifier,
    index: int,
    calibrations: Calibrations,
    image: Float32,
    config: IsrConfig,
) -> None:
    _, _, x0, x1 = amplifier.serial_overscan
    x0 += config.skip_serial_pix
    clip = config.overscan_clip_sigma * float(calibrations.read_noise[index] / calibrations.gain[index])
    rows = np.empty(segment.shape[0], np.float32)
    row_levels(segment, x0, x1, float(np.median(segment[::7, x0:x1])), clip, rows)
    py0, py1, px0, px1 = amplifier.parallel_overscan
    columns = np.zeros(px1 - px0, np.float32)
    if py1 - py0 > config.skip_parallel_pix:
        box = np.array([py0 + config.skip_parallel_pix, py1, px0, px1])
        column_levels(segment, box, rows, clip, columns)
        columns = _running_mean(columns, config.column_smoothing_pix)
    y0, y1, bx0, bx1 = amplifier.bbox
    box = np.array(amplifier.data)
    part = image[y0:y1, bx0:bx1]
    bias = calibrations.bias[y0:y1, bx0:bx1]
    assemble(segment, box, rows, columns, bias, part, amplifier.flip_x, amplifier.flip_y)


def _running_mean(values: Float32, width: int) -> Float32:
    half = min(width, values.size) // 2
    if half == 0:
        return values
    sums = np.concatenate(([0.0], np.cumsum(values, dtype=np.float64)))
    i = np.arange(values.size)
    low, high = np.maximum(i - half, 0), np.minimum(i + half + 1, values.size)
    return np.asarray((sums[high] - sums[low]) / (high - low), np.float32)


def _correct_crosstalk(
    frame: Frame, detector: Detector, calibrations: Calibrations, is_usable: NDArray[np.bool_], config: IsrConfig
) -> None:
    if not calibrations.crosstalk.any():
        return
    boxes = np.array([a.bbox for a in detector.amplifiers], np.int64)
    flips = np.array([(a.flip_x, a.flip_y) for a in detector.amplifiers])
    # the sky's own crosstalk is a constant that the background takes
    sky = np.array([np.median(frame.image[y0:y1:32, x0:x1:8]) for y0, y1, x0, x1 in boxes], np.float32)
    correct_crosstalk(
        frame.image,
        frame.mask,
        boxes,
        flips,
        calibrations.crosstalk,
        sky,
        calibrations.saturation,
        config.crosstalk_threshold_adu,
        config.crosstalk_min_ghost_adu,
        is_usable,
    )


def _calibrate(
    frame: Frame, amplifier: Amplifier, index: int, calibrations: Calibrations, dark_s: float, config: IsrConfig
) -> int:
    """Number of saturated pixels in the amplifier."""
    y0, y1, x0, x1 = amplifier.bbox
    box = np.s_[y0:y1, x0:x1]
    saturation = calibrations.saturation[index]
    parameters = np.array(
        [
            calibrations.gain[index],
            calibrations.read_noise[index] ** 2,
            saturation,
            config.suspect_fraction * saturation,
            dark_s,
            config.min_flat,
        ],
        np.float32,
    )
    linearity = np.zeros(_MAX_LINEARITY_TERMS, np.float32)
    linearity[: calibrations.linearity.shape[1]] = calibrations.linearity[index]
    planes = (frame.image[box], frame.variance[box], frame.mask[box])
    constants = (calibrations.dark[box], calibrations.flat[box], calibrations.defects[box])
    return calibrate_pixels(*planes, *constants, parameters, linearity)


def _blank(frame: Frame, amplifier: Amplifier) -> None:
    y0, y1, x0, x1 = amplifier.bbox
    box = np.s_[y0:y1, x0:x1]
    frame.image[box] = 0
    frame.variance[box] = 1
    frame.mask[box] = Mask.BAD | Mask.NODATA
