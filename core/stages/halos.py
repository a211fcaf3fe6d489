"""Halos that a kernel of finite width leaves around the brightest stars in a difference."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.contracts.catalogs import Catalog
from core.contracts.exposure import Frame
from core.flags import Mask
from core.kernels.halos import ring_medians, subtract_profile

Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]

_MASKED: Final = int(Mask.BAD | Mask.SAT | Mask.CR | Mask.NODATA | Mask.STREAK | Mask.SAT_TEMPLATE)
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
    """Rings whose radii differ by less than this fraction are averaged."""


def subtract_halos(difference: Frame, stars: Catalog, config: HaloConfig | None = None) -> int:
    """Subtract in place the median radial profile of the difference around each bright star; returns their number.

    The wings of a PSF reach farther than any kernel that is fitted, and a saturated star's core is no help. A median
    over rings leaves what is not round about the star, so a transient in the halo keeps its flux. Medians of a few
    hundred pixels have errors, which all pixels of a ring would share: neighbouring rings are averaged, and what is
    lost in its error is left alone.

    Parameters
    ----------
    stars : SOURCE rows of the science image, brightest first.
    """
    config = config or HaloConfig()
    is_bright = ((stars["mask"] & _SATURATED) != 0) | (stars["snr"] > config.min_snr)
    # The brightest always counts: every visit takes the same path, and none is the first to meet a kernel.
    is_bright[:1] = True
    rows = np.flatnonzero(is_bright)[: config.max_stars]
    rings, middle = _rings(config)
    n_rings, reach = middle.size, config.radius_pix
    n_pixels = np.bincount(rings.ravel(), minlength=n_rings)[:n_rings]
    values = np.empty((n_rings, int(n_pixels.max())), np.float32)
    near = np.abs(np.log(middle[:, None] / middle[None, :])) < config.smoothing
    profile, whole = np.empty(n_rings), np.arange(reach + 1, dtype=np.float64)
    done: list[tuple[int, int]] = []
    for row in rows:
        y, x = round(float(stars["y"][row])), round(float(stars["x"][row]))
        # One star is one halo, however many peaks its bleed gave.
        if any(abs(y - b) < reach // 3 and abs(x - a) < reach // 6 for b, a in done):
            continue
        done.append((y, x))
        ring_medians(difference.image, difference.mask, _MASKED, y, x, rings, config.min_pixels, values, profile)
        known = np.isfinite(profile)
        if known.sum() >= 3:
            level, spread = _smooth(profile, n_pixels, near, _pixel_sigma(difference, y, x, reach))
            level, spread = level[known] - level[known][-1], spread[known]
            level *= level**2 / np.maximum(level**2 + spread**2, 1e-30)
            subtract_profile(np.interp(whole, middle[known], level, right=0.0), y, x, reach, difference.image)
    return len(done)


def _pixel_sigma(difference: Frame, y: int, x: int, reach: int) -> float:
    """Noise of the sky's pixels about a place."""
    box = (slice(max(y - reach, 0), y + reach + 1, 8), slice(max(x - reach, 0), x + reach + 1, 8))
    return float(np.sqrt(np.percentile(difference.variance[box], 25)))


def _smooth(
    profile: Float64, n_pixels: NDArray[np.int64], near: NDArray[np.bool_], sigma: float
) -> tuple[Float64, Float64]:
    """Averages over the rings ``near`` each, weighed by their pixels, and their errors: 1.25 times a mean's."""
    weight = near * np.where(np.isfinite(profile), n_pixels, 0)
    total = np.maximum(weight.sum(axis=1), 1)
    return weight @ np.nan_to_num(profile) / total, 1.25 * sigma / np.sqrt(total)


def _rings(config: HaloConfig) -> tuple[Int32, Float64]:
    """Ring of each pixel of a square of side 2 reach + 1, and the rings' mean radii [pixel]."""
    edges = [0.0]
    while edges[-1] < config.radius_pix:
        edges.append(edges[-1] + max(2.0, config.ring_growth * edges[-1]))
    axis = np.arange(-config.radius_pix, config.radius_pix + 1)
    ring = np.searchsorted(edges, np.hypot(axis[:, None], axis[None, :]), side="right") - 1
    middle = (np.array(edges[:-1]) + np.array(edges[1:])) / 2
    return np.minimum(ring, middle.size).astype(np.int32), middle
