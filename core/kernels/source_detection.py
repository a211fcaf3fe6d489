"""Peaks of a frame: separable matched filter, local maxima, shapes and apertures."""

import numpy as np
from numpy.typing import NDArray

from core.flags import Mask
from core.kernels.decorator import fast_kernel, kernel

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
UInt16 = NDArray[np.uint16]

_NODATA = np.uint16(Mask.NODATA)
_NO_BITS = np.uint16(0)


@fast_kernel
def smooth_separable(image: Float32, taps: Float32, out: Float32) -> None:
    """Convolve with the symmetric separable kernel of half profile ``taps`` (center first); zero beyond the edges.

    ``image``, ``out`` : (ny, nx); ``taps`` (h + 1,). One ring of rows as scratch.
    """
    ny, nx = image.shape
    h = taps.size - 1
    n_ring = 2 * h + 1
    ring = np.zeros((n_ring, nx), np.float32)
    padded = np.zeros(nx + 2 * h, np.float32)
    for y in range(ny + h):
        row = ring[y % n_ring]
        if y < ny:
            padded[h : h + nx] = image[y]
            middle = padded[h : h + nx]
            t = taps[0]
            for x in range(nx):
                row[x] = t * middle[x]
            for k in range(1, h + 1):
                left, right = padded[h - k : h - k + nx], padded[h + k : h + k + nx]
                t = taps[k]
                for x in range(nx):
                    row[x] += t * (left[x] + right[x])
        else:
            row[:] = np.float32(0.0)
        center = y - h
        if center < 0:
            continue
        target = out[center]
        middle = ring[center % n_ring]
        t = taps[0]
        for x in range(nx):
            target[x] = t * middle[x]
        for k in range(1, h + 1):
            # rows above the first one are those still zero in the ring
            up, down = ring[(center - k) % n_ring], ring[(center + k) % n_ring]
            t = taps[k]
            for x in range(nx):
                target[x] += t * (up[x] + down[x])


@kernel
def find_peaks(
    smooth: Float32, variance: Float32, mask: UInt16, taps: Float32, least: float, min_snr: float, ring: int,
    min_prominence: float, out_y: Int32, out_x: Int32, out_snr: Float32,
) -> int:  # fmt: skip
    """Local maxima (3 x 3) of a smoothed frame above ``min_snr`` that stand out of their surroundings.

    Parameters
    ----------
    smooth : (ny, nx) frame convolved with ``taps``.    variance, mask : those of the frame.
    least : no pixel below it is looked at.    ring : radius [pixel] of the surroundings.
    min_prominence : smallest fraction of the peak that must lie above them, besides half of ``min_snr`` in noise.
    out_y, out_x, out_snr : (n,) outputs in scan order.

    Returns the number of peaks, at most n.
    """
    ny, nx = smooth.shape
    h = taps.size - 1
    diagonal = int(ring * 0.7071 + 0.5)
    n = 0
    for y in range(1, ny - 1):
        for x in range(1, nx - 1):
            v = smooth[y, x]
            if v < least or mask[y, x] & _NODATA:
                continue
            if not (v > smooth[y, x - 1] and v >= smooth[y, x + 1]):
                continue
            if not (v > smooth[y - 1, x] and v > smooth[y - 1, x - 1] and v > smooth[y - 1, x + 1]):
                continue
            if not (v >= smooth[y + 1, x] and v >= smooth[y + 1, x - 1] and v >= smooth[y + 1, x + 1]):
                continue
            noise = 0.0
            for dy in range(-h, h + 1):
                for dx in range(-h, h + 1):
                    yy, xx = min(max(y + dy, 0), ny - 1), min(max(x + dx, 0), nx - 1)
                    noise += (taps[abs(dy)] * taps[abs(dx)]) ** 2 * variance[yy, xx]
            noise = np.sqrt(noise)
            if v < min_snr * noise:
                continue
            around, m = 0.0, 0
            for i in range(8):
                step = diagonal if i % 2 else ring
                yy = y + step * (1 if 1 <= i <= 3 else (-1 if i >= 5 else 0))
                xx = x + step * (1 if i <= 1 or i == 7 else (-1 if 3 <= i <= 5 else 0))
                if 0 <= yy < ny and 0 <= xx < nx:
                    around += smooth[yy, xx]
                    m += 1
            around = max(around / max(m, 1), 0.0)
            if v - around < max(min_prominence * v, 0.5 * min_snr * noise):
                continue
            if n < out_y.size:
                out_y[n], out_x[n], out_snr[n] = y, x, v / noise
                n += 1
    return n


@kernel
def measure_shapes(
    image: Float32, variance: Float32, mask: UInt16, peak_y: Int32, peak_x: Int32, sigma: float, n_adapt: int,
    radius: float, out: Float64, bits: UInt16,
) -> None:  # fmt: skip
    """Windowed centroid, Gaussian-weighted moments (deweighted) and aperture flux of peaks.

    Parameters
    ----------
    image, variance, mask : (ny, nx).    peak_y, peak_x : (n,).
    sigma : width of the circular window [pixel].    n_adapt : times the window's width is matched to the object.
    radius : of the aperture [pixel]; its edge is soft over one pixel.
    out : (n, 8) x, y [pixel], ixx, iyy, ixy [pixel**2] (NaN where wider than any window), aperture flux, its variance,
        pixel value at the peak.
    bits : (n,) union of the mask within two pixels.
    """
    ny, nx = image.shape
    reach = int(3.2 * sigma + 1.5)
    wx = np.empty(2 * reach + 3)
    for i in range(peak_y.size):
        py, px = peak_y[i], peak_x[i]
        cx, cy, s2 = np.float64(px), np.float64(py), sigma * sigma
        ixx = iyy = ixy = np.nan
        for step in range(4 + n_adapt):
            y0, y1 = max(py - reach, 0), min(py + reach + 1, ny)
            x0, x1 = max(px - reach, 0), min(px + reach + 1, nx)
            for x in range(x0, x1):
                wx[x - x0] = np.exp(-0.5 * (x - cx) ** 2 / s2)
            s, sx, sy, sxx, syy, sxy = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            for y in range(y0, y1):
                dy = y - cy
                wy = np.exp(-0.5 * dy * dy / s2)
                r, rx, rxx = 0.0, 0.0, 0.0
                for x in range(x0, x1):
                    dx = x - cx
                    v = wx[x - x0] * image[y, x]
                    r += v
                    rx += v * dx
                    rxx += v * dx * dx
                s += wy * r
                sx += wy * rx
                sy += wy * dy * r
                sxx += wy * rxx
                syy += wy * dy * dy * r
                sxy += wy * dy * rx
            if not s > 0:
                break
            a, b, c = sxx / s - (sx / s) ** 2, syy / s - (sy / s) ** 2, sxy / s - sx * sy / (s * s)
            step_x, step_y = 2 * sx / s, 2 * sy / s
            # inverse of the measured minus that of the window
            d = a * b - c * c
            u, v2, w = b / d - 1 / s2, a / d - 1 / s2, -c / d
            e = u * v2 - w * w
            if d > 0 and e > 0 and u > 0:
                ixx, iyy, ixy = v2 / e, u / e, -w / e
            else:
                ixx = iyy = ixy = np.nan
            if abs(cx + step_x - px) > 2.5 or abs(cy + step_y - py) > 2.5:
                break
            cx += step_x
            cy += step_y
            if step >= 3 and step < 3 + n_adapt and e > 0 and d > 0:
                s2 = min(max(np.sqrt(e) / e, 0.4), (reach / 2.0) ** 2)
            if step >= 1 and n_adapt == 0 and abs(step_x) + abs(step_y) < 0.01:
                break
        out[i, 0], out[i, 1], out[i, 2], out[i, 3], out[i, 4] = cx, cy, ixx, iyy, ixy
        _aperture(image, variance, cx, cy, radius, out[i])
        out[i, 7] = image[py, px]
        found = _NO_BITS
        for y in range(max(py - 2, 0), min(py + 3, ny)):
            for x in range(max(px - 2, 0), min(px + 3, nx)):
                found |= mask[y, x]
        bits[i] = found


@kernel
def _aperture(image: Float32, variance: Float32, cx: float, cy: float, radius: float, out: Float64) -> None:
    ny, nx = image.shape
    flux, spread = 0.0, 0.0
    for y in range(max(int(cy - radius - 1), 0), min(int(cy + radius + 2), ny)):
        for x in range(max(int(cx - radius - 1), 0), min(int(cx + radius + 2), nx)):
            inside = radius + 0.5 - np.sqrt((x - cx) ** 2 + (y - cy) ** 2)
            if inside > 0:
                inside = min(inside, 1.0)
                flux += inside * image[y, x]
                spread += inside * inside * variance[y, x]
    out[5], out[6] = flux, spread


@kernel
def bright_maxima(
    image: Float32, variance: Float32, mask: UInt16, skip: np.uint16, least: float, min_snr: float, margin: int,
    step: int, out_y: Int32, out_x: Int32,
) -> int:  # fmt: skip
    """Pixels that are maxima of their 5 x 5 and above ``min_snr``, unmasked; every ``step``-th stripe of 64 rows.

    No pixel below ``least``, which must be positive, is looked at.
    Returns how many, at most the size of the outputs.
    """
    ny, nx = image.shape
    square = np.float32(min_snr * min_snr)
    floor = np.float32(least)
    n = 0
    for y in range(margin, ny - margin):
        if (y // 64) % step:
            continue
        for x in range(margin, nx - margin):
            v = image[y, x]
            if v < floor or v * v < square * variance[y, x]:
                continue
            is_peak = True
            found = _NO_BITS
            for yy in range(y - 2, y + 3):
                for xx in range(x - 2, x + 3):
                    is_peak = is_peak and image[yy, xx] <= v
                    found |= mask[yy, xx]
            if is_peak and not found & skip and n < out_y.size:
                out_y[n], out_x[n] = y, x
                n += 1
    return n
