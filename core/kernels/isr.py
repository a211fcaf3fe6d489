"""Raw counts to electrons: overscan levels, assembly, crosstalk, the per-pixel calibration, growth of saturation."""

import numpy as np
from numpy.typing import NDArray

from core.flags import Mask
from core.kernels.decorator import fast_kernel, kernel

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
UInt16 = NDArray[np.uint16]

_BAD = np.uint16(Mask.BAD)
_SAT = np.uint16(Mask.SAT)
_SUSPECT = np.uint16(Mask.SUSPECT)
_CROSSTALK = np.uint16(Mask.CROSSTALK)
_DEAD = np.uint16(Mask.BAD | Mask.NODATA)


@kernel
def row_levels(segment: Int32, x0: int, x1: int, level: float, clip_adu: float, out: Float32) -> None:
    """Clipped mean of columns [x0, x1) of every row of a segment.

    Parameters
    ----------
    segment : (ny_raw, nx_raw) [ADU].    level : the amplifier's median overscan [ADU].
    clip_adu : values further from the level are left out first, a third of that from the row's mean after.
    out : (ny_raw,) [ADU]; ``level`` where nothing is left.
    """
    for y in range(segment.shape[0]):
        center = level
        for step in range(2):
            reach = clip_adu if step == 0 else clip_adu / 3.0
            total, n = 0.0, 0
            for x in range(x0, x1):
                v = np.float64(segment[y, x])
                if abs(v - center) <= reach:
                    total += v
                    n += 1
            if n > 0:
                center = total / n
        out[y] = center


@kernel
def column_levels(segment: Int32, box: Int64, rows: Float32, clip_adu: float, out: Float32) -> None:
    """Clipped mean over rows ``box`` = (y0, y1, x0, x1) of each column, after the rows' levels are taken off.

    ``out`` (x1 - x0,) [ADU].
    """
    for x in range(box[2], box[3]):
        total, n = 0.0, 0
        for y in range(box[0], box[1]):
            v = np.float64(segment[y, x]) - rows[y]
            if abs(v) <= clip_adu:
                total += v
                n += 1
        out[x - box[2]] = total / n if n > 0 else 0.0


@fast_kernel
def _subtract_crosstalk(
    lines: Float32, ghosts: UInt16, coefficients: Float32, sky: Float32, saturation: Float32, usable: NDArray[np.bool_],
    threshold_adu: float, min_ghost_adu: float,
) -> None:  # fmt: skip
    """Take the ghosts of bright pixels off one raw row of all amplifiers, (n_amp, nx) [ADU] in reading order."""
    n_amp, nx = lines.shape
    ghosts[:] = np.uint16(0)
    for j in range(n_amp):
        line = lines[j]
        least = np.float32(sky[j] + threshold_adu)
        n_bright = np.float32(0.0)
        for x in range(nx):
            n_bright += np.float32(1.0) if line[x] > least else np.float32(0.0)
        if n_bright == 0 or not usable[j]:
            continue
        for x in range(nx):
            signal = line[x] - sky[j]
            if not line[x] > least:
                continue
            for i in range(n_amp):
                if i != j and coefficients[i, j] != 0:
                    ghost = coefficients[i, j] * signal
                    lines[i, x] -= ghost
                    if line[x] >= saturation[j] and abs(ghost) > min_ghost_adu:
                        ghosts[i, x] = _CROSSTALK


@fast_kernel
def _calibrate_line(
    line: Float32, dark: Float32, flat: Float32, defects: UInt16, ghosts: UInt16, parameters: Float32,
    linearity: Float32, dark_s: np.float32, image: Float32, variance: Float32, mask: UInt16,
) -> int:  # fmt: skip
    """One row of one amplifier, all arrays (nx,) in the same order; returns its number of saturated pixels."""
    gain, noise, saturation, suspect, min_flat = (
        parameters[0], parameters[1], parameters[2], parameters[3], parameters[4],
    )  # fmt: skip
    a, b, c, d = linearity[0], linearity[1], linearity[2], linearity[3]
    one, zero, huge = np.float32(1.0), np.float32(0.0), np.float32(1e9)
    nx = image.size
    n_odd = zero
    # without branches, so that it runs on vectors
    for x in range(nx):
        v, f = line[x], flat[x]
        electrons = gain * v * (one + v * (a + v * (b + v * (c + v * d))))
        inverse = one / (f if f > min_flat else one)
        value = (electrons - dark[x] * dark_s) * inverse
        image[x] = value
        variance[x] = ((electrons if electrons > zero else zero) + noise) * inverse * inverse
        mask[x] = defects[x] | ghosts[x]
        is_plain = (v < suspect) & (f > min_flat) & (abs(value) < huge)
        n_odd += zero if is_plain else one
    if n_odd == 0:
        return 0
    n_saturated = 0
    for x in range(nx):
        if line[x] >= saturation:
            mask[x] |= _SAT
            n_saturated += 1
        if line[x] >= suspect:
            mask[x] |= _SUSPECT
        if not flat[x] > min_flat:
            mask[x] |= _BAD
        if not abs(image[x]) < huge:
            mask[x] |= _BAD
            image[x], variance[x] = zero, noise
    return n_saturated


@kernel
def calibrate_segments(
    segments: Int32, rows: Float32, columns: Float32, data: Int64, boxes: Int64, flips: NDArray[np.bool_],
    usable: NDArray[np.bool_], sky: Float32, parameters: Float32, linearity: Float32, crosstalk: Float32,
    crosstalk_adu: NDArray[np.float64], dark_s: float, first: int, last: int,
    bias: Float32, dark: Float32, flat: Float32, defects: UInt16,
    image: Float32, variance: Float32, mask: UInt16, n_saturated: Int64,
) -> None:  # fmt: skip
    """Segments to one detector in electrons, a raw row of all amplifiers at a time, so that memory is passed once.

    In the order of the electronics backwards: overscan, bias, crosstalk, linearity, gain; then dark and flat.

    Parameters
    ----------
    segments : (n_amp, ny_raw, nx_raw) [ADU].    rows : (n_amp, ny_raw), columns : (n_amp, nx) overscan levels [ADU].
    data, boxes : (n_amp, 4) boxes (y0, y1, x0, x1) of the segment and of the detector, all of one size.
    flips : (n_amp, 2) (flip_x, flip_y).    usable : (n_amp,) others are BAD and NODATA, 0 with variance 1.
    sky : (n_amp,) median signal [ADU].
    parameters : (n_amp, 5) gain [e-/ADU], read noise squared [e-**2], saturation [ADU], start of SUSPECT [ADU],
        smallest usable flat.
    linearity : (n_amp, 4) coefficients of the powers 2 to 5 of the counts.
    crosstalk : (n_amp, n_amp) ``[i, j]`` fraction of j seen in i.
    crosstalk_adu : (2,) pixels so far above the sky have their ghosts taken off; ghosts of saturated ones beyond the
        second set CROSSTALK.
    first, last : rows of the segments' data that are done, ``last`` not among them.
    bias [ADU], dark [e-/s], flat, defects : (ny, nx).
    image [e-], variance [e-**2], mask : (ny, nx) outputs.    n_saturated : (n_amp,) output.
    """
    n_amp = segments.shape[0]
    ny, nx = boxes[0, 1] - boxes[0, 0], boxes[0, 3] - boxes[0, 2]
    lines = np.empty((n_amp, nx), np.float32)
    ghosts = np.zeros((n_amp, nx), np.uint16)
    has_crosstalk = np.any(crosstalk != 0)
    n_saturated[:] = 0
    exposed = np.float32(dark_s)
    for r in range(first, last):
        for i in range(n_amp):
            raw_y, x0 = data[i, 0] + r, data[i, 2]
            y = boxes[i, 0] + (ny - 1 - r if flips[i, 1] else r)
            raw, level, line, column = segments[i, raw_y, x0 : x0 + nx], rows[i, raw_y], lines[i], columns[i]
            known = bias[y, boxes[i, 2] : boxes[i, 3]]
            if flips[i, 0]:
                known = known[::-1]
                for x in range(nx):
                    line[x] = np.float32(raw[x]) - level - column[x] - known[x]
            else:
                for x in range(nx):
                    line[x] = np.float32(raw[x]) - level - column[x] - known[x]
        if has_crosstalk:
            _subtract_crosstalk(
                lines, ghosts, crosstalk, sky, parameters[:, 2], usable, crosstalk_adu[0], crosstalk_adu[1]
            )
        for i in range(n_amp):
            y, x0, x1 = boxes[i, 0] + (ny - 1 - r if flips[i, 1] else r), boxes[i, 2], boxes[i, 3]
            if not usable[i]:
                image[y, x0:x1] = np.float32(0.0)
                variance[y, x0:x1] = np.float32(1.0)
                mask[y, x0:x1] = _DEAD
                continue
            if flips[i, 0]:
                for x in range(nx // 2):
                    lines[i, x], lines[i, nx - 1 - x] = lines[i, nx - 1 - x], lines[i, x]
                    ghosts[i, x], ghosts[i, nx - 1 - x] = ghosts[i, nx - 1 - x], ghosts[i, x]
            n_saturated[i] += _calibrate_line(
                lines[i], dark[y, x0:x1], flat[y, x0:x1], defects[y, x0:x1], ghosts[i], parameters[i], linearity[i],
                exposed, image[y, x0:x1], variance[y, x0:x1], mask[y, x0:x1],
            )  # fmt: skip


@kernel
def grow_saturation(mask: UInt16, found: Int64, reach_y: int, reach_x: int) -> int:
    """Set SAT within ``reach`` of every SAT pixel. ``found`` holds their flat indices; returns how many there were."""
    ny, nx = mask.shape
    n = 0
    for y in range(ny):
        for x in range(nx):
            if mask[y, x] & _SAT and n < found.size:
                found[n] = y * nx + x
                n += 1
    for i in range(n):
        y0, x0 = found[i] // nx, found[i] % nx
        for y in range(max(y0 - reach_y, 0), min(y0 + reach_y + 1, ny)):
            for x in range(max(x0 - reach_x, 0), min(x0 + reach_x + 1, nx)):
                mask[y, x] |= _SAT
    return n


@fast_kernel
def restore_boundaries(image: Float32, coefficient: float, most: float, before: Float32, here: Float32) -> None:
    """Undo the brighter-fatter effect between nearest neighbours, in place.

    A pixel holding more charge than its neighbour pushes their boundary towards itself by ``coefficient`` times the
    difference; the charge that crossed it, that shift times the mean of both, goes back: to first order
    ``q += coefficient / 2 * sum(q**2 - r**2)`` over the four neighbours r.

    Parameters
    ----------
    image : (ny, nx) [e-], sky included.    coefficient : [pixel/e-].
    most : charge above which the effect grows no more [e-].    before, here : (nx,) scratch.
    """
    ny, nx = image.shape
    half, limit, four = np.float32(coefficient / 2), np.float32(most), np.float32(4)
    for i in range(nx):
        q = image[0, i] if image[0, i] < limit else limit
        before[i] = q * q
        here[i] = q * q
    for y in range(ny):
        row, after = image[y], image[min(y + 1, ny - 1)]
        left = here[0]
        for i in range(nx):
            q = after[i] if after[i] < limit else limit
            below = q * q if y + 1 < ny else here[i]
            right = here[i + 1] if i + 1 < nx else here[i]
            own = here[i]
            row[i] += half * (four * own - left - right - before[i] - below)
            left = own
            before[i] = own
        for i in range(nx):
            q = after[i] if after[i] < limit else limit
            here[i] = q * q
