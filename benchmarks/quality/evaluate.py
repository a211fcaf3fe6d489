"""Figures of one detector-visit: plain arrays and counts, so that many can be pooled."""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.background import sky_pulls, snr_map_sd, zero_point_error
from benchmarks.quality.cosmic_rays import CosmicRayCounts, count_cosmic_rays, is_center_lost
from benchmarks.quality.false_positives import causes, is_false
from benchmarks.quality.matching import match_one_to_one, offsets_mas
from benchmarks.quality.photometry import forced_flux
from benchmarks.quality.products import Products, signs
from benchmarks.quality.reliability import classify, count, no_counts
from benchmarks.quality.theory import centroid_bound_pix, expected_noise_peaks, photon_noise
from benchmarks.quality.truth import Truth

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

DETECTION_SNR: Final = 5.0
FALSE_BRIGHT_SNR: Final = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Injections:
    """One row per injected source of a detector-visit.

    ``snr`` is SNR_true; ``is_found`` matched by a DIASource; ``east_mas, north_mas`` found minus true position and
    ``ratio`` measured over true flux, NaN where not found; ``bound_mas`` the Cramér-Rao bound per axis;
    ``ratio_error`` what noise explains, the frame's and the source's own photons'; ``pull`` of the flux forced at the
    true position; ``is_hosted`` on a galaxy; ``is_center_lost`` to a cosmic ray that is none.
    """

    snr: Float64
    is_claimed: Bool
    is_found: Bool
    east_mas: Float64
    north_mas: Float64
    bound_mas: Float64
    ratio: Float64
    ratio_error: Float64
    pull: Float64
    is_hosted: Bool
    is_center_lost: Bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorQuality:
    """Quality of one detector-visit."""

    visit: int
    detector: int
    band: str
    fwhm_arcsec: float
    injections: Injections
    variables: Injections
    claimed_fraction: float
    n_dia_sources: int
    n_false: int
    n_false_snr6: int
    noise_expected: float
    causes: dict[str, int]
    zero_point_error_mag: float
    sky_pull: Float64
    snr_map_sd: float
    cosmic_rays: CosmicRayCounts
    reliability: NDArray[np.int64] = field(default_factory=no_counts)
    """As :func:`benchmarks.quality.reliability.count` gives it."""


def evaluate(products: Products, truth: Truth, seed: int = 1) -> DetectorQuality:
    """Compare one detector-visit with its truth."""
    claimed = products.claimed()
    false = is_false(products, truth)
    n_claimed = int(np.count_nonzero(claimed))
    return DetectorQuality(
        visit=products.visit,
        detector=products.detector,
        band=products.band,
        fwhm_arcsec=truth.fwhm_arcsec,
        injections=measure_injections(products, truth, claimed, truth.is_injected),
        variables=measure_injections(products, truth, claimed, truth.is_kind("variable")),
        claimed_fraction=n_claimed / claimed.size,
        n_dia_sources=int(products.dia_sources.size),
        n_false=int(false.sum()),
        n_false_snr6=int((false & (np.abs(products.dia_sources["snr"]) > FALSE_BRIGHT_SNR)).sum()),
        noise_expected=expected_noise_peaks(truth.mean_psf(), n_claimed, DETECTION_SNR),
        causes=causes(products, truth, false),
        zero_point_error_mag=zero_point_error(products, truth),
        sky_pull=sky_pulls(products, truth, seed),
        snr_map_sd=snr_map_sd(products, truth),
        cosmic_rays=count_cosmic_rays(products, truth, false),
        reliability=count(classify(products, truth), products.dia_sources["snr"], products.dia_sources["reliability"]),
    )


def measure_injections(products: Products, truth: Truth, claimed: Bool, chosen: Bool) -> Injections:
    """Match and measure the chosen rows of the truth that lie on the frame."""
    ny, nx = claimed.shape
    ix, iy = (np.rint(truth.rows[name]).astype(np.int64) for name in ("x", "y"))
    on_frame = (ix >= 0) & (iy >= 0) & (ix < nx) & (iy < ny)
    candidates = np.flatnonzero(truth.is_change | chosen)
    rows = truth.rows[candidates]
    found = match_one_to_one(
        (rows["ra"], rows["dec"]),
        np.where(rows["flux"] < 0, -1, 1).astype(np.int8),
        (products.dia_sources["ra"], products.dia_sources["dec"]),
        signs(products.dia_sources),
    )
    wanted = (chosen & on_frame)[candidates]
    rows, found, where = rows[wanted], found[wanted], candidates[wanted]
    is_found = found >= 0
    matched = products.dia_sources[found[is_found]]
    east, north, ratio = (np.full(rows.size, np.nan) for _ in range(3))
    east[is_found], north[is_found] = offsets_mas(
        (rows["ra"][is_found], rows["dec"][is_found]), (matched["ra"], matched["dec"])
    )
    ratio[is_found] = matched["psfFlux"] / rows["flux"][is_found]
    flux, error = forced_flux(products, rows["x"], rows["y"])
    snr = np.abs(rows["snr_true"])
    return Injections(
        snr=snr,
        is_claimed=claimed[iy[where], ix[where]],
        is_found=is_found,
        east_mas=east,
        north_mas=north,
        bound_mas=centroid_bound_pix(truth.mean_psf(), snr) * products.pixel_scale_arcsec * 1000,
        ratio=ratio,
        ratio_error=np.hypot(1 / snr, photon_noise(truth.mean_psf(), np.abs(rows["flux"]) / truth.njy_per_electron)),
        pull=(flux - rows["flux"]) / error,
        is_hosted=rows["hosted"].astype(bool),
        is_center_lost=is_center_lost(products, truth, rows["x"], rows["y"]),
    )
