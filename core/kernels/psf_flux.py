"""Fluxes and positions of point sources by fitting a spatially varying PSF.

The model of a source at (x, y) is the PSF's polynomial there, shifted by the fraction of a pixel with a sinc under a
Kaiser window (Kaiser & Schafer 1980, IEEE Trans. ASSP 28, 105): Lanczos-4 weights on as many pixels change the flux of
a source between two pixels by 0.4 % at 0.55 arcsec and 0.2 % at 0.8, these by 0.03 %. Pixels are weighted equally: a
variance plane made from the same counts as the image is correlated with it, and weighting by its inverse would pull
every faint flux low. The errors do use the variance of each pixel.
"""

from math import ceil, cos, floor, log, pi, sin, sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.kernels.decorator import fast_kernel

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
UInt8 = NDArray[np.uint8]
UInt16 = NDArray[np.uint16]

HALF_TAPS: Final = 4
TAPS: Final = 2 * HALF_TAPS + 1
_REACH: Final = TAPS / 2
_KAISER_BETA: Final = 8.0
_KAISER_TERMS: Final = 14
"""Of the window's power series: the next is below 1e-9 of it."""

FIT_OK: Final = 0
FIT_EDGE: Final = 1
FIT_NO_GOOD_PIXELS: Final = 2
FIT_CENTROID_FAILED: Final = 4

# columns of fit_psf's output
X: Final = 0
Y: Final = 1
VAR_X: Final = 2
VAR_Y: Final = 3
COV_XY: Final = 4
FLUX: Final = 5
FLUX_ERR: Final = 6
CHI2: Final = 7
LN_LIKELIHOOD: Final = 8
N_DATA: Final = 9
GOOD_FRACTION: Final = 10
SPIKE: Final = 11
SPIKE_ERR: Final = 12
N_COLUMNS: Final = 13

_MAX_STEPS: Final = 20
_TOLERANCE_PIX: Final = 2e-3
_MAX_STEP_PIX: Final = 0.7


@fast_kernel
def _kaiser_sinc(t: float) -> tuple[float, float]:
    """Weight of a tap at distance ``t`` [pixel] from the point sought, not normalized, and its derivative by ``t``."""
    q = 0.25 * _KAISER_BETA**2 * (1.0 - (t / _REACH) ** 2)
    if q < 0.0:
        return 0.0, 0.0
    # I0(2 sqrt(q)) = sum of q**k / k!**2, and its derivative by q, by Horner's rule
    window, by_q = 1.0, 0.0
    for k in range(_KAISER_TERMS, 0, -1):
        by_q = (by_q * q + window) / (k * k)
        window = 1.0 + window * q / (k * k)
    by_t = -0.5 * by_q * _KAISER_BETA**2 * t / _REACH**2
    if abs(t) < 1e-6:
        return window, by_t
    a = pi * t
    sinc = sin(a) / a
    return sinc * window, (cos(a) - sinc) / t * window + sinc * by_t


@fast_kernel
def _shift_weights(shift: float, weights: Float32, gradients: Float32) -> None:
    """Weights of the taps -4..4 for a source moved by ``shift`` (at most half a pixel), and their derivatives by it."""
    total, slope = 0.0, 0.0
    for m in range(TAPS):
        w, by_t = _kaiser_sinc(-shift - (m - HALF_TAPS))
        weights[m] = w
        gradients[m] = -by_t
        total += w
        slope -= by_t
    for m in range(TAPS):
        gradients[m] = (gradients[m] - weights[m] * slope / total) / total
        weights[m] /= total


@fast_kernel
def _crop(coefficients: Float32, half: int, oy: int, ox: int, out: Float32) -> None:
    """Planes (n_terms, k, k) on squares of half size ``half`` whose middle is (oy, ox) off the planes'; zero beyond.

    ``out`` is (n_terms, (2 * half + 1)**2): squares in one line each, since short rows do not vectorize.
    """
    middle, wide = coefficients.shape[1] // 2, 2 * half + 1
    out[:, :] = np.float32(0.0)
    ylo, yhi = max(-half, -oy - middle), min(half, middle - oy)
    xlo, xhi = max(-half, -ox - middle), min(half, middle - ox)
    for t in range(coefficients.shape[0]):
        for y in range(ylo, yhi + 1):
            for x in range(xlo, xhi + 1):
                out[t, (y + half) * wide + x + half] = coefficients[t, y + oy + middle, x + ox + middle]


@fast_kernel
def _evaluate(cropped: Float32, sums: Float64, terms: Float64, out: Float32) -> None:
    """PSF at one place from its cropped planes, (wide * wide,); ``sums`` of the whole planes make its sum one."""
    norm = 0.0
    for t in range(terms.size):
        norm += terms[t] * sums[t]
    out[:] = np.float32(0.0)
    for t in range(terms.size):
        scale, plane = np.float32(terms[t] / norm), cropped[t]
        for i in range(out.size):
            out[i] += scale * plane[i]


@fast_kernel
def _shift_line(source: Float32, stride: int, w: Float32, n: int, out: Float32) -> None:
    """``out[i] = sum_m w[m] * source[i + m * stride]`` for i < n, all nine taps in one pass."""
    w0, w1, w2, w3, w4, w5, w6, w7, w8 = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8]
    s0, s1, s2, s3 = source, source[stride:], source[2 * stride :], source[3 * stride :]
    s4, s5, s6 = source[4 * stride :], source[5 * stride :], source[6 * stride :]
    s7, s8 = source[7 * stride :], source[8 * stride :]
    for i in range(n):
        near = w0 * s0[i] + w1 * s1[i] + w2 * s2[i] + w3 * s3[i]
        out[i] = near + w4 * s4[i] + w5 * s5[i] + w6 * s6[i] + w7 * s7[i] + w8 * s8[i]


@fast_kernel
def _shift(padded: Float32, half: int, wy: Float32, wx: Float32, rows: Float32, line: Float32, out: Float32) -> None:
    """Shift the evaluated PSF: a line of (2*half+9)**2 pixels to (2*half+1)**2; ``rows`` and ``line`` are scratch."""
    size, wide = 2 * half + 1, 2 * half + TAPS
    # along x over the whole line: the last eight columns mix rows and are dropped below
    _shift_line(padded, 1, wx, wide * wide - TAPS + 1, rows)
    _shift_line(rows, wide, wy, (size - 1) * wide + size, line)
    for y in range(size):
        for x in range(size):
            out[y, x] = line[y * wide + x]


@fast_kernel
def _is_good(variance: float, bits: int, bad: int) -> bool:
    return variance > 0.0 and (bits & bad) == 0


@fast_kernel
def _fixed_flux(
    image: Float32, variance: Float32, mask: UInt16, bad: int, model: Float32, y0: int, x0: int, row: Float64
) -> int:
    """Flux of a model whose first pixel is (y0, x0); returns the FIT bits."""
    n = model.shape[0]
    ny, nx = image.shape
    ylo, yhi, xlo, xhi = max(0, -y0), min(n, ny - y0), max(0, -x0), min(n, nx - x0)
    status = FIT_OK
    if ylo > 0 or xlo > 0 or yhi < n or xhi < n:
        status |= FIT_EDGE
    everything, pp, pd, ppv, count = 0.0, 0.0, 0.0, 0.0, 0
    for y in range(n):
        row_sum = np.float32(0.0)
        for x in range(n):
            row_sum += model[y, x] * model[y, x]
        everything += float(row_sum)
    bits = np.uint16(bad)
    zero, one = np.float32(0.0), np.float32(1.0)
    for y in range(ylo, yhi):
        # a pixel that does not count has weight zero: no branch, so the row vectorizes
        row_pp, row_pd, row_ppv, row_count = zero, zero, zero, zero
        line, noise, flags, psf = image[y0 + y], variance[y0 + y], mask[y0 + y], model[y]
        for x in range(xlo, xhi):
            v = noise[x0 + x]
            good = one if (v > zero) & ((flags[x0 + x] & bits) == 0) else zero
            p = psf[x] * good
            d = line[x0 + x] if good > zero else zero
            row_pp += p * p
            row_pd += p * d
            row_ppv += p * p * (v if good > zero else zero)
            row_count += good
        pp += float(row_pp)
        pd += float(row_pd)
        ppv += float(row_ppv)
        count += int(row_count)
    row[N_DATA] = count
    row[GOOD_FRACTION] = pp / everything
    if count == 0 or pp <= 0.0:
        return status | FIT_NO_GOOD_PIXELS
    flux = pd / pp
    row[FLUX] = flux
    row[FLUX_ERR] = sqrt(ppv) / pp
    return status


@fast_kernel
def _fit_quality(
    image: Float32, variance: Float32, mask: UInt16, bad: int, model: Float32, y0: int, x0: int, row: Float64
) -> None:
    """Chi-square and log likelihood of the model at the flux just fitted."""
    n = model.shape[0]
    ny, nx = image.shape
    flux, dd, log_v = row[FLUX], 0.0, 0.0
    for y in range(max(0, -y0), min(n, ny - y0)):
        for x in range(max(0, -x0), min(n, nx - x0)):
            v = variance[y0 + y, x0 + x]
            if _is_good(v, mask[y0 + y, x0 + x], bad):
                r = image[y0 + y, x0 + x] - flux * model[y, x]
                dd += r * r / v
                log_v += log(2 * pi * v)
    row[CHI2] = dd
    row[LN_LIKELIHOOD] = -0.5 * (dd + log_v)


@fast_kernel
def _invert3(a: Float64, out: Float64) -> bool:
    """Inverse of a symmetric 3 x 3 matrix by cofactors; false if singular."""
    c0 = a[1, 1] * a[2, 2] - a[1, 2] * a[2, 1]
    c1 = a[1, 2] * a[2, 0] - a[1, 0] * a[2, 2]
    c2 = a[1, 0] * a[2, 1] - a[1, 1] * a[2, 0]
    determinant = a[0, 0] * c0 + a[0, 1] * c1 + a[0, 2] * c2
    if not determinant > 1e-12 * a[0, 0] * a[1, 1] * a[2, 2]:
        return False
    out[0, 0], out[0, 1], out[0, 2] = c0, a[0, 2] * a[2, 1] - a[0, 1] * a[2, 2], a[0, 1] * a[1, 2] - a[0, 2] * a[1, 1]
    out[1, 0], out[1, 1], out[1, 2] = c1, a[0, 0] * a[2, 2] - a[0, 2] * a[2, 0], a[0, 2] * a[1, 0] - a[0, 0] * a[1, 2]
    out[2, 0], out[2, 1], out[2, 2] = c2, a[0, 1] * a[2, 0] - a[0, 0] * a[2, 1], a[0, 0] * a[1, 1] - a[0, 1] * a[1, 0]
    for i in range(3):
        for j in range(3):
            out[i, j] /= determinant
    return True


@fast_kernel
def _normal_equations(
    image: Float32, variance: Float32, mask: UInt16, bad: int, design: Float32, y0: int, x0: int,
    normal: Float64, noise: Float64, right: Float64,
) -> None:  # fmt: skip
    """Sums over good pixels of ``J J^T``, ``V J J^T`` and ``J D`` for the three planes J of ``design``."""
    n = design.shape[1]
    ny, nx = image.shape
    normal[:, :] = 0.0
    noise[:, :] = 0.0
    right[:] = 0.0
    for y in range(max(0, -y0), min(n, ny - y0)):
        for x in range(max(0, -x0), min(n, nx - x0)):
            v = variance[y0 + y, x0 + x]
            if not _is_good(v, mask[y0 + y, x0 + x], bad):
                continue
            d = image[y0 + y, x0 + x]
            for i in range(3):
                p = design[i, y, x]
                right[i] += p * d
                for j in range(i + 1):
                    q = p * design[j, y, x]
                    normal[i, j] += q
                    noise[i, j] += q * v
    for i in range(3):
        for j in range(i):
            normal[j, i] = normal[i, j]
            noise[j, i] = noise[i, j]


@fast_kernel
def _spike(
    image: Float32, variance: Float32, model: Float32, y0: int, x0: int, flux: float, half: int, row: Float64
) -> None:
    """How much sharper than the PSF the central pixel is: contrast to its 8 neighbors over the model's contrast."""
    ny, nx = image.shape
    yc, xc = y0 + half, x0 + half
    if yc < 1 or xc < 1 or yc > ny - 2 or xc > nx - 2:
        return
    ring, ring_variance, ring_model = 0.0, 0.0, 0.0
    for y in range(-1, 2):
        for x in range(-1, 2):
            if y != 0 or x != 0:
                ring += image[yc + y, xc + x] / 8
                ring_variance += variance[yc + y, xc + x] / 64
                ring_model += model[half + y, half + x] / 8
    contrast = flux * (model[half, half] - ring_model)
    if contrast != 0.0:
        row[SPIKE] = (image[yc, xc] - ring) / contrast
        row[SPIKE_ERR] = sqrt(variance[yc, xc] + ring_variance) / abs(contrast)


@fast_kernel
def fit_psf(
    image: Float32, variance: Float32, mask: UInt16, bad: int,
    coefficients: Float32, sums: Float64, terms: Float64, x0: Float64, y0: Float64,
    half: int, max_shift_pix: float, out: Float64, status: UInt8,
) -> None:  # fmt: skip
    """Fit flux and position of n sources by Gauss-Newton steps on (flux, x, y); about 15 us a source.

    Parameters
    ----------
    image, variance, mask : (ny, nx) [nJy], [nJy**2], bits; pixels with a bit of ``bad`` or variance <= 0 do not count.
    coefficients, sums, terms : PSF model (n_terms, k, k), its planes' sums (n_terms,), its terms (n, n_terms).
    x0, y0 : (n,) start [pixel].    half : the window is ``2 * half + 1`` wide.
    max_shift_pix : a fit that goes farther failed; then the start is kept as position.
    out : (n, N_COLUMNS) see the column constants; NaN where unknown. Position covariance is the sandwich
        ``A^-1 B A^-1``, right for equal weights under unequal variance.
    status : (n,) FIT_* bits.
    """
    size, wide = 2 * half + 1, 2 * half + TAPS
    cropped = np.empty((coefficients.shape[0], wide * wide), np.float32)
    padded, rows, line = (
        np.empty(wide * wide, np.float32),
        np.empty(wide * wide, np.float32),
        np.empty(wide * wide, np.float32),
    )
    design = np.empty((3, size, size), np.float32)
    wx, gx = np.empty(TAPS, np.float32), np.empty(TAPS, np.float32)
    wy, gy = np.empty(TAPS, np.float32), np.empty(TAPS, np.float32)
    normal, noise, inverse = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    right, solution = np.empty(3), np.empty(3)
    _crop(coefficients, half + HALF_TAPS, 0, 0, cropped)
    for i in range(x0.size):
        row = out[i]
        row[:] = np.nan
        _evaluate(cropped, sums, terms[i], padded)
        x, y, is_fitted = x0[i], y0[i], False
        step_x, step_y, damping = 0.0, 0.0, 1.0
        for _ in range(_MAX_STEPS):
            xc, yc = floor(x + 0.5), floor(y + 0.5)
            _shift_weights(x - xc, wx, gx)
            _shift_weights(y - yc, wy, gy)
            _shift(padded, half, wy, wx, rows, line, design[0])
            _shift(padded, half, wy, gx, rows, line, design[1])
            _shift(padded, half, gy, wx, rows, line, design[2])
            _normal_equations(image, variance, mask, bad, design, yc - half, xc - half, normal, noise, right)
            if not _invert3(normal, inverse):
                break
            for j in range(3):
                solution[j] = inverse[j, 0] * right[0] + inverse[j, 1] * right[1] + inverse[j, 2] * right[2]
            if solution[0] == 0.0 or not np.isfinite(solution[0]):
                break
            new_x = min(max(solution[1] / solution[0], -_MAX_STEP_PIX), _MAX_STEP_PIX)
            new_y = min(max(solution[2] / solution[0], -_MAX_STEP_PIX), _MAX_STEP_PIX)
            if new_x * step_x + new_y * step_y < 0.0:
                damping *= 0.6
            step_x, step_y = damping * new_x, damping * new_y
            x += step_x
            y += step_y
            if abs(x - x0[i]) > max_shift_pix or abs(y - y0[i]) > max_shift_pix:
                break
            if abs(step_x) < _TOLERANCE_PIX and abs(step_y) < _TOLERANCE_PIX:
                is_fitted = True
                break
        failed = 0 if is_fitted else FIT_CENTROID_FAILED
        if not is_fitted:
            x, y = x0[i], y0[i]
        row[X], row[Y] = x, y
        xc, yc = floor(x + 0.5), floor(y + 0.5)
        _shift_weights(x - xc, wx, gx)
        _shift_weights(y - yc, wy, gy)
        _shift(padded, half, wy, wx, rows, line, design[0])
        fit = _fixed_flux(image, variance, mask, bad, design[0], yc - half, xc - half, row)
        status[i] = fit | failed
        if fit & FIT_NO_GOOD_PIXELS:
            continue
        _fit_quality(image, variance, mask, bad, design[0], yc - half, xc - half, row)
        _spike(image, variance, design[0], yc - half, xc - half, row[FLUX], half, row)
        if is_fitted:
            covariance = np.zeros((3, 3))
            for j in range(3):
                for k in range(3):
                    for a in range(3):
                        for b in range(3):
                            covariance[j, k] += inverse[j, a] * noise[a, b] * inverse[b, k]
            flux2 = row[FLUX] ** 2
            row[VAR_X], row[VAR_Y] = covariance[1, 1] / flux2, covariance[2, 2] / flux2
            row[COV_XY] = covariance[1, 2] / flux2


@fast_kernel
def forced_flux(
    image: Float32, variance: Float32, mask: UInt16, bad: int,
    coefficients: Float32, sums: Float64, terms: Float64, x: Float64, y: Float64,
    half: int, out: Float64, status: UInt8,
) -> None:  # fmt: skip
    """Flux of a PSF at n given positions; arguments and outputs as :func:`fit_psf`, a few us a position."""
    size, wide = 2 * half + 1, 2 * half + TAPS
    cropped = np.empty((coefficients.shape[0], wide * wide), np.float32)
    padded, rows, line = (
        np.empty(wide * wide, np.float32),
        np.empty(wide * wide, np.float32),
        np.empty(wide * wide, np.float32),
    )
    model = np.empty((size, size), np.float32)
    wx, wy, unused = np.empty(TAPS, np.float32), np.empty(TAPS, np.float32), np.empty(TAPS, np.float32)
    _crop(coefficients, half + HALF_TAPS, 0, 0, cropped)
    for i in range(x.size):
        out[i] = np.nan
        out[i, X], out[i, Y] = x[i], y[i]
        if not (np.isfinite(x[i]) and np.isfinite(y[i])) or abs(x[i]) > 1e6 or abs(y[i]) > 1e6:
            status[i] = FIT_NO_GOOD_PIXELS
            continue
        xc, yc = floor(x[i] + 0.5), floor(y[i] + 0.5)
        _evaluate(cropped, sums, terms[i], padded)
        _shift_weights(x[i] - xc, wx, unused)
        _shift_weights(y[i] - yc, wy, unused)
        _shift(padded, half, wy, wx, rows, line, model)
        status[i] = _fixed_flux(image, variance, mask, bad, model, yc - half, xc - half, out[i])


@fast_kernel
def psf_planes(
    coefficients: Float32, sums: Float64, terms: Float64, dx: Float64, dy: Float64, half: int, out: Float32
) -> None:
    """PSF and its derivatives by the source's x and y, for n sources offset (dx, dy) from their windows' centers.

    ``out`` is (n, 3, 2 * half + 1, 2 * half + 1).
    """
    _size, wide = 2 * half + 1, 2 * half + TAPS
    cropped = np.empty((coefficients.shape[0], wide * wide), np.float32)
    padded, rows, line = (
        np.empty(wide * wide, np.float32),
        np.empty(wide * wide, np.float32),
        np.empty(wide * wide, np.float32),
    )
    wx, gx = np.empty(TAPS, np.float32), np.empty(TAPS, np.float32)
    wy, gy = np.empty(TAPS, np.float32), np.empty(TAPS, np.float32)
    last_sx, last_sy = -999999, -999999
    for i in range(dx.size):
        sx, sy = floor(dx[i] + 0.5), floor(dy[i] + 0.5)
        if sx != last_sx or sy != last_sy:
            _crop(coefficients, half + HALF_TAPS, -sy, -sx, cropped)
            last_sx, last_sy = sx, sy
        _evaluate(cropped, sums, terms[i], padded)
        _shift_weights(dx[i] - sx, wx, gx)
        _shift_weights(dy[i] - sy, wy, gy)
        _shift(padded, half, wy, wx, rows, line, out[i, 0])
        _shift(padded, half, wy, gx, rows, line, out[i, 1])
        _shift(padded, half, gy, wx, rows, line, out[i, 2])


def window_half(fwhm_pix: float, psf_size: int) -> int:
    """Half size of the fitting window [pixel]: 1.5 FWHM, which keeps 99 % of the information on the position."""
    return int(min(max(ceil(1.5 * fwhm_pix), 4), max(psf_size // 2, 4)))
