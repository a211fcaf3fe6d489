"""Cutouts as astropy decodes them."""

import io
import warnings

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.wcs import WCS

from alerts.cutouts import cutout_fits, local_wcs_cards, psf_hdu
from core.contracts.wcs import Wcs, separation_arcsec

SIP = np.zeros((4, 4))
SIP[2, 0], SIP[1, 2] = 2e-7, -3e-11


@pytest.mark.parametrize("dec_deg", [-27.8, 89.2, 0.0])
def test_astropy_reads_pixels_psf_and_position(dec_deg: float) -> None:
    rng = np.random.default_rng(2)
    angle = np.radians(33)
    cd = 0.2 / 3600 * np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    wcs = Wcs(crpix=np.array([2000.0, 1990.0]), crval=np.array([359.99, dec_deg]), cd=cd, sip_a=SIP, sip_b=SIP.T.copy())
    image, variance = rng.normal(size=(41, 39)).astype(np.float32), rng.random((41, 39), np.float32)
    image[:3] = np.nan
    psf = rng.random((25, 25), np.float32)
    x, y, x0, y0 = np.array([3000.3]), np.array([120.7]), np.array([2980], np.int32), np.array([100], np.int32)
    data = cutout_fits(image, variance, psf_hdu(psf), local_wcs_cards(wcs, x, y, x0, y0)[0])
    assert len(data) % 2880 == 0

    with fits.open(io.BytesIO(data)) as hdus:
        hdus.verify("exception")
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "UNCERT", "PSFIMAGE"]
        np.testing.assert_array_equal(hdus[0].data, image)
        np.testing.assert_array_equal(hdus[1].data, variance)
        np.testing.assert_array_equal(hdus[2].data, psf)
        assert (hdus[0].header["CUTMINX"], hdus[0].header["CUTMINY"]) == (2980, 100)
        decoded = WCS(hdus[0].header)
    yy, xx = np.mgrid[0:41:8, 0:39:6]
    ra, dec = decoded.wcs_pix2world(xx.ravel(), yy.ravel(), 0)
    expected = wcs.pixel_to_sky(xx.ravel() + 2980, yy.ravel() + 100)
    assert separation_arcsec(ra, dec, *expected).max() < 2e-3
    ra, dec = decoded.wcs_pix2world(x - x0, y - y0, 0)
    assert separation_arcsec(ra, dec, *wcs.pixel_to_sky(x, y)).max() < 1e-6


def test_ccddata_reads_a_cutout() -> None:
    wcs = Wcs(crpix=np.array([10.0, 10.0]), crval=np.array([10.0, 20.0]), cd=np.eye(2) * 5e-5)
    image, psf = np.ones((30, 30), np.float32), np.full((5, 5), 0.04, np.float32)
    origin = np.zeros(1, np.int32)
    cards = local_wcs_cards(wcs, np.array([15.0]), np.array([14.0]), origin, origin)
    data = cutout_fits(image, 4 * image, psf_hdu(psf), cards[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ccd = CCDData.read(io.BytesIO(data), format="fits")
    assert ccd.unit == "nJy"
    assert ccd.uncertainty.uncertainty_type == "var"
    assert str(ccd.uncertainty.unit) == "nJy2"
    np.testing.assert_array_equal(ccd.uncertainty.array, 4 * image)
    np.testing.assert_array_equal(ccd.psf, psf)
