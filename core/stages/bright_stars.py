"""Flag what lies so near a bright star that its light is most of what was subtracted."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from core.contracts.catalogs import Catalog
from core.contracts.exposure import VisitInfo
from core.stages.star_motion import positions_at_epoch

Float64 = NDArray[np.float64]

_FLAGS: Final = ("pixelFlags_suspect", "pixelFlags_suspectCenter")


@dataclass(frozen=True, slots=True, kw_only=True)
class BrightStarConfig:
    """Radius about a star: wings fall with the square of the distance, so it grows with the root of the flux."""

    faintest_mag: float = 18.0
    """In the visit's band."""
    radius_arcsec: float = 4.0
    """At ``faintest_mag``."""
    max_radius_arcsec: float = 30.0


def flag_near_bright_stars(
    sources: Catalog, reference_stars: Catalog, visit_info: VisitInfo, config: BrightStarConfig
) -> int:
    """Set ``pixelFlags_suspect`` and ``…Center`` of DIASources near bright reference stars, in place; how many.

    They are sent: a nova on a bright star is one. Brokers that want none of the rest can leave them out.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        mag = 31.4 - 2.5 * np.log10(reference_stars[f"{visit_info.band}_flux"].astype(np.float64))
    bright = np.flatnonzero(mag <= config.faintest_mag)
    if bright.size == 0 or sources.size == 0:
        return 0
    ra, dec = positions_at_epoch(reference_stars[bright], visit_info.midpoint_mjd_tai)
    radius = config.radius_arcsec * 10 ** (0.2 * (config.faintest_mag - mag[bright]))
    radius = np.minimum(radius, config.max_radius_arcsec)
    # arcsec on the tangent plane of the first source: a detector is small
    cosine = np.cos(np.radians(float(sources["dec"][0])))

    def plane(ra_deg: Float64, dec_deg: Float64) -> Float64:
        east = (ra_deg - float(sources["ra"][0]) + 180) % 360 - 180
        return np.asarray(3600 * np.stack([east * cosine, dec_deg - float(sources["dec"][0])], axis=-1), np.float64)

    near = cKDTree(plane(sources["ra"], sources["dec"])).query_ball_point(plane(ra, dec), radius)
    rows = np.unique(np.concatenate([np.asarray(found, np.int64) for found in near]))
    for flag in _FLAGS:
        sources[flag][rows] = 1
    return int(rows.size)
