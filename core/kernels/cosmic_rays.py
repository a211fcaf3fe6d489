"""Pixels sharper than any star, and interpolation over bad ones."""

import numpy as np
from numpy.typing import NDArray

from core.flags import Mask
from core.kernels.decorator import kernel

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
UInt16 = NDArray[np.uint16]

_CR = np.uint16(Mask.CR)
_INTERPOLATED = np.uint16(Mask.INTERPOLATED)


@kernel
def _allowed(
    image: Float32, mask: UInt16, blocked: np.uint16, y: int, x: int, axis: float, diagonal: float
) -> float:  # fmt: skip
    """Most that stars alone can have at a pixel that was hit, by its opposite neighbours; at most its value."""
    ny, nx = image.shape
    most = float(image[y, x])
    if y < 1 or x < 1 or y >= ny - 1 or x >= nx - 1:
        return most
    for i in range(4):
        dy = 0 if i == 0 else 1
        dx = 1 if i <= 1 else (0 if i == 2 else -1)
        if (mask[y - dy, x - dx] | mask[y + dy, x + dx]) & blocked:
            continue
        pair = 0.5 * (float(image[y - dy, x - dx]) + float(image[y + dy, x + dx]))
        most = min(most, pair / (diagonal if i == 1 or i == 3 else axis))
    return most


@kernel
def _sharpness(
    image: Float32, variance: Float32, mask: UInt16, skip: np.uint16, y: int, x: int, axis: float, diagonal: float,
    ratio_error: float,
) -> float:  # fmt: skip
    """Largest S/N, over four directions, by which a pixel exceeds what its two neighbours allow a star to have.

    For any sum of stars the mean of two opposite neighbours is at least ``axis`` (``diagonal``) of the pixel between
    them: that of a star centered on it. Neighbours already marked CR count with what stars may have there; a direction
    with a neighbour that has a bit of ``skip`` (a dead column beside a star) says nothing. Negative without an excess.
    """
    v = np.float64(image[y, x])
    own = np.float64(variance[y, x])
    blocked = np.uint16(skip | _CR)
    best = -1e9
    for i in range(4):
        dy = 0 if i == 0 else 1
        dx = 1 if i <= 1 else (0 if i == 2 else -1)
        before, after = mask[y - dy, x - dx], mask[y + dy, x + dx]
        if (before | after) & skip:
            continue
        ratio = diagonal if i == 1 or i == 3 else axis
        a, b = float(image[y - dy, x - dx]), float(image[y + dy, x + dx])
        spread = np.float64(variance[y - dy, x - dx]) + np.float64(variance[y + dy, x + dx])
        if before & _CR:
            a = _allowed(image, mask, blocked, y - dy, x - dx, axis, diagonal)
        if after & _CR:
            b = _allowed(image, mask, blocked, y + dy, x + dx, axis, diagonal)
        excess = ratio * v - 0.5 * (a + b)
        if excess <= 0:  # most pixels of a crowded field: no root is taken for them
            continue
        noise = ratio * ratio * own + 0.25 * spread + (ratio_error * ratio * v) ** 2
        best = max(best, excess / np.sqrt(noise))
    return best


@kernel
def find_sharp_pixels(
    image: Float32, variance: Float32, mask: UInt16, skip: np.uint16, least: float, min_snr: float, axis: float,
    diagonal: float, ratio_error: float, min_sharpness: float, out_y: Int32, out_x: Int32,
) -> int:  # fmt: skip
    """Pixels above ``min_snr`` that no star explains at ``min_sharpness`` sigma. Marks nothing.

    Parameters
    ----------
    image, variance, mask : (ny, nx), background subtracted.    skip : bits that keep a pixel and its directions out.
    least : value below which no pixel is looked at.
    axis, diagonal : least share of a star's pixel that the mean of two opposite neighbours has.
    ratio_error : error of those, as fraction.    out_y, out_x : (n,) outputs.

    Returns how many, at most n.
    """
    ny, nx = image.shape
    square = np.float32(min_snr * min_snr)
    floor = np.float32(least)
    n = 0
    for y in range(1, ny - 1):
        for x in range(1, nx - 1):
            v = image[y, x]
            if v < floor or v * v < square * variance[y, x] or mask[y, x] & (skip | _CR):
                continue
            sharp = _sharpness(image, variance, mask, skip, y, x, axis, diagonal, ratio_error)
            if sharp > min_sharpness and n < out_y.size:
                out_y[n], out_x[n] = y, x
                n += 1
    return n


@kernel
def sharpest_near(
    image: Float32, variance: Float32, mask: UInt16, skip: np.uint16, min_snr: float, axis: float, diagonal: float,
    ratio_error: float, y: Int32, x: Int32, out: Float32,
) -> None:  # fmt: skip
    """Largest sharpness in the 3 x 3 pixels about (n,) places, of pixels above ``min_snr``; zero without an excess.

    As :func:`find_sharp_pixels` has it, in sigma; pixels marked CR are not looked at.
    """
    ny, nx = image.shape
    for i in range(y.size):
        best = 0.0
        for yy in range(max(y[i] - 1, 1), min(y[i] + 2, ny - 1)):
            for xx in range(max(x[i] - 1, 1), min(x[i] + 2, nx - 1)):
                v = np.float64(image[yy, xx])
                if mask[yy, xx] & (skip | _CR) or v <= 0 or v * v < min_snr * min_snr * variance[yy, xx]:
                    continue
                best = max(best, _sharpness(image, variance, mask, skip, yy, xx, axis, diagonal, ratio_error))
        out[i] = best


@kernel
def follow_tracks(
    image: Float32, variance: Float32, mask: UInt16, skip: np.uint16, min_snr: float, axis: float, diagonal: float,
    ratio_error: float, min_sharpness: float, y: Int32, x: Int32, n_seed: int,
) -> int:  # fmt: skip
    """Mark the seeds CR, then their neighbours that are sharp by a lower bar, and so on.

    ``y, x`` (n,) hold ``n_seed`` seeds and take what is found; returns the new count.
    """
    ny, nx = image.shape
    for i in range(n_seed):
        mask[y[i], x[i]] |= _CR
    n, i = n_seed, 0
    while i < n:
        for yy in range(max(y[i] - 1, 1), min(y[i] + 2, ny - 1)):
            for xx in range(max(x[i] - 1, 1), min(x[i] + 2, nx - 1)):
                if mask[yy, xx] & (skip | _CR):
                    continue
                v = np.float64(image[yy, xx])
                if v <= 0 or v * v < min_snr * min_snr * variance[yy, xx]:
                    continue
                sharp = _sharpness(image, variance, mask, skip, yy, xx, axis, diagonal, ratio_error)
                if sharp > min_sharpness and n < y.size:
                    mask[yy, xx] |= _CR
                    y[n], x[n] = yy, xx
                    n += 1
        i += 1
    return n


@kernel
def grow_marks(mask: UInt16, keep: np.uint16, y: Int32, x: Int32, n: int) -> int:
    """Mark the neighbours of the first n pixels CR, except those with a bit of ``keep``; returns the new count."""
    ny, nx = mask.shape
    total = n
    for i in range(n):
        for yy in range(max(y[i] - 1, 0), min(y[i] + 2, ny)):
            for xx in range(max(x[i] - 1, 0), min(x[i] + 2, nx)):
                if not mask[yy, xx] & (keep | _CR) and total < y.size:
                    mask[yy, xx] |= _CR
                    y[total], x[total] = yy, xx
                    total += 1
    return total


@kernel
def collect_masked(mask: UInt16, wanted: np.uint16, unwanted: np.uint16, out_y: Int32, out_x: Int32, start: int) -> int:
    """Append pixels with a bit of ``wanted`` and none of ``unwanted`` from place ``start``; returns the new count."""
    n = start
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            if mask[y, x] & wanted and not mask[y, x] & unwanted and n < out_y.size:
                out_y[n], out_x[n] = y, x
                n += 1
    return n


@kernel
def interpolate_pixels(
    image: Float32, variance: Float32, mask: UInt16, unusable: np.uint16, y: Int32, x: Int32, n: int, sigma: float,
    max_reach: int,
) -> int:  # fmt: skip
    """Replace pixels by the Gaussian-weighted mean of usable neighbours; sets INTERPOLATED.

    The window grows until it holds three usable pixels, up to ``max_reach``; with none the pixel becomes 0 (the sky).
    Usable pixels are those without a bit of ``unusable``; they never change here, so order does not matter.
    Returns how many had no usable neighbour.
    """
    ny, nx = image.shape
    n_empty = 0
    for i in range(n):
        total, signal, spread, used = 0.0, 0.0, 0.0, 0
        reach = 1
        while used < 3 and reach < max_reach:
            reach = min(reach + 1, max_reach)
            total, signal, spread, used = 0.0, 0.0, 0.0, 0
            for yy in range(max(y[i] - reach, 0), min(y[i] + reach + 1, ny)):
                for xx in range(max(x[i] - reach, 0), min(x[i] + reach + 1, nx)):
                    if mask[yy, xx] & unusable:
                        continue
                    w = np.exp(-0.5 * ((yy - y[i]) ** 2 + (xx - x[i]) ** 2) / (sigma * sigma))
                    total += w
                    signal += w * image[yy, xx]
                    spread += w * variance[yy, xx]
                    used += 1
        if total > 0:
            image[y[i], x[i]] = signal / total
            variance[y[i], x[i]] = spread / total
        else:
            image[y[i], x[i]] = 0.0
            n_empty += 1
        mask[y[i], x[i]] |= _INTERPOLATED
    return n_empty
