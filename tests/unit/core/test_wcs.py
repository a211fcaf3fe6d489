"""The WCS against astropy's and against itself."""

import numpy as np
import pytest
from astropy.io.fits import Header
from astropy.wcs import WCS
from hypothesis import given
from hypothesis import strategies as st

from core.contracts.wcs import Wcs, plane_to_sky, separation_arcsec, sky_to_plane
from core.errors import RejectedInputError


def distorted_wcs(ra_deg: float = 320.9, dec_deg: float = -0.4, angle_deg: float = 33.0) -> Wcs:
    angle = np.radians(angle_deg)
    scale = 0.2 / 3600
    sip_a, sip_b = np.zeros((4, 4)), np.zeros((4, 4))
    sip_a[2, 0], sip_a[1, 1], sip_a[3, 0], sip_a[1, 2] = 1.4e-7, 3e-8, -8e-11, -8e-11
    sip_b[0, 2], sip_b[1, 1], sip_b[0, 3], sip_b[2, 1] = 1.5e-7, 2e-8, -8e-11, -8e-11
    return Wcs(
        crpix=np.array([2047.5, 2001.5]),
        crval=np.array([ra_deg, dec_deg]),
        cd=scale * np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]]),
        sip_a=sip_a,
        sip_b=sip_b,
    )


@pytest.mark.parametrize("center", [(320.9, -0.4), (0.01, 85.0), (359.99, -60.0)])
def test_pixel_to_sky_agrees_with_astropy(center: tuple[float, float]) -> None:
    wcs = distorted_wcs(*center)
    reference = WCS(Header(wcs.to_header()))
    rng = np.random.default_rng(1)
    x, y = rng.uniform(0, 4096, 200), rng.uniform(0, 4004, 200)
    ra, dec = wcs.pixel_to_sky(x, y)
    expected = reference.all_pix2world(x, y, 0)
    assert separation_arcsec(ra, dec, *expected).max() < 1e-7


@given(x=st.floats(-200, 4300), y=st.floats(-200, 4200))
def test_sky_to_pixel_inverts(x: float, y: float) -> None:
    wcs = distorted_wcs()
    back = wcs.sky_to_pixel(*wcs.pixel_to_sky(x, y))
    np.testing.assert_allclose(back, (x, y), atol=1e-6)


def test_header_round_trip() -> None:
    wcs = distorted_wcs()
    again = Wcs.from_header(wcs.to_header())
    for name in ("crpix", "crval", "cd", "sip_a", "sip_b"):
        np.testing.assert_array_equal(getattr(again, name), getattr(wcs, name))


def test_local_cd_matches_finite_differences_of_astropy() -> None:
    wcs = distorted_wcs()
    reference = WCS(Header(wcs.to_header()))
    ra, dec = reference.all_pix2world([100.5, 99.5], [200.0, 200.0], 0)
    center = reference.all_pix2world([100.0], [200.0], 0)
    east = (ra[0] - ra[1]) * np.cos(np.radians(center[1][0]))
    np.testing.assert_allclose(wcs.local_cd(100, 200)[:, 0], [east, dec[0] - dec[1]], rtol=1e-5)


def test_projection_far_away_is_nan_and_near_is_exact() -> None:
    xi, _ = sky_to_plane(140.0, 0.0, np.array([320.0, 0.0]))
    assert np.isnan(xi)
    ra, dec = plane_to_sky(*sky_to_plane(10.0, 89.99, np.array([200.0, 89.0])), np.array([200.0, 89.0]))
    np.testing.assert_allclose([ra, dec], [10.0, 89.99], atol=1e-9)


def test_bad_input_is_rejected() -> None:
    with pytest.raises(RejectedInputError, match="singular"):
        Wcs(crpix=np.zeros(2), crval=np.zeros(2), cd=np.zeros((2, 2)))
    with pytest.raises(RejectedInputError, match="TAN"):
        Wcs.from_header({"CTYPE1": "RA---ZPN"})
