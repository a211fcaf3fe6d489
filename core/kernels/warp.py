"""Resampling of a template to the science grid by a windowed sinc, at any rotation.

Reference: Kaiser's window as in Kaiser & Schafer 1980, IEEE Trans. ASSP 28, 105; Lanczos' as in Turkowski 1990,
Graphics Gems, p. 147. Weights are normalized to unit sum.
"""

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from core.flags import Mask
from core.kernels.decorator import fast_kernel, kernel

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
MaskArray = NDArray[np.uint16]

N_PHASES: Final = 512
MAX_ORDER: Final = 4
_KAISER_BETA: Final = (0.0, 2.0, 3.5, 5.0, 6.5)
"""By the order. Least change of a PSF of 3-4 pixels' FWHM with its place between the pixels."""
CELL: Final = 32
"""Side of the cells in which the mapping is bilinear [pixel]."""

_ONE: Final = float(2**32)
_NODATA: Final = int(Mask.NODATA)
_SAT: Final = int(Mask.SAT)
_SAT_TEMPLATE: Final = int(Mask.SAT_TEMPLATE)
_HIGH_VARIANCE: Final = int(Mask.HIGH_VARIANCE)
_U1: Final = np.uint64(1)
_U2: Final = np.uint64(2)
_U3: Final = np.uint64(3)
_U4: Final = np.uint64(4)
_U5: Final = np.uint64(5)
_U6: Final = np.uint64(6)
_U7: Final = np.uint64(7)
_HALF: Final = np.uint64(32)
_PHASE_SHIFT: Final = np.uint64(23)
_PHASE_MASK: Final = np.uint64(N_PHASES - 1)
_MAX_LOST_WEIGHT: Final = 0.05
"""A pixel that loses more of its weight to pixels without data has no data itself."""


def sinc_table(order: int = 3, window: Literal["kaiser", "lanczos"] = "kaiser") -> Float32:
    """(N_PHASES, 8) float32 weights of the taps 1 - order .. order, then zeros, for ``(i + 0.5) / N_PHASES``."""
    if not 1 <= order <= MAX_ORDER:
        raise ValueError(f"a sinc of order {order}")
    fraction = (np.arange(N_PHASES) + 0.5) / N_PHASES
    distance = fraction[:, None] - (np.arange(2 * order) - order + 1)
    place = np.clip(distance / order, -1, 1)
    shape = np.sinc(place) if window == "lanczos" else np.i0(_KAISER_BETA[order] * np.sqrt(1 - place**2))
    weight = np.sinc(distance) * shape
    table = np.zeros((N_PHASES, 2 * MAX_ORDER), np.float32)
    table[:, : 2 * order] = weight / weight.sum(axis=1, keepdims=True)
    return table


@kernel
def block_mask(mask: MaskArray, blocks: MaskArray) -> None:
    """Union of the mask bits of each 32-pixel block: ``blocks`` is (ceil(ny/32), ceil(nx/32))."""
    ny, nx = mask.shape
    blocks[:] = 0
    for y in range(ny):
        row = mask[y]
        for bx in range(blocks.shape[1]):
            union = np.uint16(0)
            for x in range(bx * CELL, min((bx + 1) * CELL, nx)):
                union |= row[x]
            blocks[y // CELL, bx] |= union


@fast_kernel
def _warp_cell(
    image: Float32,
    variance: Float32,
    grid_x: Float64,
    grid_y: Float64,
    table: Float32,
    by: int,
    bx: int,
    area: float,
    out_image: Float32,
    out_variance: Float32,
) -> None:
    """One cell wholly inside good template pixels, order 3: no checks."""
    ny, nx = out_image.shape
    flat = image.ravel()
    flat_variance = variance.ravel()
    stride = np.uint64(image.shape[1])
    weights = table.ravel()
    y0, x0 = by * CELL, bx * CELL
    y1, x1 = min(y0 + CELL, ny), min(x0 + CELL, nx)
    scale = np.float32(area)
    inverse = np.float32(1.0 / N_PHASES)
    for y in range(y0, y1):
        f = (y - y0) / CELL
        xa = grid_x[by, bx] * (1 - f) + grid_x[by + 1, bx] * f
        xb = (grid_x[by, bx + 1] * (1 - f) + grid_x[by + 1, bx + 1] * f - xa) / CELL
        ya = grid_y[by, bx] * (1 - f) + grid_y[by + 1, bx] * f
        yb = (grid_y[by, bx + 1] * (1 - f) + grid_y[by + 1, bx + 1] * f - ya) / CELL
        # Fixed point, 32 fractional bits: integer part and phase by shifts; unsigned, or numba checks wraparound.
        fx, fy = np.int64(xa * _ONE), np.int64(ya * _ONE)
        step_x, step_y = np.int64(xb * _ONE), np.int64(yb * _ONE)
        row, row_variance = out_image[y], out_variance[y]
        for x in range(x0, x1):
            tx, ty = np.uint64(fx + (x - x0) * step_x), np.uint64(fy + (x - x0) * step_y)
            phase_x, phase_y = (tx >> _PHASE_SHIFT) & _PHASE_MASK, (ty >> _PHASE_SHIFT) & _PHASE_MASK
            i, j = phase_x << _U3, phase_y << _U3
            p0 = ((ty >> _HALF) - _U2) * stride + (tx >> _HALF) - _U2
            p1 = p0 + stride
            p2 = p1 + stride
            p3 = p2 + stride
            p4 = p3 + stride
            p5 = p4 + stride
            w0, w1, w2 = weights[i], weights[i + _U1], weights[i + _U2]
            w3, w4, w5 = weights[i + _U3], weights[i + _U4], weights[i + _U5]
            r0 = (w0 * flat[p0] + w1 * flat[p0 + _U1]) + (w2 * flat[p0 + _U2] + w3 * flat[p0 + _U3])
            r0 += w4 * flat[p0 + _U4] + w5 * flat[p0 + _U5]
            r1 = (w0 * flat[p1] + w1 * flat[p1 + _U1]) + (w2 * flat[p1 + _U2] + w3 * flat[p1 + _U3])
            r1 += w4 * flat[p1 + _U4] + w5 * flat[p1 + _U5]
            r2 = (w0 * flat[p2] + w1 * flat[p2 + _U1]) + (w2 * flat[p2 + _U2] + w3 * flat[p2 + _U3])
            r2 += w4 * flat[p2 + _U4] + w5 * flat[p2 + _U5]
            r3 = (w0 * flat[p3] + w1 * flat[p3 + _U1]) + (w2 * flat[p3 + _U2] + w3 * flat[p3 + _U3])
            r3 += w4 * flat[p3 + _U4] + w5 * flat[p3 + _U5]
            r4 = (w0 * flat[p4] + w1 * flat[p4 + _U1]) + (w2 * flat[p4 + _U2] + w3 * flat[p4 + _U3])
            r4 += w4 * flat[p4 + _U4] + w5 * flat[p4 + _U5]
            r5 = (w0 * flat[p5] + w1 * flat[p5 + _U1]) + (w2 * flat[p5 + _U2] + w3 * flat[p5 + _U3])
            r5 += w4 * flat[p5 + _U4] + w5 * flat[p5 + _U5]
            value = (weights[j] * r0 + weights[j + _U1] * r1) + (weights[j + _U2] * r2 + weights[j + _U3] * r3)
            row[x] = scale * (value + (weights[j + _U4] * r4 + weights[j + _U5] * r5))
            gx, gy = np.float32(np.int64(phase_x)) * inverse, np.float32(np.int64(phase_y)) * inverse
            v0 = flat_variance[p2 + _U2] * (1 - gx) + flat_variance[p2 + _U3] * gx
            v1 = flat_variance[p3 + _U2] * (1 - gx) + flat_variance[p3 + _U3] * gx
            row_variance[x] = scale * (v0 * (1 - gy) + v1 * gy)


@fast_kernel
def _row_4(flat: Float32, p: np.uint64, weights: Float32, i: np.uint64) -> float:
    """Eight taps of one template row from pixel ``p``, with the weights from ``i``."""
    first = weights[i] * flat[p] + weights[i + _U1] * flat[p + _U1]
    first += weights[i + _U2] * flat[p + _U2] + weights[i + _U3] * flat[p + _U3]
    last = weights[i + _U4] * flat[p + _U4] + weights[i + _U5] * flat[p + _U5]
    last += weights[i + _U6] * flat[p + _U6] + weights[i + _U7] * flat[p + _U7]
    return first + last  # type: ignore[no-any-return]


@fast_kernel
def _warp_cell_4(
    image: Float32,
    variance: Float32,
    grid_x: Float64,
    grid_y: Float64,
    table: Float32,
    by: int,
    bx: int,
    area: float,
    out_image: Float32,
    out_variance: Float32,
) -> None:
    """As :func:`_warp_cell`, order 4."""
    ny, nx = out_image.shape
    flat = image.ravel()
    flat_variance = variance.ravel()
    stride = np.uint64(image.shape[1])
    weights = table.ravel()
    y0, x0 = by * CELL, bx * CELL
    y1, x1 = min(y0 + CELL, ny), min(x0 + CELL, nx)
    scale = np.float32(area)
    inverse = np.float32(1.0 / N_PHASES)
    for y in range(y0, y1):
        f = (y - y0) / CELL
        xa = grid_x[by, bx] * (1 - f) + grid_x[by + 1, bx] * f
        xb = (grid_x[by, bx + 1] * (1 - f) + grid_x[by + 1, bx + 1] * f - xa) / CELL
        ya = grid_y[by, bx] * (1 - f) + grid_y[by + 1, bx] * f
        yb = (grid_y[by, bx + 1] * (1 - f) + grid_y[by + 1, bx + 1] * f - ya) / CELL
        fx, fy = np.int64(xa * _ONE), np.int64(ya * _ONE)
        step_x, step_y = np.int64(xb * _ONE), np.int64(yb * _ONE)
        row, row_variance = out_image[y], out_variance[y]
        for x in range(x0, x1):
            tx, ty = np.uint64(fx + (x - x0) * step_x), np.uint64(fy + (x - x0) * step_y)
            phase_x, phase_y = (tx >> _PHASE_SHIFT) & _PHASE_MASK, (ty >> _PHASE_SHIFT) & _PHASE_MASK
            i, j = phase_x << _U3, phase_y << _U3
            p0 = ((ty >> _HALF) - _U3) * stride + (tx >> _HALF) - _U3
            p1 = p0 + stride
            p2 = p1 + stride
            p3 = p2 + stride
            p4 = p3 + stride
            p5 = p4 + stride
            p6 = p5 + stride
            value = weights[j] * _row_4(flat, p0, weights, i) + weights[j + _U1] * _row_4(flat, p1, weights, i)
            value += weights[j + _U2] * _row_4(flat, p2, weights, i) + weights[j + _U3] * _row_4(flat, p3, weights, i)
            value += weights[j + _U4] * _row_4(flat, p4, weights, i) + weights[j + _U5] * _row_4(flat, p5, weights, i)
            value += weights[j + _U6] * _row_4(flat, p6, weights, i)
            row[x] = scale * (value + weights[j + _U7] * _row_4(flat, p6 + stride, weights, i))
            gx, gy = np.float32(np.int64(phase_x)) * inverse, np.float32(np.int64(phase_y)) * inverse
            v0 = flat_variance[p3 + _U3] * (1 - gx) + flat_variance[p3 + _U4] * gx
            v1 = flat_variance[p4 + _U3] * (1 - gx) + flat_variance[p4 + _U4] * gx
            row_variance[x] = scale * (v0 * (1 - gy) + v1 * gy)


@kernel
def _warp_pixel(
    image: Float32, variance: Float32, mask: MaskArray, table: Float32, order: int, tx: float, ty: float, area: float
) -> tuple[float, float, int]:
    """One pixel with bounds and mask checks: (value, variance, mask bits)."""
    ny, nx = image.shape
    ix, iy = int(np.floor(tx)), int(np.floor(ty))
    wx, wy = table[int((tx - ix) * N_PHASES)], table[int((ty - iy) * N_PHASES)]
    total = value = lost = v = vw = 0.0
    bits = 0
    for j in range(2 * order):
        for i in range(2 * order):
            y, x = iy + 1 - order + j, ix + 1 - order + i
            weight = wy[j] * wx[i]
            if y < 0 or x < 0 or y >= ny or x >= nx or mask[y, x] & _NODATA:
                lost += abs(weight)
                continue
            total += weight
            value += weight * image[y, x]
            if -1 <= y - iy <= 2 and -1 <= x - ix <= 2:
                bits |= mask[y, x]
            if 0 <= y - iy <= 1 and 0 <= x - ix <= 1:
                v += weight * variance[y, x]
                vw += weight
    if lost > _MAX_LOST_WEIGHT or total < 0.5 or vw <= 0:
        return 0.0, np.inf, _NODATA
    return area * value / total, area * v / vw, bits


@kernel
def _warp_bits(mask: MaskArray, grid_x: Float64, grid_y: Float64, by: int, bx: int, out_mask: MaskArray) -> None:
    """Mask bits of one cell wholly inside the template: as :func:`_warp_pixel` has them."""
    ny, nx = out_mask.shape
    y0, x0 = by * CELL, bx * CELL
    for y in range(y0, min(y0 + CELL, ny)):
        f = (y - y0) / CELL
        xa = grid_x[by, bx] * (1 - f) + grid_x[by + 1, bx] * f
        xb = grid_x[by, bx + 1] * (1 - f) + grid_x[by + 1, bx + 1] * f
        ya = grid_y[by, bx] * (1 - f) + grid_y[by + 1, bx] * f
        yb = grid_y[by, bx + 1] * (1 - f) + grid_y[by + 1, bx + 1] * f
        for x in range(x0, min(x0 + CELL, nx)):
            g = (x - x0) / CELL
            ix, iy = int(np.floor(xa * (1 - g) + xb * g)), int(np.floor(ya * (1 - g) + yb * g))
            bits = 0
            for j in range(iy - 1, iy + 3):
                for i in range(ix - 1, ix + 3):
                    bits |= mask[j, i]
            out_mask[y, x] = (bits & ~_SAT) | (_SAT_TEMPLATE if bits & _SAT else 0)


@kernel
def warp_template_pixels(
    image: Float32,
    variance: Float32,
    mask: MaskArray,
    blocks: MaskArray,
    grid_x: Float64,
    grid_y: Float64,
    table: Float32,
    order: int,
    first: int,
    last: int,
    out_image: Float32,
    out_variance: Float32,
    out_mask: MaskArray,
) -> None:
    """Resample image, variance and mask; fluxes are conserved by the local ratio of pixel areas.

    The variance is that of the noise at low spatial frequency (bilinear, times the area ratio): resampling correlates
    neighbours but keeps the power that a PSF-sized filter sees, which a sum of squared weights would miss by the
    covariance. Mask bits come from the 4x4 central taps, that is weights above about 2 %.

    Parameters
    ----------
    image, variance, mask : (my, mx) template.    blocks : output of :func:`block_mask`.
    grid_x, grid_y : (n_cy + 1, n_cx + 1) float64: template position of the science pixels (32 j, 32 i) [pixel].
    table : output of :func:`sinc_table` for ``order``, 3 or 4.
    first, last : rows of the grid's cells, ``last`` not among them.
    out_image, out_variance, out_mask : (ny, nx); 0, inf and NODATA where the template has no data.
    """
    ny, nx = out_image.shape
    my, mx = image.shape
    for by in range(first, last):
        for bx in range(grid_x.shape[1] - 1):
            u0, u1 = grid_x[by, bx], grid_x[by, bx + 1]
            u2, u3 = grid_x[by + 1, bx], grid_x[by + 1, bx + 1]
            v0, v1 = grid_y[by, bx], grid_y[by, bx + 1]
            v2, v3 = grid_y[by + 1, bx], grid_y[by + 1, bx + 1]
            area = abs((u1 - u0) * (v2 - v0) - (u2 - u0) * (v1 - v0)) / (CELL * CELL)
            left, right = int(min(u0, u1, u2, u3)) - order, int(max(u0, u1, u2, u3)) + order + 1
            low, high = int(min(v0, v1, v2, v3)) - order, int(max(v0, v1, v2, v3)) + order + 1
            is_inside = left >= 0 and low >= 0 and right < mx and high < my
            union = 0
            if is_inside:
                for j in range(low // CELL, high // CELL + 1):
                    for i in range(left // CELL, right // CELL + 1):
                        union |= blocks[j, i]
            y0, x0 = by * CELL, bx * CELL
            y1, x1 = min(y0 + CELL, ny), min(x0 + CELL, nx)
            if is_inside and union & _NODATA == 0:
                if order == 3:
                    _warp_cell(image, variance, grid_x, grid_y, table, by, bx, area, out_image, out_variance)
                else:
                    _warp_cell_4(image, variance, grid_x, grid_y, table, by, bx, area, out_image, out_variance)
                if union == 0:
                    out_mask[y0:y1, x0:x1] = 0
                else:
                    _warp_bits(mask, grid_x, grid_y, by, bx, out_mask)
                continue
            for y in range(y0, y1):
                f = (y - y0) / CELL
                for x in range(x0, x1):
                    g = (x - x0) / CELL
                    tx = (u0 * (1 - f) + u2 * f) * (1 - g) + (u1 * (1 - f) + u3 * f) * g
                    ty = (v0 * (1 - f) + v2 * f) * (1 - g) + (v1 * (1 - f) + v3 * f) * g
                    value, v, bits = _warp_pixel(image, variance, mask, table, order, tx, ty, area)
                    out_image[y, x], out_variance[y, x] = value, v
                    out_mask[y, x] = (bits & ~_SAT) | (_SAT_TEMPLATE if bits & _SAT else 0)


@kernel
def flag_high_variance(variance: Float32, mask: MaskArray, limit: float) -> int:
    """Set HIGH_VARIANCE above ``limit`` [nJy**2]; return the number of pixels with data."""
    ny, nx = variance.shape
    n = 0
    for y in range(ny):
        for x in range(nx):
            if not mask[y, x] & _NODATA:
                n += 1
                if variance[y, x] > limit:
                    mask[y, x] |= _HIGH_VARIANCE
    return n


@kernel
def warp_psf(psf: Float32, jacobian: Float64, table: Float32, order: int, out: Float32) -> None:
    """Resample (k, k) PSF images about their central pixels: ``out[n](u) = psf[n](jacobian[n] u)``, zero outside.

    Parameters
    ----------
    psf : (n, k, k).    jacobian : (n, 2, 2) template pixels (x, y) by science pixels (x, y).
    table, order : as in :func:`warp_template_pixels`.    out : (n, m, m).
    """
    n, k = psf.shape[0], psf.shape[1]
    m = out.shape[1]
    for s in range(n):
        total = 0.0
        for y in range(m):
            for x in range(m):
                u, v = x - m // 2, y - m // 2
                tx = jacobian[s, 0, 0] * u + jacobian[s, 0, 1] * v + k // 2
                ty = jacobian[s, 1, 0] * u + jacobian[s, 1, 1] * v + k // 2
                ix, iy = int(np.floor(tx)), int(np.floor(ty))
                wx, wy = table[int((tx - ix) * N_PHASES)], table[int((ty - iy) * N_PHASES)]
                value = 0.0
                for y_psf in range(max(0, iy + 1 - order), min(iy + order + 1, k)):
                    for x_psf in range(max(0, ix + 1 - order), min(ix + order + 1, k)):
                        value += wy[y_psf - iy - 1 + order] * wx[x_psf - ix - 1 + order] * psf[s, y_psf, x_psf]
                out[s, y, x] = value
                total += value
        for y in range(m):
            for x in range(m):
                out[s, y, x] /= total
