"""Kernels that put sources on a canvas. Own code: nothing here is shared with the pipeline under test."""

from collections.abc import Callable
from typing import TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

from benchmarks.simulator.psf import CORE_HALF, WING_MAX, WING_STEP, PsfBasis

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
F = TypeVar("F", bound=Callable[..., object])


def jit(function: F) -> F:
    """Compile with numba, cached on disk; typed as identity."""
    return numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})(function)  # type: ignore[no-any-return]


@jit
def _draw_cores(
    canvas: Float32,
    images: Float32,
    weights: Float32,
    x: Float64,
    y: Float64,
    flux: Float64,
    half: Int64,
    start: Int64,
    dx: Float32,
    dy: Float32,
) -> None:
    """Add sources to the canvas. Source i is ``start[i+1] - start[i]`` points of equal flux at offsets (dx, dy).

    The PSF is combined once a source; each point is sixteen contiguous fused adds (cubic convolution between the
    oversampled samples: at a fixed subpixel phase the taps are the same for all pixels).
    """
    s, n = images.shape[1], images.shape[3]
    psf = np.empty((s, s, n, n), np.float32)
    wx, wy = np.empty(4, np.float32), np.empty(4, np.float32)
    for i in range(x.size):
        h = half[i]
        lo, hi = CORE_HALF - h - 3, CORE_HALF + h + 3
        lo, hi = max(lo, 0), min(hi, n)
        psf[:, :, lo:hi, lo:hi] = 0
        for b in range(images.shape[0]):
            w = weights[i, b]
            if w == 0:
                continue
            for py in range(s):
                for px in range(s):
                    for ky in range(lo, hi):
                        combined, one = psf[py, px, ky, lo:hi], images[b, py, px, ky, lo:hi]
                        for kx in range(combined.size):
                            combined[kx] += w * one[kx]
        points = start[i + 1] - start[i]
        for p in range(start[i], start[i + 1]):
            xc, yc = x[i] + dx[p], y[i] + dy[p]
            if not (-h - 2 < xc < canvas.shape[1] + h + 2 and -h - 2 < yc < canvas.shape[0] + h + 2):
                continue
            ix, iy = int(np.floor(xc)), int(np.floor(yc))
            gx, gy = s * (xc - ix), s * (yc - iy)
            mx, my = int(np.ceil(gx)), int(np.ceil(gy))
            for axis in range(2):
                t = (mx - gx) if axis == 0 else (my - gy)
                w4 = wx if axis == 0 else wy
                w4[0] = -0.5 * t + t * t - 0.5 * t**3
                w4[1] = 1 - 2.5 * t * t + 1.5 * t**3
                w4[2] = 0.5 * t + 2 * t * t - 1.5 * t**3
                w4[3] = -0.5 * t * t + 0.5 * t**3
            f = flux[i] / points
            j0, j1 = max(iy - h, 0), min(iy + h + 2, canvas.shape[0])
            i0, i1 = max(ix - h, 0), min(ix + h + 2, canvas.shape[1])
            for a in range(4):
                oy = a - 1 - my
                qy = oy // s
                for c in range(4):
                    ox = c - 1 - mx
                    qx = ox // s
                    w = np.float32(f * wy[a] * wx[c])
                    if w == 0:
                        continue
                    part = psf[oy - qy * s, ox - qx * s]
                    shift = CORE_HALF + qx - ix
                    for j in range(j0, j1):
                        out = canvas[j, i0:i1]
                        row = part[j - iy + CORE_HALF + qy, i0 + shift : i1 + shift]
                        for k in range(out.size):
                            out[k] += w * row[k]


@jit
def _draw_wings(canvas: Float32, x: Float64, y: Float64, flux: Float64, reach: Float64, wing: Float64) -> None:
    """Add the radial wings of bright sources out to ``reach`` pixels."""
    for i in range(x.size):
        r_max = reach[i]
        j0, j1 = max(int(np.floor(y[i] - r_max)), 0), min(int(np.ceil(y[i] + r_max)) + 1, canvas.shape[0])
        i0, i1 = max(int(np.floor(x[i] - r_max)), 0), min(int(np.ceil(x[i] + r_max)) + 1, canvas.shape[1])
        for j in range(j0, j1):
            dy2 = (j - y[i]) ** 2
            for k in range(i0, i1):
                r = np.sqrt(dy2 + (k - x[i]) ** 2)
                if r < r_max:
                    u = r / WING_STEP
                    m = int(u)
                    canvas[j, k] += np.float32(flux[i] * (wing[m] + (u - m) * (wing[m + 1] - wing[m])))


def draw(
    canvas: Float32,
    basis: PsfBasis,
    weights: Float32,
    x: Float64,
    y: Float64,
    flux: Float64,
    noise: float,
    points: tuple[Int64, Float32, Float32] | None = None,
) -> None:
    """Add n sources of ``flux`` [canvas unit] to ``canvas``.

    A core is cut where it falls below 1 % of ``noise`` a pixel, a wing at 2 %. ``points`` = (start (n + 1,), dx, dy)
    spreads source i over points of equal flux (galaxies, trails); without it all are stars.
    """
    if x.size == 0:
        return
    if points is None:
        points = (np.arange(x.size + 1), np.zeros(x.size, np.float32), np.zeros(x.size, np.float32))
    radii = np.arange(basis.profile.size) * WING_STEP
    brightness = np.maximum(np.abs(flux), 1e-9)
    falling = np.minimum.accumulate(basis.profile)
    depth = -np.log(falling + 1e-30)
    half = np.clip(np.ceil(np.interp(np.log(brightness / (0.01 * noise)), depth, radii)), 6, CORE_HALF - 3)
    half = half.astype(np.int64)
    reach = np.interp(np.log(brightness / (0.02 * noise)), depth, radii)
    _draw_cores(canvas, basis.images, weights, x, y, flux, half, *points)
    far = reach > CORE_HALF - 10
    if far.any():
        cut = np.clip(reach[far], 0, WING_MAX - 2 * WING_STEP)
        _draw_wings(canvas, x[far], y[far], flux[far], cut, basis.wing)


def psf_images(
    basis: PsfBasis,
    weights: Float32,
    x: Float64,
    y: Float64,
    size: int,
    points: tuple[Int64, Float32, Float32] | None = None,
) -> Float32:
    """(n, size, size) images of unit flux at subpixel positions, in a stamp around their nearest pixel.

    ``points`` as for :func:`draw`.
    """
    out = np.zeros((x.size, size, size), np.float32)
    center, one = size // 2, np.array([1.0])
    start, dx, dy = points or (np.arange(x.size + 1), np.zeros(x.size, np.float32), np.zeros(x.size, np.float32))
    for i in range(x.size):
        position = np.array([center + x[i] - np.floor(x[i] + 0.5)]), np.array([center + y[i] - np.floor(y[i] + 0.5)])
        own = slice(start[i], start[i + 1])
        bounds = np.array([0, start[i + 1] - start[i]])
        half = np.array([CORE_HALF - 3])
        _draw_cores(out[i], basis.images, weights[i : i + 1], *position, one, half, bounds, dx[own], dy[own])
        _draw_wings(out[i], *position, one, np.array([1.5 * size]), basis.wing)
    return out
