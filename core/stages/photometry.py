"""Zero point of the exposure from reference stars."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.contracts.catalogs import Catalog
from core.contracts.exposure import Frame, PhotoCalib
from core.contracts.results import MatchedPairs
from core.errors import Outcome, UnusableDataError
from core.flags import Mask

Float64 = NDArray[np.float64]

COLOR_BANDS: Final = MappingProxyType(
    {"u": ("u", "g"), "g": ("g", "i"), "r": ("g", "i"), "i": ("g", "i"), "z": ("g", "i"), "y": ("g", "i")}
)
"""Color that corrects each band."""

_MAG_PER_LN: Final = 1.0857
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


def fit_zero_point(
    sources: Catalog, reference_stars: Catalog, pairs: MatchedPairs, band: str, config: PhotometryConfig
) -> PhotoCalib:
    """Scale from PSF electrons to nJy by matched, unsaturated stars.

    PSF fluxes are compared with the catalog's total fluxes, so the scale holds the aperture correction. Clipped,
    weighted fit of the zero point and, with enough stars, a color term.

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
    is_fitted = term is None and has_colors
    design = np.stack([np.ones_like(color), color], axis=-1) if is_fitted else np.ones((color.size, 1))
    zero_point, scatter, keep, uncertainty = _clipped_fit(design, magnitude, error, config)
    return PhotoCalib(
        njy_per_electron=float(10 ** (-0.4 * (zero_point - 31.4))),
        relative_error=uncertainty / _MAG_PER_LN,
        n_stars=int(keep.sum()),
        scatter_mag=scatter,
    )


def apply_zero_point(frame: Frame, photo_calib: PhotoCalib) -> None:
    """Turn image and variance from electrons to nJy, in place."""
    scale = np.float32(photo_calib.njy_per_electron)
    np.multiply(frame.image, scale, out=frame.image)
    np.multiply(frame.variance, scale * scale, out=frame.variance)


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


def _clipped_fit(
    design: Float64, magnitude: Float64, error: Float64, config: PhotometryConfig
) -> tuple[float, float, NDArray[np.bool_], float]:
    """Constant term, robust scatter [mag], stars kept and error of the constant [mag]."""
    keep = np.abs(magnitude - np.median(magnitude)) < 0.5
    scatter = 0.0
    solution = np.zeros(design.shape[1])
    covariance: Float64 = np.eye(design.shape[1])
    for _ in range(6):
        weight = keep / error**2
        covariance = np.asarray(np.linalg.pinv(design.T @ (design * weight[:, None])), np.float64)
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
    return float(solution[0]), scatter, keep, spread
