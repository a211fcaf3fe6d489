"""DIASources near bright stars are flagged within a radius that grows with the star's brightness."""

from dataclasses import replace

import numpy as np
import pytest

from core.contracts.catalogs import DIA_SOURCE, REFERENCE_STAR, Catalog, empty_catalog
from core.stages.bright_stars import BrightStarConfig, flag_near_bright_stars
from tests.support.difference_scene import VISIT_INFO


def catalogs(mag: float, offsets_arcsec: list[float]) -> tuple[Catalog, Catalog]:
    """A star of 18 mag and brighter at RA 0, where RA wraps, and sources north and east of it."""
    stars = np.zeros(2, REFERENCE_STAR)
    stars["ra"], stars["dec"] = [359.99999, 10.0], [-30.0, -30.0]
    for band in ("g", "r", "i"):
        stars[f"{band}_flux"] = 10 ** (-0.4 * (np.array([mag, 12.0]) - 31.4))
    sources = empty_catalog(DIA_SOURCE, 2 * len(offsets_arcsec))
    shift = np.array(offsets_arcsec) / 3600
    n = shift.size
    sources["dec"][:n], sources["ra"][:n] = -30.0 + shift, 359.99999
    sources["dec"][n:], sources["ra"][n:] = -30.0, (359.99999 + shift / np.cos(np.radians(30.0))) % 360
    return sources, stars


@pytest.mark.parametrize(("mag", "radius_arcsec"), [(18.0, 4.0), (16.0, 4.0 * 10**0.4), (8.0, 30.0)])
def test_the_radius_follows_the_magnitude(mag: float, radius_arcsec: float) -> None:
    sources, stars = catalogs(mag, [0.0, 0.97 * radius_arcsec, 1.03 * radius_arcsec])
    info = replace(VISIT_INFO, band="r")
    assert flag_near_bright_stars(sources, stars, info, BrightStarConfig()) == 4
    expected = [1, 1, 0, 1, 1, 0]
    assert (sources["pixelFlags_suspectCenter"] == 1).astype(int).tolist() == expected
    assert (sources["pixelFlags_suspect"] == 1).astype(int).tolist() == expected


def test_a_fainter_star_flags_nothing() -> None:
    sources, stars = catalogs(18.1, [0.0, 1.0])
    assert flag_near_bright_stars(sources, stars, replace(VISIT_INFO, band="r"), BrightStarConfig()) == 0
    assert not (sources["pixelFlags_suspect"] == 1).any()
