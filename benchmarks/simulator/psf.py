"""The true point-spread function: not of any family that a pipeline fits.

Von Karman atmosphere, optics with ellipticity and coma, charge diffusion, the pixel's box, and a wide aureole. One
visit's PSF is a combination of seven oversampled images whose weights vary over the field: three widths (interpolated
quadratically), two ellipticities, two comas. Outside the core a radial wing goes on to hundreds of pixels.

A second family for test sets, elliptical Moffats of varying beta with an aureole of their own, shows what a pipeline
owes to the first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import gamma, kv

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

OVERSAMPLE: Final = 5
CORE_HALF: Final = 32
WIDTH_STEP: Final = 0.15
"""Relative width between the three nodes."""
WING_STEP: Final = 0.5
WING_MAX: Final = 600.0
_GRID: Final = 384
_TAPER: Final = (20.0, 29.0)
_OUTER_SCALE_M: Final = 25.0
_OPTICS_FWHM: Final = 0.22
_DIFFUSION_PIX: Final = 0.38
BETA: Final = 3.0
BETA_STEP: Final = 0.5
"""The Moffat family's beta, and the half-range that its two images for beta span."""
_ELLIPTICITY: Final = 0.05
_SKEW: Final = 0.15


class _Aureole(NamedTuple):
    """``fraction`` of the light in ``(1 + (r / scale)**2)**-slope``."""

    fraction: float
    scale_pix: float
    slope: float


_AUREOLE: Final = _Aureole(0.02, 14.0, 1.25)
_MOFFAT_AUREOLE: Final = _Aureole(0.03, 30.0, 1.5)
_NO_AUREOLE: Final = _Aureole(0.0, 14.0, 1.25)


@dataclass(frozen=True, slots=True)
class PsfBasis:
    """``images`` (7, s, s, n, n) float32: polyphase layout, image ``[b, py, px, ky, kx]`` is the oversampled sample
    (s ky + py, s kx + px), whose center is at ``s * CORE_HALF`` on both axes; values are fluxes of a whole pixel.

    ``wing`` (m,) float64: radial profile outside the core at steps of half a pixel. ``profile``: the whole radial
    profile, to choose stamp sizes. ``fwhm_arcsec``: delivered width at weights of the middle node.
    """

    images: Float32
    wing: Float64
    profile: Float64
    fwhm_arcsec: float


def _structure(rho_m: Float64, r0_m: float) -> Float64:
    """Von Karman phase structure function (Tokovinin 2002, PASP 114, 1156, eq. 16)."""
    u = 2 * np.pi * np.maximum(rho_m, 1e-9) / _OUTER_SCALE_M
    front = (_OUTER_SCALE_M / r0_m) ** (5 / 3) * 2 ** (1 / 6) * gamma(11 / 6) / np.pi ** (8 / 3)
    front *= (24 / 5 * gamma(6 / 5)) ** (5 / 6)
    bessel = np.where(u < 50, u ** (5 / 6) * kv(5 / 6, np.minimum(u, 50)), 0.0)
    return np.asarray(front * (gamma(5 / 6) / 2 ** (1 / 6) - bessel), np.float64)


def _image(
    fwhm: float, wavelength_nm: float, scale: float, e1: float = 0.0, e2: float = 0.0, c1: float = 0.0, c2: float = 0.0
) -> Float64:
    """Oversampled PSF image (grid, grid) of unit sum, center at grid // 2; widths in arcsec, ``scale`` arcsec/pixel."""
    kx = np.fft.rfftfreq(_GRID, scale / OVERSAMPLE)[None, :]
    ky = np.fft.fftfreq(_GRID, scale / OVERSAMPLE)[:, None]
    sx, sy = (1 + e1) * kx + e2 * ky, e2 * kx + (1 - e1) * ky
    radius = np.hypot(sx, sy)
    rho = np.linspace(0.0, radius.max() * 1.001, 4096)
    wavelength_m = wavelength_nm * 1e-9
    r0 = 0.976 * wavelength_m / np.radians(fwhm / 3600)
    table = np.exp(-0.5 * _structure(rho * np.degrees(3600.0) * wavelength_m, r0))
    optics = np.exp(-2 * (np.pi * _OPTICS_FWHM / 2.3548 * rho) ** 2)
    transfer = np.interp(radius, rho, table * optics).astype(np.complex128)
    sigma = fwhm / 2.3548
    skew = (2 * np.pi * sigma) ** 3 / 6
    if c1 or c2:
        transfer *= np.exp(1j * skew * (c1 * sx + c2 * sy) * radius**2)
    diffusion = -2 * (np.pi * _DIFFUSION_PIX * scale) ** 2
    transfer *= np.exp(diffusion * kx**2) * np.sinc(kx * scale)
    transfer *= np.exp(diffusion * ky**2) * np.sinc(ky * scale)
    image = np.fft.fftshift(np.fft.irfft2(transfer, (_GRID, _GRID)))
    return np.asarray(image, np.float64)


def _fwhm_arcsec(image: Float64, scale: float) -> float:
    row = image[_GRID // 2, _GRID // 2 :]
    half = row[0] / 2
    i = int(np.argmax(row < half))
    position = i - 1 + (row[i - 1] - half) / (row[i - 1] - row[i])
    return float(2 * position * scale / OVERSAMPLE)


def _solve_width(fwhm_arcsec: float, scale: float, image: Callable[..., Float64]) -> float:
    """Width of the atmosphere whose delivered image has the FWHM asked for."""
    width = max(fwhm_arcsec * 0.9, 0.3)
    for _ in range(4):
        width *= (fwhm_arcsec / _fwhm_arcsec(image(width), scale)) ** 1.15
    return width


def _taper(r: Float64) -> Float64:
    inner, outer = _TAPER
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * np.clip((r - inner) / (outer - inner), 0, 1)), np.float64)


@lru_cache(maxsize=4)
def make_basis(
    fwhm_arcsec: float, wavelength_nm: float, scale: float, *, aureole: bool, family: str = "von_karman"
) -> PsfBasis:
    """Basis of one visit; about 0.2 s, kept for the visit's other detectors.

    The last two of the seven images are the comas of the von Karman family, and the linear and the quadratic change
    with beta of the Moffat family (:data:`BETA_STEP`).
    """
    make = (
        partial(_moffat, scale=scale)
        if family == "moffat"
        else partial(_image, wavelength_nm=wavelength_nm, scale=scale)
    )
    width = _solve_width(fwhm_arcsec, scale, make)
    nodes = [make(width * (1 + WIDTH_STEP * t)) for t in (-1, 0, 1)]

    def slope(step: float, name: str) -> Float64:
        return np.asarray((make(width, **{name: step}) - make(width, **{name: -step})) / (2 * step), np.float64)

    slopes = [slope(_ELLIPTICITY, "e1"), slope(_ELLIPTICITY, "e2")]
    if family == "moffat":
        shallow, steep = make(width, beta=BETA - BETA_STEP), make(width, beta=BETA + BETA_STEP)
        slopes += [(steep - shallow) / 2, (steep + shallow) / 2 - nodes[1]]
        return _finish(nodes, slopes, _MOFFAT_AUREOLE if aureole else _NO_AUREOLE, fwhm_arcsec)
    slopes += [slope(_SKEW, "c1"), slope(_SKEW, "c2")]
    return _finish(nodes, slopes, _AUREOLE if aureole else _NO_AUREOLE, fwhm_arcsec)


def _moffat(fwhm: float, scale: float, e1: float = 0.0, e2: float = 0.0, beta: float = BETA) -> Float64:
    """Oversampled elliptical Moffat image (grid, grid) of unit sum behind diffusion and the pixel's box."""
    axis = (np.arange(_GRID) - _GRID // 2) * (scale / OVERSAMPLE)
    x, y = axis[None, :], axis[:, None]
    alpha = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
    radius2 = ((1 - e1) * x - e2 * y) ** 2 + ((1 + e1) * y - e2 * x) ** 2
    image = (1 + radius2 / alpha**2) ** -beta
    transfer = np.fft.rfft2(np.fft.ifftshift(image / image.sum()))
    kx, ky = np.fft.rfftfreq(_GRID, scale / OVERSAMPLE)[None, :], np.fft.fftfreq(_GRID, scale / OVERSAMPLE)[:, None]
    diffusion = -2 * (np.pi * _DIFFUSION_PIX * scale) ** 2
    transfer *= np.exp(diffusion * (kx**2 + ky**2)) * np.sinc(kx * scale) * np.sinc(ky * scale)
    return np.asarray(np.fft.fftshift(np.fft.irfft2(transfer, (_GRID, _GRID))), np.float64)


def _finish(nodes: list[Float64], slopes: list[Float64], aureole: _Aureole, fwhm_arcsec: float) -> PsfBasis:
    """Join an aureole, split core from wing, and normalize."""
    axis = (np.arange(_GRID) - _GRID // 2) / OVERSAMPLE
    r_grid = np.hypot(axis[:, None], axis[None, :])
    radii = np.arange(0.0, WING_MAX + WING_STEP, WING_STEP)
    fraction = aureole.fraction
    norm = np.pi * aureole.scale_pix**2 / (aureole.slope - 1)

    def aureole_at(r: Float64) -> Float64:
        return np.asarray(fraction / norm * (1 + (r / aureole.scale_pix) ** 2) ** -aureole.slope, np.float64)

    area = OVERSAMPLE**2
    row = nodes[1][_GRID // 2, _GRID // 2 :] * area
    atmosphere = np.interp(radii, axis[_GRID // 2 :], row)
    edge = 20.0  # further out the periodic images of the transform mix in
    atmosphere = np.where(
        radii > edge, np.interp(edge, radii, atmosphere) * (np.maximum(radii, 1) / edge) ** (-11 / 3), atmosphere
    )
    profile = (1 - fraction) * np.maximum(atmosphere, 0) + aureole_at(radii)
    wing = profile * (1 - _taper(radii))
    wing_flux = float(np.trapezoid(2 * np.pi * radii * wing, radii))
    taper = _taper(r_grid)
    cores = []
    for node in nodes:
        core = ((1 - fraction) * node * area + aureole_at(r_grid)) * taper
        cores.append(core * (1 - wing_flux) * area / core.sum())
    cores += [s * area * taper * (1 - fraction) for s in slopes]
    return PsfBasis(_polyphase(np.stack(cores)), wing, profile, fwhm_arcsec)


def _polyphase(images: Float64) -> Float32:
    """Cut out the core and sort samples by phase: (b, s, s, n, n)."""
    n = 2 * CORE_HALF + 2
    start = _GRID // 2 - OVERSAMPLE * CORE_HALF
    cut = images[:, start : start + n * OVERSAMPLE, start : start + n * OVERSAMPLE]
    split = cut.reshape(images.shape[0], n, OVERSAMPLE, n, OVERSAMPLE)
    return np.ascontiguousarray(split.transpose(0, 2, 4, 1, 3), np.float32)


def basis_weights(width: Float64, e1: Float64, e2: Float64, c1: Float64, c2: Float64) -> Float32:
    """(n, 7) weights for relative widths (0 = nominal), ellipticities and skews."""
    t = width / WIDTH_STEP
    return np.stack([t * (t - 1) / 2, 1 - t * t, t * (t + 1) / 2, e1, e2, c1, c2], axis=-1).astype(np.float32)
