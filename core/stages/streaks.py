"""Tracks of satellites and airplanes: straight lines across the whole difference image, masked as STREAK."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.contracts.exposure import Frame
from core.flags import UNCLAIMED, Mask
from core.kernels.streaks import bin_snr, mask_line, profile_along, sum_lines
from core.workspace import Workspace

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_EXCLUDED: Final = int(UNCLAIMED | Mask.SAT_TEMPLATE)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreakConfig:
    """How tracks are found; lengths and widths in pixels unless named otherwise."""

    cell_pix: int = 16
    n_angles: int = 360
    min_snr: float = 12.0
    """Of the sum along a line of cells, in units of its spread over all lines."""
    min_length_cells: int = 24
    cell_limit: float = 4.0
    """No cell counts for more: a star on a line makes no streak."""
    max_streaks: int = 4
    half_width_pix: int = 48
    min_profile_snr: float = 0.15
    """Mean S/N of a pixel down to which the track is masked across."""
    margin_pix: float = 2.0
    n_segments: int = 32


def mask_streaks(difference: Frame, workspace: Workspace, config: StreakConfig | None = None) -> int:
    """Set STREAK along every straight track that crosses the difference (in place); gives their number.

    Sums cells of the S/N along all lines (Radon transform, as Nir, Zackay & Ofek 2018, AJ 156, 229, find streaks),
    refines the strongest on the pixels, measures its profile across, masks it, and looks again. About 0.4 R where there
    is none, as much again for each.
    """
    config = config or StreakConfig()
    shape = (difference.shape[0] // config.cell_pix, difference.shape[1] // config.cell_pix)
    if min(shape) < config.min_length_cells:
        return 0
    cells: Float32 = workspace.array("streaks.cells", shape)  # type: ignore[assignment]
    for found in range(config.max_streaks):
        bin_snr(
            difference.image, difference.variance, difference.mask, _EXCLUDED, config.cell_pix, config.cell_limit, cells
        )
        line = _strongest_line(cells, config)
        if line is None:
            return found
        line = _refined(difference, line, config)
        low, high = _extent(difference, line, config)
        if low > high:
            return found
        mask_line(difference.mask, line, low - config.margin_pix, high + config.margin_pix)
    return config.max_streaks


def _strongest_line(cells: Float32, config: StreakConfig) -> Float64 | None:
    """(3,) cosine, sine and r [pixel] of the line of cells with the highest sum, None where none stands out."""
    usable = np.isfinite(cells)
    if not usable.any():
        return None
    values = np.where(usable, cells - np.median(cells[usable]), np.float32(0))
    angle = np.arange(config.n_angles) * np.pi / config.n_angles
    cosine, sine = np.cos(angle), np.sin(angle)
    is_steep = np.abs(cosine) >= np.abs(sine)
    families = [
        _scores(values, usable, -sine[is_steep] / cosine[is_steep], config),
        _scores(values.T, usable.T, -cosine[~is_steep] / sine[~is_steep], config),
    ]
    known = np.concatenate([score[np.isfinite(score)] for score in families])
    if known.size == 0:
        return None
    spread = 1.4826 * np.median(np.abs(known - np.median(known)))
    family = int(families[1].max() > families[0].max())
    score = families[family]
    a, i = np.unravel_index(int(np.argmax(score)), score.shape)
    if score[a, i] < config.min_snr * max(float(spread), 0.5):
        return None
    best = np.flatnonzero(~is_steep if family else is_steep)[a]
    c, s = float(cosine[best]), float(sine[best])
    intercept = (int(i) - cells.shape[family]) * (s if family else c)
    # cells are counted from their middles
    middle = (config.cell_pix - 1) / 2
    return np.array([c, s, intercept * config.cell_pix + middle * (c + s)])


def _scores(values: Float32, usable: NDArray[np.bool_], slopes: Float64, config: StreakConfig) -> Float32:
    """(n_slopes, n_x + 2 n_y) sums along lines over the root of their cells; -inf for those too short."""
    shape = (slopes.size, values.shape[1] + 2 * values.shape[0])
    total, count = np.empty(shape, np.float32), np.empty(shape, np.float32)
    sum_lines(np.ascontiguousarray(values), usable.astype(np.float32), slopes, total, count)
    # one cell a row: a line at 45 degrees is longer than its cells are many
    is_long = count * np.hypot(1.0, slopes)[:, None] >= config.min_length_cells
    return np.where(is_long, total / np.sqrt(np.maximum(count, np.float32(1))), np.float32(-np.inf))


def _refined(difference: Frame, line: Float64, config: StreakConfig) -> Float64:
    """The line moved and turned to the middles of the track's segments, twice."""
    half, n = config.half_width_pix, config.n_segments
    total, count = np.empty((2, n, 2 * half + 1))
    d = np.arange(-half, half + 1)
    along = (2 * (np.arange(n) + 0.5) / n - 1) * np.hypot(*difference.shape)
    for _ in range(3):
        profile_along(difference.image, difference.variance, difference.mask, _EXCLUDED, line, half, 3.0, total, count)
        mean = total / np.maximum(count, 1)
        mean -= np.median(mean, axis=1, keepdims=True)
        mean = np.stack([np.convolve(row, np.ones(5) / 5, "same") for row in mean])
        peak = mean.max(axis=1)
        good = (count.min(axis=1) > 0) & (peak > 0.3 * np.percentile(peak, 90))
        if good.sum() < 4:
            return line
        middle = d[mean.argmax(axis=1)]
        weight = np.where(good, peak, 0.0)
        for _ in range(4):
            slope, offset = np.polyfit(along[good], middle[good], 1, w=weight[good])
            residual = np.abs(middle - (slope * along + offset))
            good &= residual <= max(3.0, 3 * float(np.median(residual[good])))
            if good.sum() < 4:
                return line
        line = _moved(line, slope, offset)
    return line


def _moved(line: Float64, slope: float, offset: float) -> Float64:
    """The line through points at distance ``offset + slope * along`` of the old one."""
    c, s, r = line
    norm = np.hypot(1.0, slope)
    # x c + y s - r = offset + slope (y c - x s)
    return np.array([(c + slope * s) / norm, (s - slope * c) / norm, (r + offset) / norm])


def _extent(difference: Frame, line: Float64, config: StreakConfig) -> tuple[float, float]:
    """Distances from the line between which the track stands out of the sky; low > high where it does not."""
    half = config.half_width_pix
    total, count = np.empty((2, 1, 2 * half + 1))
    profile_along(difference.image, difference.variance, difference.mask, _EXCLUDED, line, half, 10.0, total, count)
    profile = total[0] / np.maximum(count[0], 1)
    noise = 1 / np.sqrt(max(float(np.median(count[0])), 1))
    limit = float(np.median(profile)) + max(config.min_profile_snr, 4 * noise)
    above = profile > limit
    if not above[half - 3 : half + 4].any():
        return 1.0, 0.0
    start = half - 3 + int(np.argmax(above[half - 3 : half + 4]))
    low = high = start
    while low > 0 and above[max(low - 2, 0) : low].any():
        low -= 1
    while high < 2 * half and above[high + 1 : high + 3].any():
        high += 1
    return float(low - half), float(high - half)
