"""Which DIASources are sent: cuts on flags and shape, each with its reason."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.contracts.catalogs import Catalog
from core.flags import Mask
from core.kernels import psf_flux
from core.stages.measure import Measurement

Float64 = NDArray[np.float64]

CENTER_BITS: Final = int(Mask.CR | Mask.STREAK | Mask.NODATA | Mask.EDGE)
"""A source with any of these within 3 x 3 pixels of its center is not sent: more of the same may have been missed."""

PIXEL_BITS: Final = int(Mask.BAD | Mask.SAT | Mask.SAT_TEMPLATE | Mask.INTERPOLATED)
"""One with any of these at its central pixel is not; beside it the fit does without the pixel."""


class CutReason(IntEnum):
    """Why a DIASource is not sent; the first that applies, in this order."""

    KEPT = 0
    CENTER_MASKED = 1
    FEW_GOOD_PIXELS = 2
    FAST_TRAIL = 3
    NO_CENTROID = 4
    DIPOLE = 5
    STAR_RESIDUAL = 6
    COSMIC_RAY = 7
    EXTENDED = 8
    BAD_FIT = 9
    FAINT = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagCutConfig:
    """Limits of the cuts."""

    min_good_fraction: float = 0.7
    """Share of the PSF's weight that must lie on usable pixels."""
    max_trail_deg_per_day: float = 10.0
    min_size_ratio: float = 0.45
    """Sources this much smaller than the PSF (area) and not by noise are missed cosmic rays."""
    min_sharpness_sigma: float = 4.0
    max_dipole_share: float = 0.2
    """A dipole is cut where its net flux is less than this share of a star there: the star moved, or seemed to."""
    max_star_residual: float = 0.03
    """A change smaller than this share of the star it sits on is beyond what the subtraction is good for."""
    min_wing_share: float = 0.15
    """Smallest flux of a source as a share of what matching the PSFs took away there: the wings of a bright star."""
    min_wing_snr: float = 20.0
    """S/N of what was taken away from which that counts."""
    max_aperture_excess_sigma: float = 3.0
    """Light in the aperture beyond the fitted point, with a size over ``max_size_ratio``: halos left around stars."""
    aperture_share: float = 0.1
    """Error of the aperture's excess as a share of the point's flux: wings of the PSF, neighbors."""
    max_size_ratio: float = 2.5
    max_halo_ratio: float = 4.0
    """Sources this much larger than the PSF are halos whatever their aperture says."""
    max_chi2_sigma: float = 3.5
    """Limit of chi2 over its expectation in units of its spread: what a particle leaves is no PSF."""
    chi2_snr_share: float = 0.04
    """Error of the PSF: chi2 per pixel may grow with the square of this share of the S/N."""
    chi2_star_share: float = 0.004
    """Error of the subtraction: and with that of this share of the S/N of the star it sits on."""
    max_trail_chi2: float = 5.0
    trail_snr_share: float = 0.03
    """The same limits for a trail, chi2 per pixel."""
    min_flux_snr: float = 4.0
    """The fitted flux must be significant too: the peak in the S/N map alone may be a residual's edge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagCuts:
    """Outcome of the cuts for n sources: ``reason`` (n,) uint8 is a :class:`CutReason`; ``counts`` by its name."""

    is_kept: NDArray[np.bool_]
    reason: NDArray[np.uint8]
    counts: dict[str, int]


def flag_cuts(measurement: Measurement, config: FlagCutConfig) -> FlagCuts:
    """Judge every source; nothing is dropped here, the caller takes ``is_kept`` and reports ``counts``."""
    sources, quality = measurement.sources, measurement.quality
    failed = {
        CutReason.CENTER_MASKED: ((quality["centerMask"] & CENTER_BITS) | (quality["pixelMask"] & PIXEL_BITS)) != 0,
        CutReason.FEW_GOOD_PIXELS: ~(quality["goodFraction"] >= config.min_good_fraction)
        | ((quality["status"] & psf_flux.FIT_NO_GOOD_PIXELS) != 0),
        CutReason.FAST_TRAIL: _is_fast(sources, config),
        # on a long trail the point has no place, the trail has
        CutReason.NO_CENTROID: (sources["centroid_flag"] == 1) & ~_has_trail(sources, config),
        CutReason.DIPOLE: _is_star_dipole(sources, config),
        CutReason.STAR_RESIDUAL: _is_star_residual(sources, config),
        CutReason.COSMIC_RAY: _is_cosmic_ray(sources, quality, config),
        CutReason.EXTENDED: _is_extended(sources, quality, config),
        CutReason.BAD_FIT: _is_bad_fit(sources, config),
        CutReason.FAINT: ~(np.abs(sources["psfFlux"]) >= config.min_flux_snr * sources["psfFluxErr"]),
    }
    reason = np.zeros(sources.size, np.uint8)
    for why, is_failed in reversed(failed.items()):
        reason[is_failed] = why
    counts = {why.name.lower(): int(np.count_nonzero(reason == why)) for why in CutReason}
    return FlagCuts(is_kept=reason == CutReason.KEPT, reason=reason, counts=counts)


def _has_trail(sources: Catalog, config: FlagCutConfig) -> NDArray[np.bool_]:
    """A trail that was fitted, beats the point and leaves no more than a good point would."""
    snr = np.abs(sources["trailFlux"]) / sources["trailFluxErr"]
    limit = config.max_trail_chi2 + (config.trail_snr_share * snr) ** 2
    is_good = (snr >= config.min_flux_snr) & (sources["trailChi2"] <= limit * np.maximum(sources["trailNdata"] - 5, 1))
    return np.asarray((sources["trail_flag"] == 0) & is_good)


def _is_fast(sources: Catalog, config: FlagCutConfig) -> NDArray[np.bool_]:
    limit_arcsec = config.max_trail_deg_per_day * 3600 / 86400 * sources["exposureTime"]
    return np.asarray(_has_trail(sources, config) & (np.nan_to_num(sources["trailLength"]) >= limit_arcsec))


def _is_cosmic_ray(sources: Catalog, quality: Catalog, config: FlagCutConfig) -> NDArray[np.bool_]:
    """A second look with the PSF: light that passed the optics cannot be sharper than the PSF.

    Either the central pixel stands out of its neighbors by more than the PSF allows, or the area is far too small; both
    must be significant against noise (the area's relative error is 2 / SNR).
    """
    spike_excess = (quality["spike"] - 1) / np.maximum(quality["spikeErr"], 0.05)
    snr = np.abs(sources["psfFlux"]) / sources["psfFluxErr"]
    size = quality["sizeRatio"]
    smaller = (1 - size) / np.hypot(2 * np.maximum(size, 0.5) / snr, 0.05)
    is_small = (size < config.min_size_ratio) & (smaller > config.min_sharpness_sigma)
    is_spiked = (quality["spike"] > 1.5) & (spike_excess > config.min_sharpness_sigma)
    return np.asarray(is_small | is_spiked)


def _is_star_dipole(sources: Catalog, config: FlagCutConfig) -> NDArray[np.bool_]:
    """Dipoles of one star; where no star is brighter than the lobes, something else came or went."""
    star = np.fmax(sources["scienceFlux"], sources["templateFlux"])
    return np.asarray((sources["isDipole"] == 1) & (np.abs(sources["psfFlux"]) < config.max_dipole_share * star))


def _is_star_residual(sources: Catalog, config: FlagCutConfig) -> NDArray[np.bool_]:
    """Changes too small a share of a bright star: PSF and kernel are good to about a percent of a peak.

    Beside the star too, where its wings are brighter in one image than in the other: there ``scienceFlux`` is far from
    ``templateFlux + psfFlux``, by what the matched template took away.
    """
    flux, error = np.abs(sources["psfFlux"]), sources["psfFluxErr"]
    star = np.fmax(sources["scienceFlux"], sources["templateFlux"])
    wing = np.nan_to_num(np.abs(sources["scienceFlux"] - sources["templateFlux"] - sources["psfFlux"]))
    is_wing = (wing > config.min_wing_snr * error) & (flux < config.min_wing_share * wing)
    return np.asarray((flux < config.max_star_residual * np.nan_to_num(star)) | is_wing)


def _is_extended(sources: Catalog, quality: Catalog, config: FlagCutConfig) -> NDArray[np.bool_]:
    """Neither point nor trail, as what changes on the sky is: what is left of halos and galaxies is wider."""
    is_trail = _has_trail(sources, config)
    excess = np.abs(sources["apFlux"] - sources["psfFlux"])
    # a trail may be longer than the aperture
    excess = np.where(is_trail, np.abs(sources["apFlux"]) - np.abs(sources["trailFlux"]), excess)
    error = np.hypot(sources["apFluxErr"], config.aperture_share * sources["psfFlux"])
    # without moments the size is unknown, mostly because there is no shape
    size = np.nan_to_num(quality["sizeRatio"], nan=np.inf)
    is_wide = (excess > config.max_aperture_excess_sigma * error) & (size > config.max_size_ratio)
    is_halo = np.isfinite(size) & (size > config.max_halo_ratio) & ~is_trail
    return np.asarray(is_wide | is_halo)


def _is_bad_fit(sources: Catalog, config: FlagCutConfig) -> NDArray[np.bool_]:
    degrees = np.maximum(sources["psfNdata"] - 3, 1)
    snr = np.abs(sources["psfFlux"]) / sources["psfFluxErr"]
    star = np.nan_to_num(np.fmax(sources["scienceFlux"], sources["templateFlux"])) / sources["psfFluxErr"]
    limit = 1 + config.max_chi2_sigma * np.sqrt(2 / degrees) + (config.chi2_snr_share * snr) ** 2
    limit += (config.chi2_star_share * star) ** 2
    return np.asarray(~_has_trail(sources, config) & ~(sources["psfChi2"] <= limit * degrees))
