"""Instrument signature removal: segments in ADU to one detector in electrons."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.camera import Amplifier, Detector
from core.contracts.bundle import Calibrations
from core.contracts.exposure import Frame, RawExposure
from core.errors import Outcome, RejectedInputError, UnusableDataError
from core.flags import MASK_DTYPE
from core.kernels.isr import calibrate_segments, column_levels, grow_saturation, restore_boundaries, row_levels
from core.workspace import Workspace, bands

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
    crosstalk_threshold_adu: float = 1000.0
    """Pixels this far above the amplifier's sky have their ghosts taken off."""
    crosstalk_min_ghost_adu: float = 2.0
    """Ghosts of saturated pixels beyond this set CROSSTALK."""
    suspect_fraction: float = 0.9
    """SUSPECT from this fraction of saturation."""
    saturation_grow_y_pix: int = 2
    saturation_grow_x_pix: int = 1
    brighter_fatter_most_e: float = 2.0e5
    """Charge above which the brighter-fatter effect grows no more [e-]."""
    min_flat: float = 0.1
    max_dead_fraction: float = 0.5
    """More amplifiers than this dead or saturated: the readout is unusable."""


def isr(
    raw: RawExposure, calibrations: Calibrations, detector: Detector, workspace: Workspace, config: IsrConfig
) -> Frame:
    """Assemble and calibrate one detector.

    In the order in which the electronics added them: overscan, bias, crosstalk, linearity, gain; then dark and flat;
    then the charge that brighter pixels pushed over their boundaries goes back (brighter-fatter; Antilogus et al.
    2014, JINST 9, C03048, with the nearest neighbours only).
    Variance is the Poisson variance of all electrons plus read noise, over the flat squared [e-**2]. A dead
    amplifier is masked BAD and NODATA, its pixels 0 with variance 1. Buffers: ``science.image``, ``science.variance``,
    ``science.mask``. About 0.04 s CPU for a full detector.

    Raises ``UnusableDataError`` (bad_raw) where more than half the amplifiers carry no signal or are saturated,
    ``RejectedInputError`` where segments or calibrations do not fit the detector.
    """
    _check_shapes(raw, calibrations, detector)
    frame = _new_frame(detector.shape, workspace)
    levels = [_overscan(s, a, i, calibrations, config) for i, (s, a) in enumerate(_pairs(raw, detector))]
    samples = [_sample(segment, amplifier) for segment, amplifier in _pairs(raw, detector)]
    sky = np.array([np.median(s) - np.median(level) for s, (level, _) in zip(samples, levels, strict=True)], np.float32)
    # constant: disconnected or blanked; at the top of its range: nothing to be seen
    is_usable = np.array([s.min() < s.max() for s in samples]) & (sky < calibrations.saturation)
    _check_usable(is_usable, config)
    amplifiers = detector.amplifiers
    data = np.array([a.data for a in amplifiers])
    described = (
        np.stack([rows for rows, _ in levels]),
        np.stack([columns for _, columns in levels]),
        data,
        np.array([a.bbox for a in amplifiers]),
        np.array([(a.flip_x, a.flip_y) for a in amplifiers]),
        is_usable,
        sky,
        *_parameters(calibrations, config),
        calibrations.crosstalk,
        np.array([config.crosstalk_threshold_adu, config.crosstalk_min_ghost_adu]),
        raw.visit_info.exposure_time_s,
    )
    parts = bands(int(data[0, 1] - data[0, 0]), workspace.n_threads)
    counts = np.zeros((len(parts), is_usable.size), np.int64)

    def calibrate(part: int) -> None:
        calibrate_segments(
            raw.segments, *described, *parts[part], calibrations.bias, calibrations.dark, calibrations.flat,
            calibrations.defects, frame.image, frame.variance, frame.mask, counts[part],
        )  # fmt: skip

    workspace.share(calibrate, range(len(parts)))
    n_saturated = counts.sum(axis=0)
    coefficient = float(calibrations.brighter_fatter.mean())
    if coefficient != 0:
        rows = np.empty((2, frame.shape[1]), np.float32)
        restore_boundaries(frame.image, coefficient, config.brighter_fatter_most_e, rows[0], rows[1])
    if n_saturated.any():
        _check_usable(n_saturated < config.max_dead_fraction * frame.mask.size / is_usable.size, config)
        capacity = 1 << max(int(frame.mask.size * 0.02), 2 * int(n_saturated.sum())).bit_length()
        found = workspace.array("isr.saturated", (capacity,), np.int64)
        grow_saturation(frame.mask, found, config.saturation_grow_y_pix, config.saturation_grow_x_pix)  # type: ignore[arg-type]
    return frame


def _pairs(raw: RawExposure, detector: Detector) -> Iterator[tuple[NDArray[np.int32], Amplifier]]:
    return zip(raw.segments, detector.amplifiers, strict=True)


def _sample(segment: NDArray[np.int32], amplifier: Amplifier) -> NDArray[np.int32]:
    """Every 32nd row and 8th column of a segment's data."""
    y0, y1, x0, x1 = amplifier.data
    return segment[y0:y1:32, x0:x1:8]


def _check_usable(is_usable: NDArray[np.bool_], config: IsrConfig) -> None:
    if 1 - is_usable.mean() > config.max_dead_fraction:
        n_dead = int(np.count_nonzero(~is_usable))
        raise UnusableDataError("the raw is empty or saturated", outcome=Outcome.BAD_RAW, n_dead=n_dead)


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


def _overscan(
    segment: NDArray[np.int32], amplifier: Amplifier, index: int, calibrations: Calibrations, config: IsrConfig
) -> tuple[Float32, Float32]:
    """Levels of the raw rows and of the data's columns [ADU]."""
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
    return rows, columns


def _running_mean(values: Float32, width: int) -> Float32:
    half = min(width, values.size) // 2
    if half == 0:
        return values
    sums = np.concatenate(([0.0], np.cumsum(values, dtype=np.float64)))
    i = np.arange(values.size)
    low, high = np.maximum(i - half, 0), np.minimum(i + half + 1, values.size)
    return np.asarray((sums[high] - sums[low]) / (high - low), np.float32)


def _parameters(calibrations: Calibrations, config: IsrConfig) -> tuple[Float32, Float32]:
    """(n_amp, 5) and (n_amp, 4) as :func:`calibrate_segments` takes them."""
    saturation = calibrations.saturation
    columns = (
        calibrations.gain,
        calibrations.read_noise**2,
        saturation,
        config.suspect_fraction * saturation,
        np.full_like(saturation, config.min_flat),
    )
    linearity = np.zeros((saturation.size, _MAX_LINEARITY_TERMS), np.float32)
    linearity[:, : calibrations.linearity.shape[1]] = calibrations.linearity
    return np.stack(columns, axis=-1).astype(np.float32), linearity
