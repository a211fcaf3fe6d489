"""Raw counts to electrons: overscan levels, assembly, crosstalk, the per-pixel calibration, growth of saturation."""

import numpy as np
from numpy.typing import NDArray

from core.flags import Mask
from core.kernels.decorator import kernel

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
UInt16 = NDArray[np.uint16]

_BAD = np.uint16(Mask.BAD)
_SAT = np.uint16(Mask.SAT)
_SUSPECT = np.uint16(Mask.SUSPECT)
_CROSSTALK = np.uint16(Mask.CROSSTALK)


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
def column_levels(segment: Int32, box: NDArray[np.int64], rows: Float32, clip_adu: float, out: Float32) -> None:
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


@kernel
def assemble(
    segment: Int32, data: NDArray[np.int64], rows: Float32, columns: Float32, bias: Float32, out: Float32,
    flip_x: bool, flip_y: bool,
) -> None:  # fmt: skip
    """Place a segment's data in its box of the detector: raw minus overscan minus bias [ADU].

    ``data`` = (y0, y1, x0, x1) in the segment; ``bias`` and ``out`` are the detector's box, (y1 - y0, x1 - x0).
    """
    ny, nx = out.shape
    for y in range(ny):
        raw_y = data[0] + (ny - 1 - y if flip_y else y)
        level = rows[raw_y]
        if flip_x:
            last = data[2] + nx - 1
            for x in range(nx):
                out[y, x] = np.float32(segment[raw_y, last - x]) - level - columns[nx - 1 - x] - bias[y, x]
        else:
            for x in range(nx):
                out[y, x] = np.float32(segment[raw_y, data[2] + x]) - level - columns[x] - bias[y, x]


@kernel
def correct_crosstalk(
    image: Float32, mask: UInt16, boxes: NDArray[np.int64], flips: NDArray[np.bool_], coefficients: Float32,
    sky: Float32, saturation: Float32, threshold_adu: float, min_ghost_adu: float, usable: NDArray[np.bool_],
) -> None:  # fmt: skip
    """Take off the ghosts of pixels above the sky by ``threshold_adu``; sets CROSSTALK under those of saturated ones.

    Parameters
    ----------
    image : (ny, nx) [ADU], in place.    mask : bits set in place.
    boxes : (n_amp, 4) boxes (y0, y1, x0, x1) of equal size.    flips : (n_amp, 2) (flip_x, flip_y).
    coefficients : (n_amp, n_amp) ``[i, j]`` fraction of j seen in i.    sky, saturation : (n_amp,) [ADU].
    """
    n_amp = boxes.shape[0]
    for j in range(n_amp):
        if not usable[j]:
            continue
        ny, nx = boxes[j, 1] - boxes[j, 0], boxes[j, 3] - boxes[j, 2]
        least = np.float32(sky[j] + threshold_adu)
        for y in range(ny):
            for x in range(nx):
                v = image[boxes[j, 0] + y, boxes[j, 2] + x]
                if not v > least:
                    continue
                read_y = ny - 1 - y if flips[j, 1] else y
                read_x = nx - 1 - x if flips[j, 0] else x
                is_saturated = v >= saturation[j]
                for i in range(n_amp):
                    if i == j or coefficients[i, j] == 0:
                        continue
                    ty = boxes[i, 0] + (ny - 1 - read_y if flips[i, 1] else read_y)
                    tx = boxes[i, 2] + (nx - 1 - read_x if flips[i, 0] else read_x)
                    ghost = coefficients[i, j] * (v - sky[j])
                    image[ty, tx] -= ghost
                    if is_saturated and abs(ghost) > min_ghost_adu:
                        mask[ty, tx] |= _CROSSTALK


@kernel
def calibrate_pixels(
    image: Float32, variance: Float32, mask: UInt16, dark: Float32, flat: Float32, defects: UInt16,
    parameters: Float32, linearity: Float32,
) -> int:  # fmt: skip
    """Linearize, convert to electrons, subtract dark, divide by flat; fill variance and mask. One box of one amplifier.

    Parameters
    ----------
    image : (ny, nx) bias-subtracted [ADU] in, [e-] out.    variance : (ny, nx) out [e-**2].
    mask : (ny, nx) in place.    dark : [e-/s].    flat, defects : (ny, nx).
    parameters : (6,) gain [e-/ADU], read noise squared [e-**2], saturation [ADU], start of SUSPECT [ADU], dark time
        [s], smallest usable flat.
    linearity : (4,) coefficients of the powers 2 to 5 of the counts.

    Returns the number of saturated pixels.
    """
    gain, noise, saturation, suspect, dark_s, min_flat = (
        parameters[0], parameters[1], parameters[2], parameters[3], parameters[4], parameters[5],
    )  # fmt: skip
    a, b, c, d = linearity[0], linearity[1], linearity[2], linearity[3]
    one = np.float32(1.0)
    zero = np.float32(0.0)
    n_saturated = 0
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            v = image[y, x]
            bits = mask[y, x] | defects[y, x]
            if v >= saturation:
                bits |= _SAT
                n_saturated += 1
            if v >= suspect:
                bits |= _SUSPECT
            electrons = gain * v * (one + v * (a + v * (b + v * (c + v * d))))
            f = flat[y, x]
            if not f > min_flat:
                bits |= _BAD
                f = one
            value = (electrons - dark[y, x] * dark_s) / f
            spread = (max(electrons, zero) + noise) / (f * f)
            if not abs(value) < np.float32(1e9):
                bits |= _BAD
                value = zero
                spread = noise
            image[y, x] = value
            variance[y, x] = spread
            mask[y, x] = bits
    return n_saturated


@kernel
def grow_saturation(mask: UInt16, found: NDArray[np.int64], reach_y: int, reach_x: int) -> int:
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
