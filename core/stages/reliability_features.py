"""What the reliability model is told about a DIASource: ratios, nothing that says where, when or which.

No ids, times, coordinates or bands; lengths count in widths of the PSF and fluxes in errors or in other fluxes, so that
seeing, depth and detector drop out. A feature that does not exist is :data:`MISSING`.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from core.contracts.catalogs import Catalog
from core.contracts.exposure import DifferenceImage
from core.kernels.psf_flux import FIT_OK
from core.stages.measure import FLAG_PLANES, Measurement
from core.stages.point_source import PsfOnFrame

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

MISSING: Final = -1e6
"""Below any real value: a tree can tell it from all of them by one cut."""
TINY: Final = 1e-30

FOOTPRINT_BITS: Final = {
    "saturated": FLAG_PLANES["saturated"],
    "cosmic_ray": FLAG_PLANES["cr"],
    "interpolated": FLAG_PLANES["interpolated"],
    "streak": FLAG_PLANES["streak"],
    "suspect": FLAG_PLANES["suspect"],
}
N_BRIGHTEST: Final = 64
"""Sources of the science image whose wings are looked at, everywhere on the detector."""
N_NEAREST: Final = 4
"""Nearest sources whose wings are looked at too; wings fall off as the third power of the distance."""
NEIGHBOR_FWHM: Final = 10.0
N_RESIDUALS: Final = 400
N_WITNESSES: Final = 12
"""Stars asked for each source, the nearest ones."""
MAX_RESIDUAL_ERROR: Final = 0.02
OWN_PIX: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StarResiduals:
    """Flux left in the difference at the place of k stars, as a share of theirs; ``x, y`` [pixel]."""

    x: Float64
    y: Float64
    share: Float64


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What else there is on the detector.

    Parameters
    ----------
    x, y : (m,) all detections of the difference [pixel], those the cuts left out too.
    sources : SOURCE rows of the science image [nJy].
    residuals : what the subtraction left of the stars.
    pixel_scale_arcsec : side of a pixel.
    """

    x: Float64
    y: Float64
    sources: Catalog
    residuals: StarResiduals
    pixel_scale_arcsec: float


def star_residuals(difference: DifferenceImage, sources: Catalog) -> StarResiduals:
    """What the subtraction is good for: forced fluxes, on the difference, of the brightest stars that made the PSF."""
    stars = sources[sources["isPsfStar"] & (sources["psfFlux"] > 0)]
    stars = stars[np.argsort(-stars["psfFlux"], kind="stable")[:N_RESIDUALS]]
    x, y = _float(stars, "x", "y")
    fits = PsfOnFrame.of(difference.frame, difference.psf).forced(x, y)
    flux = stars["psfFlux"].astype(np.float64)
    good = (fits.status == FIT_OK) & (fits.flux_err < MAX_RESIDUAL_ERROR * flux)
    return StarResiduals(x=x[good], y=y[good], share=fits.flux[good] / flux[good])


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureTable:
    """Features of n DIASources: m names and (n, m) float32 finite values."""

    names: tuple[str, ...]
    values: Float32


def source_features(measured: Measurement, around: Surroundings) -> FeatureTable:
    """Features of n measured DIASources, in their order."""
    sources, quality = measured.sources, measured.quality
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        columns = {
            **_point(sources, quality),
            **_growth(sources, quality),
            **_host(sources),
            **_shape(sources, quality),
            **_dipole(sources, quality),
            **_trail(sources),
            **_masks(quality),
            **_neighbors(sources, around),
            **_subtraction(sources, around.residuals),
        }
    values = np.stack(list(columns.values()), axis=-1)
    values[~np.isfinite(values)] = MISSING
    values = np.ascontiguousarray(np.clip(values, MISSING, -MISSING), np.float32)
    return FeatureTable(names=tuple(columns), values=values)


def _float(sources: Catalog, *names: str) -> tuple[Float64, ...]:
    return tuple(sources[name].astype(np.float64) for name in names)


def _log(values: Float64) -> Float64:
    return np.asarray(np.log10(np.maximum(values, TINY)))


def _fwhm_arcsec(sources: Catalog) -> Float64:
    xx, yy = _float(sources, "ixxPSF", "iyyPSF")
    return np.asarray(2.3548 * np.sqrt((xx + yy) / 2))


def _snr(sources: Catalog) -> Float64:
    flux, error = _float(sources, "psfFlux", "psfFluxErr")
    return np.asarray(np.abs(flux) / error)


def _point(sources: Catalog, quality: Catalog) -> dict[str, Float64]:
    """How well a point of this flux explains the pixels."""
    flux, error, chi2, n_data = _float(sources, "psfFlux", "psfFluxErr", "psfChi2", "psfNdata")
    aperture, aperture_error, peak_snr = _float(sources, "apFlux", "apFluxErr", "snr")
    snr = np.abs(flux) / error
    degrees = np.maximum(n_data - 3, 1)
    spike, spike_error = quality["spike"].astype(np.float64), quality["spikeErr"].astype(np.float64)
    position = np.hypot(*_float(sources, "raErr", "decErr")) * 3600 / _fwhm_arcsec(sources)
    return {
        "snr": _log(snr),
        "peak_over_fit": peak_snr / snr,
        "chi2": _log(chi2 / degrees),
        "chi2_excess": (chi2 / degrees - 1) / snr**2 * 1e3,
        "spike": spike,
        "spike_pull": (spike - 1) / np.maximum(spike_error, 0.02),
        "sharpness": quality["sharpness"].astype(np.float64),
        "aperture": aperture / flux,
        "aperture_pull": (aperture - flux) * np.sign(flux) / aperture_error,
        "position_error": position * snr,
        "good_fraction": quality["goodFraction"].astype(np.float64),
        "centroid_flag": (sources["centroid_flag"] == 1).astype(np.float64),
    }


def _growth(sources: Catalog, quality: Catalog) -> dict[str, Float64]:
    """Core and ring: what is left of a star whose PSF was wrong is no point, though its peak looks like one."""
    flux, error = _float(sources, "psfFlux", "psfFluxErr")
    core, core_error, wide, wide_error = (
        quality[name].astype(np.float64) for name in ("coreFlux", "coreFluxErr", "wideFlux", "wideFluxErr")
    )
    return {
        "core": core / flux,
        "wide": wide / flux,
        "core_pull": (core - flux) * np.sign(flux) / np.hypot(core_error, error),
        "ring_pull": (wide - core) * np.sign(flux) / np.hypot(core_error, wide_error),
    }


def _host(sources: Catalog) -> dict[str, Float64]:
    """The change against what the two images show at its place."""
    flux, error = _float(sources, "psfFlux", "psfFluxErr")
    science, science_error = _float(sources, "scienceFlux", "scienceFluxErr")
    template, template_error = _float(sources, "templateFlux", "templateFluxErr")
    star = np.fmax(science, template)
    noise = np.sqrt(error**2 + science_error**2 + template_error**2)
    return {
        "share": np.abs(flux) / star,
        "science_snr": np.sign(science) * _log(1 + np.abs(science) / science_error),
        "template_snr": np.sign(template) * _log(1 + np.abs(template) / template_error),
        "template_share": template / science,
        "mismatch": (science - template - flux) * np.sign(flux) / noise,
        "mismatch_share": (science - template) / flux,
    }


def _shape(sources: Catalog, quality: Catalog) -> dict[str, Float64]:
    xx, yy, xy, p_xx, p_yy, p_xy = _float(sources, "ixx", "iyy", "ixy", "ixxPSF", "iyyPSF", "ixyPSF")
    snr = _snr(sources)
    size = quality["sizeRatio"].astype(np.float64)
    trace, p_trace = xx + yy, p_xx + p_yy
    elongation = np.hypot((xx - yy) / trace - (p_xx - p_yy) / p_trace, 2 * (xy / trace - p_xy / p_trace))
    return {
        "size": size,
        "size_pull": (size - 1) * snr / (2 * np.maximum(size, 0.1)),
        "elongation": elongation,
        "elongation_pull": elongation * snr,
        "extendedness": sources["extendedness"].astype(np.float64),
        "has_shape": (sources["shape_flag"] == 0).astype(np.float64),
    }


def _dipole(sources: Catalog, quality: Catalog) -> dict[str, Float64]:
    flux, mean, difference = _float(sources, "psfFlux", "dipoleMeanFlux", "dipoleFluxDiff")
    length, chi2, n_data = _float(sources, "dipoleLength", "dipoleChi2", "dipoleNdata")
    psf_chi2, psf_n_data = _float(sources, "psfChi2", "psfNdata")
    per_pixel = chi2 / np.maximum(n_data, 1)
    return {
        "both_signs": quality["hasBothSigns"].astype(np.float64),
        "is_dipole": (sources["isDipole"] == 1).astype(np.float64),
        "dipole_balance": np.abs(difference) / mean,
        "dipole_share": mean / np.abs(flux),
        "dipole_length": length / _fwhm_arcsec(sources),
        "dipole_chi2": per_pixel / (psf_chi2 / np.maximum(psf_n_data, 1)),
    }


def _trail(sources: Catalog) -> dict[str, Float64]:
    flux, trail, length, chi2, n_data = _float(
        sources, "psfFlux", "trailFlux", "trailLength", "trailChi2", "trailNdata"
    )
    psf_chi2, psf_n_data = _float(sources, "psfChi2", "psfNdata")
    return {
        "trail_share": trail / flux,
        "trail_length": length / _fwhm_arcsec(sources),
        "trail_chi2": _log(chi2 / np.maximum(n_data - 5, 1)),
        "trail_gain": chi2 / np.maximum(n_data, 1) / (psf_chi2 / np.maximum(psf_n_data, 1)),
    }


def _masks(quality: Catalog) -> dict[str, Float64]:
    footprint, center = quality["footprintMask"], quality["centerMask"]
    found = {f"footprint_{name}": (footprint & int(bits)) != 0 for name, bits in FOOTPRINT_BITS.items()}
    found |= {f"center_{name}": (center & int(FOOTPRINT_BITS[name])) != 0 for name in ("saturated", "suspect")}
    return {name: is_set.astype(np.float64) for name, is_set in found.items()}


def _neighbors(sources: Catalog, around: Surroundings) -> dict[str, Float64]:
    """Other detections and other stars near by, in widths of the PSF."""
    xy = np.stack(_float(sources, "x", "y"), axis=-1)
    fwhm = _fwhm_arcsec(sources) / around.pixel_scale_arcsec
    fwhm = np.where(np.isfinite(fwhm), fwhm, np.nanmedian(fwhm) if np.isfinite(fwhm).any() else 4.0)
    error = sources["psfFluxErr"].astype(np.float64)
    detected = np.stack([around.x, around.y], axis=-1)
    return {
        **_detections_near(xy, fwhm, detected),
        **_stars_near(xy, fwhm, error, np.abs(sources["psfFlux"].astype(np.float64)), around.sources),
    }


def _detections_near(xy: Float64, fwhm: Float64, detected: Float64) -> dict[str, Float64]:
    if xy.size == 0 or detected.size == 0:
        nothing = np.full(xy.shape[0], np.nan)
        return {"nearest_detection": nothing, "detections_near": nothing}
    tree = cKDTree(detected)
    distance, _ = tree.query(xy, k=min(2, detected.shape[0]))
    other = distance[:, -1] if distance.ndim == 2 else np.full(xy.shape[0], np.inf)
    number = np.asarray(tree.query_ball_point(xy, NEIGHBOR_FWHM * fwhm, return_length=True), np.float64)
    return {"nearest_detection": np.minimum(other / fwhm, 50.0), "detections_near": number}


def _stars_near(xy: Float64, fwhm: Float64, error: Float64, flux: Float64, stars: Catalog) -> dict[str, Float64]:
    """Light of the brightest wing here, of the detector's brightest stars and the nearest ones, and whose it is."""
    n = xy.shape[0]
    if n == 0 or stars.size < N_NEAREST:
        return dict.fromkeys(("wing", "wing_share", "star_distance", "star_contrast"), np.full(n, np.nan))
    brightness = np.nan_to_num(np.fmax(stars["psfFlux"], stars["apFlux"]).astype(np.float64))
    places = np.stack(_float(stars, "x", "y"), axis=-1)
    _, nearest = cKDTree(places).query(xy, k=N_NEAREST)
    brightest = np.argsort(-brightness, kind="stable")[:N_BRIGHTEST]
    index = np.concatenate([nearest, np.broadcast_to(brightest, (n, brightest.size))], axis=1)
    offset = places[index] - xy[:, None, :]
    square = np.einsum("ijk,ijk->ij", offset, offset) / np.square(fwhm)[:, None]
    light = brightness[index] / ((1 + square) * np.sqrt(1 + square))
    rows, column = np.arange(n), np.argmax(light, axis=1)
    wing, star = light[rows, column], brightness[index[rows, column]]
    return {
        "wing": _log(wing / error),
        "wing_share": _log(wing / flux),
        "star_distance": np.minimum(np.sqrt(square[rows, column]), 100.0),
        "star_contrast": _log(star / flux),
    }


def _subtraction(sources: Catalog, residuals: StarResiduals) -> dict[str, Float64]:
    """The change, as a share of the star it sits on, against what is left of the stars near by."""
    n = sources["x"].size
    flux, error, science, template = _float(sources, "psfFlux", "psfFluxErr", "scienceFlux", "templateFlux")
    star = np.fmax(science, template)
    share = np.abs(flux) / star
    if n == 0 or residuals.x.size <= N_WITNESSES:
        nothing = np.full(n, np.nan)
        return dict.fromkeys(("residual", "residual_same_sign", "share_over_residual", "share_pull"), nothing)
    tree = cKDTree(np.stack([residuals.x, residuals.y], axis=-1))
    distance, rows = tree.query(np.stack(_float(sources, "x", "y"), axis=-1), k=N_WITNESSES + 1)
    # a star is no witness of itself
    is_own = distance[:, :1] < OWN_PIX
    left = residuals.share[np.where(is_own, rows[:, 1:], rows[:, :-1])]
    typical = np.median(np.abs(left), axis=1)
    signed = np.median(left, axis=1) * np.sign(flux)
    return {
        "residual": _log(typical),
        "residual_same_sign": signed / share,
        "share_over_residual": _log(share / typical),
        "share_pull": (share - signed) / np.hypot(1.5 * typical, error / star),
    }
