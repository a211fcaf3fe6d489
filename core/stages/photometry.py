"""Zero point of the exposure from reference stars."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.contracts.catalogs import Catalog
from core.contracts.exposure import ILLUMINATION_ORDER, Frame, PhotoCalib
from core.contracts.psf import polynomial_terms
from core.contracts.results import MatchedPairs
from core.errors import Outcome, UnusableDataError
from core.flags import Mask
from core.kernels.illumination import scale_planes

Float64 = NDArray[np.float64]

COLOR_BANDS: Final = MappingProxyType(
    {"u": ("u", "g"), "g": ("g", "i"), "r": ("g", "i"), "i": ("g", "i"), "z": ("g", "i"), "y": ("g", "i")}
)
"""Color that corrects each band."""

_MAG_PER_LN: Final = 1.0857
_MEAN_TERMS: Final = np.array([1.0, 0.0, 0.0, 1 / 3, 0.0, 1 / 3])
"""Means of the illumination's terms over a detector."""
_UNTRUSTED: Final = np.uint16(Mask.SAT | Mask.BAD | Mask.CR | Mask.NODATA | Mask.EDGE | Mask.SUSPECT)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotometryConfig:
    """How the zero point is found."""

    color_terms: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """Magnitudes per magnitude of color, ``ours = reference + term * (color - color_zero)``; fitted where absent."""
    color_zero: float = 0.8
    """Color at which the two systems agree."""
    color_range: tuple[float, float] = (-0.5, 3.5)
    min_snr: float = 30.0
    min_reference_snr: float = 20.0
    min_stars: int = 3
    min_stars_for_color: int = 25
    """Fewer stars fit no color term."""
    min_color_spread_mag: float = 0.15
    """Stars of nearly one color (standard deviation below this) cannot tell a color term from a zero point."""
    clip_sigma: float = 3.0
    error_floor_mag: float = 0.005
    min_stars_for_illumination: int = 60
    illumination_rms_mag: float = 0.01
    """What each term of the illumination is expected to be: few stars leave it near zero."""
    change_color: float = 0.4
    """Color of what is measured in a difference: quasars, supernovae near maximum and RR Lyrae stars lie about here.
    The same as that of positions (``AstrometryConfig.color_zero``)."""
    chromatic_width_rms: float = 0.004
    """How much the PSF's relative width is expected to change with color [1/mag]: few stars leave it near zero."""


def fit_zero_point(
    sources: Catalog,
    reference_stars: Catalog,
    pairs: MatchedPairs,
    band: str,
    shape: tuple[int, int],
    config: PhotometryConfig,
) -> PhotoCalib:
    """Scale from PSF electrons to nJy by matched, unsaturated stars of a detector of (ny, nx) pixels.

    PSF fluxes are compared with the catalog's total fluxes, so the scale holds the aperture correction. Clipped,
    weighted fit of the zero point and, with enough stars, a color term and what the flat left of the response: a dome
    is not lit as the sky is (Regnault et al. 2009, A&A 506, 999, section 5).

    Raises ``UnusableDataError`` (astrometry_failed) where fewer than ``min_stars`` remain.
    """
    ours, stars = sources[pairs.source_index], reference_stars[pairs.reference_index]
    magnitude, error, color = _zero_points(ours, stars, band, config)
    usable = np.isfinite(magnitude) & np.isfinite(error)
    if usable.sum() < config.min_stars:
        raise UnusableDataError(
            "too few stars for a zero point",
            outcome=Outcome.ASTROMETRY_FAILED,
            code="no_photometry_stars",
            n_stars=int(usable.sum()),
        )
    magnitude, error = magnitude[usable], error[usable]
    color = np.where(np.isfinite(color), color - config.color_zero, 0.0)[usable]
    term = config.color_terms.get(band)
    if term is not None:
        magnitude = magnitude + term * color
    has_colors = usable.sum() >= config.min_stars_for_color and float(np.std(color)) > config.min_color_spread_mag
    columns, expected = [np.ones_like(color)], [np.inf]
    if term is None and has_colors:
        columns, expected = [*columns, color], [*expected, np.inf]
    n_other = len(columns)
    if usable.sum() >= config.min_stars_for_illumination:
        surface = polynomial_terms(ours["x"][usable], ours["y"][usable], shape, ILLUMINATION_ORDER)
        columns += list((surface - _MEAN_TERMS)[:, 1:].T)
        expected += [config.illumination_rms_mag] * (surface.shape[1] - 1)
    design, prior = np.stack(columns, axis=-1), 1 / np.square(expected)
    solution, scatter, keep, uncertainty = _clipped_fit(design, magnitude, error, prior, config)
    varying = solution[n_other:]
    slope, star_color = _chromatic_width(ours["widthExcess"][usable], color, config)
    # a PSF flux falls by the fraction by which the source is wider than the model: sum(P P_w) / sum(P**2) ~ 1 - w
    matched = 1 + slope * star_color
    return PhotoCalib(
        njy_per_electron=matched * float(10 ** (-0.4 * (solution[0] - 31.4))),
        relative_error=uncertainty / _MAG_PER_LN,
        n_stars=int(keep.sum()),
        scatter_mag=scatter,
        illumination=(-float(varying @ _MEAN_TERMS[1:]), *varying.tolist()) if varying.size else (),
        change_width=slope * (config.change_color - config.color_zero - star_color),
    )


def apply_zero_point(frame: Frame, photo_calib: PhotoCalib) -> None:
    """Turn image and variance from electrons to nJy, in place."""
    varying = np.array(photo_calib.illumination or (0.0,) * _MEAN_TERMS.size)
    scale_planes(frame.image, frame.variance, photo_calib.njy_per_electron, varying)


def _zero_points(
    ours: Catalog, stars: Catalog, band: str, config: PhotometryConfig
) -> tuple[Float64, Float64, Float64]:
    """Magnitude of one electron by each star, its error [mag], and the star's color; NaN where a star is not fit."""
    flux, reference = ours["psfFlux"].astype(np.float64), stars[f"{band}_flux"].astype(np.float64)
    error = ours["psfFluxErr"].astype(np.float64)
    reference_error = np.nan_to_num(stars[f"{band}_fluxErr"].astype(np.float64), nan=np.inf)
    good = stars["isStar"] & (flux > config.min_snr * error) & (reference > config.min_reference_snr * reference_error)
    good &= (ours["mask"] & _UNTRUSTED) == 0
    with np.errstate(divide="ignore", invalid="ignore"):
        magnitude = np.where(good, 31.4 - 2.5 * np.log10(reference / flux), np.nan)
        relative = np.sqrt((error / flux) ** 2 + (reference_error / reference) ** 2)
        blue, red = (stars[f"{b}_flux"].astype(np.float64) for b in COLOR_BANDS[band])
        color = -2.5 * np.log10(blue / red)
    lowest, highest = config.color_range
    magnitude[(color < lowest) | (color > highest)] = np.nan
    return magnitude, np.hypot(_MAG_PER_LN * relative, config.error_floor_mag), color


def _chromatic_width(width: Float64, color: Float64, config: PhotometryConfig) -> tuple[float, float]:
    """Change of the PSF's relative width with color [1/mag], and the mean color of the stars it was made of."""
    use = np.isfinite(width)
    if use.sum() < config.min_stars_for_color:
        return 0.0, 0.0
    slope = mean_color = 0.0
    for _ in range(4):
        mean_color = float(color[use].mean())
        offset, mean_width = color - mean_color, float(width[use].mean())
        residual = width - mean_width - slope * offset
        spread = float(1.4826 * np.median(np.abs(residual[use])))
        use = np.isfinite(width) & (np.abs(residual) <= config.clip_sigma * spread)
        precision = np.square(offset[use]).sum() + (spread / config.chromatic_width_rms) ** 2
        slope = float((offset[use] * (width[use] - mean_width)).sum() / precision)
    return slope, mean_color


def _clipped_fit(
    design: Float64, magnitude: Float64, error: Float64, prior: Float64, config: PhotometryConfig
) -> tuple[Float64, float, NDArray[np.bool_], float]:
    """Coefficients (their inverse variance about zero is ``prior``), scatter [mag], stars kept, error of the first."""
    keep = np.abs(magnitude - np.median(magnitude)) < 0.5
    scatter = 0.0
    solution = np.zeros(design.shape[1])
    covariance: Float64 = np.eye(design.shape[1])
    for _ in range(6):
        weight = keep / error**2
        covariance = np.asarray(np.linalg.pinv(design.T @ (design * weight[:, None]) + np.diag(prior)), np.float64)
        solution = covariance @ (design.T @ (weight * magnitude))
        residual = magnitude - design @ solution
        scatter = float(1.4826 * np.median(np.abs(residual[keep])))
        pull = float(1.4826 * np.median(np.abs(residual[keep] / error[keep])))
        previous, keep = keep, np.abs(residual) < config.clip_sigma * max(pull, 1.0) * error
        if keep.sum() < config.min_stars:
            keep = previous
            break
        if (keep == previous).all():
            break
    spread = max(scatter / np.sqrt(max(int(keep.sum()), 1)), float(np.sqrt(covariance[0, 0])))
    return solution, scatter, keep, spread
