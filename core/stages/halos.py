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


def subtract_halos(difference: Frame, stars: Catalog, config: HaloConfig | None = None) -> int:
    """Subtract in place the median radial profile of the difference around each bright star; returns their number.

    The wings of a PSF reach farther than any kernel that is fitted, and a saturated star's core is no help. A median
    over rings leaves what is not round about the star, so a transient in the halo keeps its flux.

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
    values = np.empty((n_rings, int(np.bincount(rings.ravel(), minlength=n_rings)[:n_rings].max())), np.float32)
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
            level = profile[known] - profile[known][-1]
            subtract_profile(np.interp(whole, middle[known], level, right=0.0), y, x, reach, difference.image)
    return len(done)


def _rings(config: HaloConfig) -> tuple[Int32, Float64]:
    """Ring of each pixel of a square of side 2 reach + 1, and the rings' mean radii [pixel]."""
    edges = [0.0]
    while edges[-1] < config.radius_pix:
        edges.append(edges[-1] + max(2.0, config.ring_growth * edges[-1]))
    axis = np.arange(-config.radius_pix, config.radius_pix + 1)
    ring = np.searchsorted(edges, np.hypot(axis[:, None], axis[None, :]), side="right") - 1
    middle = (np.array(edges[:-1]) + np.array(edges[1:])) / 2
    return np.minimum(ring, middle.size).astype(np.int32), middle
