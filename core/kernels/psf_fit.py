"""The PSF as pixels: stars shifted to a common center, a polynomial a pixel, and fits of sources with it."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.kernels.decorator import fast_kernel, kernel

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
UInt16 = NDArray[np.uint16]

HALF_TAPS: Final = 4
N_TAPS: Final = 2 * HALF_TAPS
_KAISER_BETA: Final = 6.5
_KAISER_TERMS: Final = 12

FIT_OK: Final = 0
FIT_FLUX_ONLY: Final = 1
FIT_FAILED: Final = 2


@kernel
def _taps(offset: float, taps: Float32, slopes: Float32) -> None:
    """Unit-sum weights that sample at ``offset`` in [0, 1] behind the fourth of eight pixels; derivatives by it.

    A sinc under a Kaiser window, as in ``core.kernels.psf_flux``, where the reason stands.
    """
    total, slope = 0.0, 0.0
    for i in range(N_TAPS):
        t = offset - (i - HALF_TAPS + 1)
        q = 0.25 * _KAISER_BETA**2 * max(1.0 - (t / HALF_TAPS) ** 2, 0.0)
        window, by_q = 1.0, 0.0
        for k in range(_KAISER_TERMS, 0, -1):
            by_q = (by_q * q + window) / (k * k)
            window = 1.0 + window * q / (k * k)
        d = -0.5 * by_q * _KAISER_BETA**2 * t / HALF_TAPS**2
        w = window
        if abs(t) > 1e-6:
            sinc = np.sin(np.pi * t) / (np.pi * t)
            w, d = sinc * window, (np.cos(np.pi * t) - sinc) / t * window + sinc * d
        taps[i] = w
        slopes[i] = d
        total += w
        slope += d
    for i in range(N_TAPS):
        slopes[i] = (slopes[i] - taps[i] * slope / total) / total
        taps[i] /= total


@fast_kernel
def centered_stamps(
    image: Float32, variance: Float32, mask: UInt16, skip: np.uint16, x: Float64, y: Float64, stamps: Float32,
    spread: Float32,
) -> None:  # fmt: skip
    """Stamps of stars shifted so that the star is at the middle of the central pixel.

    ``stamps`` (n, k, k) [image unit]; ``spread`` (n, k, k) variance of the nearest pixel, 0 where that pixel has a bit
    of ``skip`` or lies outside. Beyond the image its edge is repeated.
    """
    ny, nx = image.shape
    n, k = stamps.shape[0], stamps.shape[1]
    h = k // 2
    taps_x, taps_y, slopes = np.empty(N_TAPS, np.float32), np.empty(N_TAPS, np.float32), np.empty(N_TAPS, np.float32)
    patch = np.empty((k + N_TAPS, k + N_TAPS), np.float32)
    rows = np.empty((k + N_TAPS, k), np.float32)
    for i in range(n):
        x0, y0 = int(np.floor(x[i])), int(np.floor(y[i]))
        _taps(x[i] - x0, taps_x, slopes)
        _taps(y[i] - y0, taps_y, slopes)
        for j in range(k + N_TAPS):
            yy = min(max(y0 - h + j - HALF_TAPS + 1, 0), ny - 1)
            for c in range(k + N_TAPS):
                patch[j, c] = image[yy, min(max(x0 - h + c - HALF_TAPS + 1, 0), nx - 1)]
        rows[:] = np.float32(0.0)
        for j in range(k + N_TAPS):
            for t in range(N_TAPS):
                w, source, target = taps_x[t], patch[j, t : t + k], rows[j]
                for c in range(k):
                    target[c] += w * source[c]
        near_x, near_y = int(np.floor(x[i] + 0.5)), int(np.floor(y[i] + 0.5))
        for j in range(k):
            target = stamps[i, j]
            target[:] = np.float32(0.0)
            for t in range(N_TAPS):
                w, source = taps_y[t], rows[j + t]
                for c in range(k):
                    target[c] += w * source[c]
            yy = near_y - h + j
            for c in range(k):
                xx = near_x - h + c
                if yy < 0 or xx < 0 or yy >= ny or xx >= nx or mask[yy, xx] & skip:
                    spread[i, j, c] = 0.0
                else:
                    spread[i, j, c] = variance[yy, xx]


@kernel
def _solve(matrix: Float64, vector: Float64, n: int) -> bool:
    """Cholesky solution in place of ``vector``; False where the matrix is not positive definite."""
    for j in range(n):
        d = matrix[j, j]
        for k in range(j):
            d -= matrix[j, k] ** 2
        if not d > 1e-12 * matrix[j, j] or not d > 0:
            return False
        d = np.sqrt(d)
        matrix[j, j] = d
        for i in range(j + 1, n):
            s = matrix[i, j]
            for k in range(j):
                s -= matrix[i, k] * matrix[j, k]
            matrix[i, j] = s / d
    for i in range(n):
        s = vector[i]
        for k in range(i):
            s -= matrix[i, k] * vector[k]
        vector[i] = s / matrix[i, i]
    for i in range(n - 1, -1, -1):
        s = vector[i]
        for k in range(i + 1, n):
            s -= matrix[k, i] * vector[k]
        vector[i] = s / matrix[i, i]
    return True


@fast_kernel
def fit_pixels(stamps: Float32, weights: Float32, terms: Float64, clip: float, n_clip: int, out: Float32) -> None:
    """Weighted polynomial through the stars at every pixel, with outliers clipped.

    Parameters
    ----------
    stamps : (n, k, k) stars of unit flux.    weights : (n, k, k) inverse variance, 0 for unusable pixels.
    terms : (n, n_terms) polynomial terms of the stars.    clip : [sigma], ``n_clip`` times.
    out : (n_terms, k, k) coefficients; where too few stars are left only the constant is fitted.
    """
    n, k = stamps.shape[0], stamps.shape[1]
    n_terms = terms.shape[1]
    n_products = n_terms * (n_terms + 1) // 2
    products = np.empty((n, n_products))
    for i in range(n):
        p = 0
        for a in range(n_terms):
            for b in range(a + 1):
                products[i, p] = terms[i, a] * terms[i, b]
                p += 1
    sums, vector = np.empty(n_products), np.empty(n_terms)
    matrix = np.empty((n_terms, n_terms))
    use, values = np.empty(n), np.empty(n)
    for j in range(k):
        for c in range(k):
            for i in range(n):
                use[i] = weights[i, j, c]
                values[i] = stamps[i, j, c]
            for turn in range(n_clip + 1):
                sums[:] = 0.0
                vector[:] = 0.0
                used = 0
                for i in range(n):
                    w = use[i]
                    if w <= 0.0:
                        continue
                    used += 1
                    row, wv = products[i], w * values[i]
                    for p in range(n_products):
                        sums[p] += w * row[p]
                    for a in range(n_terms):
                        vector[a] += wv * terms[i, a]
                constant = vector[0] / sums[0] if sums[0] > 0 else 0.0
                p = 0
                for a in range(n_terms):
                    for b in range(a + 1):
                        matrix[a, b] = sums[p]
                        p += 1
                if used < 3 * n_terms or not _solve(matrix, vector, n_terms):
                    vector[:] = 0.0
                    vector[0] = constant
                n_changed = 0
                if turn < n_clip:
                    for i in range(n):
                        r = values[i]
                        for a in range(n_terms):
                            r -= terms[i, a] * vector[a]
                        w = np.float64(weights[i, j, c])
                        w = w if r * r * w < clip * clip else 0.0
                        n_changed += 1 if (w > 0) != (use[i] > 0) else 0
                        use[i] = w
                if n_changed == 0:
                    break
            for a in range(n_terms):
                out[a, j, c] = vector[a]


@fast_kernel
def fit_sources(
    image: Float32, variance: Float32, mask: UInt16, skip: np.uint16, coefficients: Float32, terms: Float64, half: int,
    n_iterations: int, max_shift: float, model_error: float, x: Float64, y: Float64, out: Float64,
) -> None:  # fmt: skip
    """Flux and position of sources by Gauss-Newton steps with the local PSF.

    Parameters
    ----------
    image, variance, mask : (ny, nx); pixels with a bit of ``skip`` are left out.
    coefficients, terms : images (n_terms, k, k) of a PsfModel and their factors (n, n_terms) at the sources.
    half : half side of the stamp fitted [pixel], with room for the shift inside the PSF's k.
    max_shift : further from its start [pixel] a source may not move; there its flux alone is fitted at the start.
    model_error : error of the PSF as fraction of the model, added in quadrature to the noise.
    x, y : (n,) in and out [pixel].    out : (n, 6) flux, its error, x error, y error, chi2 per pixel, FIT_*.
    """
    ny, nx = image.shape
    k = coefficients.shape[1]
    n_terms = coefficients.shape[0]
    side = 2 * half + 1
    wide = side + N_TAPS
    totals = np.zeros(n_terms)
    for t in range(n_terms):
        for j in range(k):
            for c in range(k):
                totals[t] += coefficients[t, j, c]
    local = np.empty((wide, wide), np.float32)
    tx, ty, gx, gy = (
        np.empty(N_TAPS, np.float32), np.empty(N_TAPS, np.float32), np.empty(N_TAPS, np.float32),
        np.empty(N_TAPS, np.float32),
    )  # fmt: skip
    rows, slopes = np.empty((wide, side), np.float32), np.empty((wide, side), np.float32)
    model, model_x, model_y = np.empty(side, np.float32), np.empty(side, np.float32), np.empty(side, np.float32)
    first = k // 2 - half - HALF_TAPS
    zero = np.float32(0.0)
    for i in range(x.size):
        start_x, start_y = x[i], y[i]
        for q in range(6):
            out[i, q] = np.nan
        out[i, 5] = FIT_FAILED
        if not (0 <= start_x < nx and 0 <= start_y < ny):
            continue
        total = 0.0
        for t in range(n_terms):
            total += terms[i, t] * totals[t]
        local[:] = zero
        low, high = max(-first, 0), min(wide, k - first)
        for j in range(low, high):
            target = local[j, low:high]
            for t in range(n_terms):
                w, source = np.float32(terms[i, t] / total), coefficients[t, first + j, first + low : first + high]
                for c in range(high - low):
                    target[c] += w * source[c]
        is_free = True
        turn = 0
        flux = 0.0
        while turn <= n_iterations:
            px, py = int(np.floor(x[i] + 0.5)), int(np.floor(y[i] + 0.5))
            # the model at pixel p is the PSF at p - shift, between the pixels o and o + 1 behind it
            dx, dy = x[i] - px, y[i] - py
            ox, oy = int(np.floor(-dx)), int(np.floor(-dy))
            _taps(-dx - ox, tx, gx)
            _taps(-dy - oy, ty, gy)
            rows[:] = zero
            slopes[:] = zero
            for j in range(wide):
                row, slope = rows[j], slopes[j]
                for t in range(N_TAPS):
                    w, g, source = tx[t], gx[t], local[j, t + ox + 1 : t + ox + 1 + side]
                    for c in range(side):
                        row[c] += w * source[c]
                        slope[c] -= g * source[c]
            aa, ax, ay, xx, xy, yy, ra, rx, ry, dd = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            used = 0
            for j in range(side):
                line = py - half + j
                if line < 0 or line >= ny:
                    continue
                model[:] = zero
                model_x[:] = zero
                model_y[:] = zero
                for t in range(N_TAPS):
                    w, g, row, slope = ty[t], gy[t], rows[j + t + oy + 1], slopes[j + t + oy + 1]
                    for c in range(side):
                        model[c] += w * row[c]
                        model_x[c] += w * slope[c]
                        model_y[c] -= g * row[c]
                begin, end = max(half - px, 0), min(side, nx - px + half)
                for c in range(begin, end):
                    column = px - half + c
                    if mask[line, column] & skip:
                        continue
                    m, mx, my = np.float64(model[c]), np.float64(model_x[c]), np.float64(model_y[c])
                    w = 1.0 / (variance[line, column] + (model_error * flux * m) ** 2)
                    d = np.float64(image[line, column])
                    aa += w * m * m
                    ax += w * m * mx
                    ay += w * m * my
                    xx += w * mx * mx
                    xy += w * mx * my
                    yy += w * my * my
                    ra += w * m * d
                    rx += w * mx * d
                    ry += w * my * d
                    dd += w * d * d
                    used += 1
            if used < 9 or not aa > 0:
                break
            flux = ra / aa
            out[i, 0], out[i, 1] = flux, 1.0 / np.sqrt(aa)
            out[i, 4] = (dd - flux * ra) / used
            out[i, 5] = FIT_OK if is_free else FIT_FLUX_ONLY
            if not is_free:
                break
            # residual in position after the best flux; the flux is marginalized by its own row
            bxx, byy, bxy = xx - ax * ax / aa, yy - ay * ay / aa, xy - ax * ay / aa
            cx, cy = rx - flux * ax, ry - flux * ay
            det = bxx * byy - bxy * bxy
            if not det > 0 or not flux > 0:
                is_free = False
                x[i], y[i] = start_x, start_y
                continue
            out[i, 2], out[i, 3] = np.sqrt(byy / det) / flux, np.sqrt(bxx / det) / flux
            if turn == n_iterations:
                break
            sx, sy = (byy * cx - bxy * cy) / det / flux, (bxx * cy - bxy * cx) / det / flux
            x[i] += min(max(sx, -1.0), 1.0)
            y[i] += min(max(sy, -1.0), 1.0)
            if abs(x[i] - start_x) > max_shift or abs(y[i] - start_y) > max_shift:
                is_free = False
                x[i], y[i] = start_x, start_y
            # a step that is small against the error changes nothing
            settled = sx * sx < 0.0025 * out[i, 2] ** 2 and sy * sy < 0.0025 * out[i, 3] ** 2
            turn = n_iterations + 1 if is_free and settled else turn + 1
