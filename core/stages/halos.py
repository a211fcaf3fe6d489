"""Halos that a kernel of finite width leaves around the brightest stars in a difference."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.contracts.catalogs import Catalog
from core.contracts.exposure import Frame
from core.flags import Mask
from core.kernels.halos import LUMP, mark_lumps, ring_medians, subtract_profile

Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]

_MASKED: Final = int(Mask.BAD | Mask.SAT | Mask.CR | Mask.NODATA | Mask.STREAK | Mask.SAT_TEMPLATE)
_MIN_RINGS: Final = 3
_SATURATED: Final = np.uint16(Mask.SAT | Mask.SAT_TEMPLATE)


@dataclass(frozen=True, slots=True, kw_only=True)
class HaloConfig:
    """Which stars, and reach and resolution of their halos."""

    min_snr: float = 1000.0
    """Stars above this have a halo, saturated or not."""
    radius_pix: int = 96
    max_stars: int = 150
    ring_growth: float = 0.06
    """Width of a ring as a fraction of its radius, at least two pixels."""
    min_pixels: int = 16
    """A ring with fewer usable pixels takes its neighbours' value."""
    smoothing: float = 0.15
    """Rings whose radii differ by less than this fraction are averaged, where they agree."""
    lump_sigma: float = 3.5
    """What stands out of the profile by this is a source of its own, and left out of the rings."""


def subtract_halos(difference: Frame, stars: Catalog, psf_area_pix: float, config: HaloConfig | None = None) -> int:
    """Subtract in place the median radial profile of the difference around each bright star; returns their number.

    The wings of a PSF reach farther than any kernel that is fitted, and a saturated star's core is no help. A median
    over rings leaves what is not round about the star; what stands out, a transient in the halo, is left out of the
    medians, which it would raise by some percent of its flux. Medians of a few hundred pixels have errors, which all
    pixels of a ring share: neighbouring rings are averaged, what is lost in its error is left alone, and the error is
    added to the variance. An error e that all of a source's pixels share adds ``e**2 A**2`` to the variance of its
    flux, A being the PSF's area; so the pixels get ``e**2 A``.

    Parameters
    ----------
    stars : SOURCE rows of the science image, brightest first.
    psf_area_pix : ``noise_area_pix`` of the difference's PSF.
    """
    config = config or HaloConfig()
    is_bright = ((stars["mask"] & _SATURATED) != 0) | (stars["snr"] > config.min_snr)
    # The brightest always counts: every visit takes the same path, and none is the first to meet a kernel.
    is_bright[:1] = True
    rows = np.flatnonzero(is_bright)[: config.max_stars]
    rings, middle = _rings(config)
    reach = config.radius_pix
    n_pixels = np.bincount(rings.ravel(), minlength=middle.size)[: middle.size]
    near = np.abs(np.log(middle[:, None] / middle[None, :])) < config.smoothing
    whole = np.arange(reach + 1, dtype=np.float64)
    scratch = _Scratch.of(int(n_pixels.max()), middle.size, reach)
    done: list[tuple[int, int]] = []
    for row in rows:
        y, x = round(float(stars["y"][row])), round(float(stars["x"][row]))
        # One star is one halo, however many peaks its bleed gave.
        if any(abs(y - b) < reach // 3 and abs(x - a) < reach // 6 for b, a in done):
            continue
        done.append((y, x))
        profile = _profile(difference, y, x, rings, middle, whole, scratch, config)
        known = np.isfinite(profile)
        if known.sum() < _MIN_RINGS:
            continue
        level, error = _smooth(profile, n_pixels, near, _pixel_sigma(difference, y, x, reach))
        level, error = level[known] - level[known][-1], error[known]
        level *= level**2 / np.maximum(level**2 + error**2, 1e-30)
        subtract_profile(np.interp(whole, middle[known], level, right=0.0), y, x, reach, difference.image)
        added = np.interp(whole, middle[known], error**2 * psf_area_pix, right=0.0)
        subtract_profile(-added, y, x, reach, difference.variance)
    return len(done)


@dataclass(frozen=True, slots=True)
class _Scratch:
    """What the stars' profiles are made in, one after the other."""

    values: NDArray[np.float32]
    profile: Float64
    lumps: NDArray[np.bool_]

    @classmethod
    def of(cls, most_pixels: int, n_rings: int, reach: int) -> "_Scratch":
        n_squares = -(-(2 * reach + 1) // LUMP)
        return cls(
            np.empty((n_rings, most_pixels), np.float32), np.empty(n_rings), np.zeros((n_squares, n_squares), np.bool_)
        )


def _profile(
    difference: Frame,
    y: int,
    x: int,
    rings: Int32,
    middle: Float64,
    whole: Float64,
    scratch: _Scratch,
    config: HaloConfig,
) -> Float64:
    """(n_rings,) medians about (y, x), without the pixels of what stands out; NaN where there are too few."""
    image, variance, mask = difference.image, difference.variance, difference.mask
    profile, lumps = scratch.profile, scratch.lumps
    rest = (rings, lumps, config.min_pixels, scratch.values, profile)
    lumps[:] = False
    ring_medians(image, mask, _MASKED, y, x, *rest)
    known = np.isfinite(profile)
    if known.sum() >= _MIN_RINGS:
        level = np.interp(whole, middle[known], profile[known])
        mark_lumps(image, variance, mask, _MASKED, y, x, level, config.lump_sigma, lumps)
        ring_medians(image, mask, _MASKED, y, x, *rest)
    return profile


def _pixel_sigma(difference: Frame, y: int, x: int, reach: int) -> float:
    """Noise of the sky's pixels about a place."""
    box = (slice(max(y - reach, 0), y + reach + 1, 8), slice(max(x - reach, 0), x + reach + 1, 8))
    return float(np.sqrt(np.percentile(difference.variance[box], 25)))


def _smooth(
    profile: Float64, n_pixels: NDArray[np.int64], near: NDArray[np.bool_], sigma: float
) -> tuple[Float64, Float64]:
    """Levels of the rings and their errors: a ring's own where it departs from its neighbours' average by more than
    its error, the average over the rings ``near`` it where it does not. The error of a median is 1.25 times a mean's.
    """
    weight = near * np.where(np.isfinite(profile), n_pixels, 0)
    total = np.maximum(weight.sum(axis=1), 1)
    own, average = np.nan_to_num(profile), weight @ np.nan_to_num(profile) / total
    own_error, average_error = (1.25 * sigma / np.sqrt(n) for n in (np.maximum(n_pixels, 1), total))
    part = (own - average) ** 2 / np.maximum((own - average) ** 2 + own_error**2, 1e-30)
    return average + part * (own - average), np.hypot(part * own_error, (1 - part) * average_error)


def _rings(config: HaloConfig) -> tuple[Int32, Float64]:
    """Ring of each pixel of a square of side 2 reach + 1, and the rings' mean radii [pixel]."""
    edges = [0.0]
    while edges[-1] < config.radius_pix:
        edges.append(edges[-1] + max(2.0, config.ring_growth * edges[-1]))
    axis = np.arange(-config.radius_pix, config.radius_pix + 1)
    ring = np.searchsorted(edges, np.hypot(axis[:, None], axis[None, :]), side="right") - 1
    middle = (np.array(edges[:-1]) + np.array(edges[1:])) / 2
    return np.minimum(ring, middle.size).astype(np.int32), middle
