"""Structure of the PSF that no low polynomial follows: its width and ellipticity, mapped by the stars themselves."""

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.contracts.exposure import Frame
from core.contracts.psf import PsfModel
from core.kernels.psf_fit import centered_stamps
from core.stages.local_maps import LocalMapsConfig, fit_maps
from core.workspace import Workspace

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

N_MODES: Final = 3
"""Relative width, and the two ellipticities (along the axes, along the diagonals)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StructureConfig:
    """How the structure is measured."""

    is_mapped: bool = True
    radius_fwhm: float = 1.9
    """Pixels within this radius of a star are fitted."""
    model_error: float = 0.004
    """Error of the modes' shape as a fraction of the PSF's value."""
    maps: LocalMapsConfig = field(default_factory=LocalMapsConfig)


def map_structure(
    frame: Frame,
    psf: PsfModel,
    stars: tuple[Float64, Float64, Float64],
    fwhm_pix: float,
    skip: np.uint16,
    workspace: Workspace,
    config: StructureConfig,
) -> tuple[PsfModel, Float64]:
    """The PSF with maps of relative width and ellipticity added to its polynomial; as it is where stars are few.

    Each star gives the three as amplitudes of the PSF's own derivatives, with its flux, position and local sky left
    free; a Gaussian process joins them. ``stars`` are (x, y, flux). Buffers ``psf.stamps``, ``psf.spread`` (as the
    PSF's fit). Also returned: each star's relative width beyond the polynomial's, NaN where it says nothing.
    """
    if not config.is_mapped:
        return psf, np.full(stars[0].size, np.nan)
    x, y, flux = stars
    stamps, spread = star_stamps(frame, stars, psf.size, skip, workspace)
    modes = stretch_modes(psf.center().astype(np.float64))
    amplitude, error = _amplitudes(stamps, spread, psf, (x, y, flux), modes, config.radius_fwhm * fwhm_pix, config)
    maps = fit_maps(x, y, amplitude, error, frame.shape, config.maps)
    if maps is None or not maps.values.any():
        return psf, amplitude[:, 0]
    coefficients = np.concatenate([psf.coefficients, modes.astype(np.float32)])
    return PsfModel(coefficients=coefficients, shape=psf.shape, order=psf.order, maps=maps), amplitude[:, 0]


def star_stamps(
    frame: Frame, stars: tuple[Float64, Float64, Float64], size: int, skip: np.uint16, workspace: Workspace
) -> tuple[Float32, Float32]:
    """Stamps (n, size, size) of stars shifted to the central pixel, and their pixels' variance (0: not usable)."""
    n = stars[0].size
    shape = (1 << max(n - 1, 1).bit_length(), size, size)
    stamps: Float32 = workspace.array("psf.stamps", shape)[:n]  # type: ignore[assignment]
    spread: Float32 = workspace.array("psf.spread", shape)[:n]  # type: ignore[assignment]
    centered_stamps(frame.image, frame.variance, frame.mask, skip, stars[0], stars[1], stamps, spread)
    return stamps, spread


def widen(psf: PsfModel, width: float) -> PsfModel:
    """The PSF wider by the fraction ``width`` everywhere, to first order."""
    if width == 0:
        return psf
    coefficients = psf.coefficients.copy()
    coefficients[0] += np.float32(width) * stretch_modes(psf.center().astype(np.float64))[0].astype(np.float32)
    return replace(psf, coefficients=coefficients)


def slopes(image: Float64) -> tuple[Float64, Float64]:
    """Derivatives of a (k, k) image by x and y, through its zero-padded Fourier transform."""
    size = 2 * image.shape[0]
    spectrum = np.fft.rfft2(image, (size, size))
    k_y, k_x = 2j * np.pi * np.fft.fftfreq(size)[:, None], 2j * np.pi * np.fft.rfftfreq(size)[None, :]
    by_x, by_y = (np.fft.irfft2(spectrum * k, (size, size)) for k in (k_x, k_y))
    cut = slice(0, image.shape[0])
    return np.asarray(by_x[cut, cut], np.float64), np.asarray(by_y[cut, cut], np.float64)


def stretch_modes(image: Float64) -> Float64:
    """(3, k, k): change of a PSF image by a relative width, and by stretches along the axes and the diagonals.

    First order of ``P(x / (1 + w)) / (1 + w)**2`` and of ``P`` on coordinates ``(x (1 - e), y (1 + e))``; zero sums.
    """
    by_x, by_y = slopes(image)
    axis = np.arange(image.shape[0], dtype=np.float64) - image.shape[0] // 2
    dx, dy = axis[None, :], axis[:, None]
    modes = np.stack([-(2 * image + dx * by_x + dy * by_y), dy * by_y - dx * by_x, -(dy * by_x + dx * by_y)])
    return np.asarray(modes - modes.sum(axis=(1, 2), keepdims=True) * image / image.sum(), np.float64)


def _amplitudes(
    stamps: Float32,
    spread: Float32,
    psf: PsfModel,
    stars: tuple[Float64, Float64, Float64],
    modes: Float64,
    radius: float,
    config: StructureConfig,
) -> tuple[Float64, Float64]:
    """(n, 3) amplitudes of the modes at each star, and their errors."""
    x, y, flux = stars
    axis = np.arange(psf.size) - psf.size // 2
    inside = np.flatnonzero(np.hypot(axis[:, None], axis[None, :]).ravel() <= radius)
    center = psf.center().astype(np.float64)
    model = psf.at_many(x, y).reshape(x.size, -1)[:, inside].astype(np.float64)
    # what is common to all: the modes, the position's two, flux and sky
    common = np.stack([m.ravel()[inside] for m in (*modes, *slopes(center), center, np.ones_like(center))])
    data = stamps.reshape(x.size, -1)[:, inside] / flux[:, None] - model
    noise = spread.reshape(x.size, -1)[:, inside] / flux[:, None] ** 2
    weight = np.where(noise > 0, 1 / np.maximum(noise + (config.model_error * model) ** 2, 1e-300), 0.0)
    products = (common[:, None, :] * common[None, :, :]).reshape(-1, inside.size)
    n_par = common.shape[0]
    normal = (weight @ products.T).reshape(-1, n_par, n_par)
    right = (weight * data) @ common.T
    scale = 1 / np.sqrt(np.maximum(np.einsum("nii->ni", normal), 1e-300))
    normal = normal * scale[:, :, None] * scale[:, None, :]
    inverse = np.linalg.pinv(normal + 1e-9 * np.eye(n_par), hermitian=True)
    solution = np.einsum("nij,nj->ni", inverse, right * scale) * scale
    error = np.sqrt(np.maximum(np.einsum("nii->ni", inverse), 0)) * scale
    good = (weight > 0).mean(axis=1) > 0.9
    values = np.where(good[:, None], solution[:, :N_MODES], np.nan)
    return values, error[:, :N_MODES]
