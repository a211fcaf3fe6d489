"""Cutouts as small FITS files: image, variance and PSF around a source, written by hand.

Layout as astropy's CCDData writes and reads it: primary image [nJy], ``UNCERT`` (variance [nJy**2]), ``PSFIMAGE``
(unit sum). Pixels outside the detector are NaN. The header carries the local linear WCS. Astropy takes 60 times longer.
"""

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.contracts.wcs import Wcs

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_BLOCK: Final = 2880


def cutout_fits(image: Float32, variance: Float32, psf: bytes, wcs_cards: bytes) -> bytes:
    """One cutout.

    Parameters
    ----------
    image, variance : (ny, nx) [nJy], [nJy**2].
    psf : from :func:`psf_hdu`.    wcs_cards : from :func:`local_wcs_cards`.
    """
    header = _primary_header(*image.shape) + wcs_cards
    return b"".join(
        (
            header,
            b"END".ljust(_padded(len(header) + 80) - len(header)),
            _pixels(image),
            _extension_header(*variance.shape, "UNCERT", "VarianceUncertainty", "nJy2"),
            _pixels(variance),
            psf,
        )
    )


def psf_hdu(psf: Float32) -> bytes:
    """HDU of a PSF image (k, k); the same for all sources that share it."""
    return _extension_header(*psf.shape, "PSFIMAGE", "", "") + _pixels(psf)


def local_wcs_cards(wcs: Wcs, x: Float64, y: Float64, x0: NDArray[np.int32], y0: NDArray[np.int32]) -> list[bytes]:
    """Header cards of the linear WCS about each source; empty for a position so far out that it has none.

    The reference point is the source itself: ``CRVAL`` is its ICRS position, the CD matrix the Jacobian there.

    Parameters
    ----------
    x, y : (n,) source positions [pixel].    x0, y0 : (n,) parent pixels of the cutouts' first pixel.
    """
    ra0, dec0 = wcs.pixel_to_sky(x, y)
    ra, dec = wcs.pixel_to_sky(np.stack([x + 0.5, x - 0.5, x, x]), np.stack([y, y, y + 0.5, y - 0.5]))
    xi, eta = _offsets_deg(ra, dec, ra0, dec0)
    cd = [xi[0] - xi[1], xi[2] - xi[3], eta[0] - eta[1], eta[2] - eta[3]]
    values = np.stack([x - x0 + 1, y - y0 + 1, ra0, dec0, *cd], axis=1)
    is_known = np.isfinite(values).all(axis=1) & (cd[0] * cd[3] != cd[1] * cd[2])
    return [
        (_WCS_CARDS % (*row, int(first_x), int(first_y))).encode("ascii") if known else b""
        for row, first_x, first_y, known in zip(values.tolist(), x0, y0, is_known, strict=True)
    ]


def _offsets_deg(ra: Float64, dec: Float64, ra0: Float64, dec0: Float64) -> tuple[Float64, Float64]:
    """Gnomonic (xi, eta) [deg] of positions, each about a center of its own."""
    delta, dec, dec0 = np.radians(ra - ra0), np.radians(dec), np.radians(dec0)
    cosine = np.sin(dec) * np.sin(dec0) + np.cos(dec) * np.cos(dec0) * np.cos(delta)
    xi = np.cos(dec) * np.sin(delta) / cosine
    eta = (np.sin(dec) * np.cos(dec0) - np.cos(dec) * np.sin(dec0) * np.cos(delta)) / cosine
    return np.degrees(xi), np.degrees(eta)


def _card(key: str, value: str) -> str:
    return f"{key:<8}= {value}".ljust(80)


_WCS_CARDS: Final = "".join(
    f"{key:<8}= {form}" + " " * 50
    for key, form in (
        *((key, "%20.12E") for key in ("CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2", "CD1_1", "CD1_2", "CD2_1", "CD2_2")),
        ("CUTMINX", "%20d"),
        ("CUTMINY", "%20d"),
    )
)


@lru_cache(maxsize=512)
def _primary_header(ny: int, nx: int) -> bytes:
    """Cards of the primary header up to those of the WCS."""
    cards = [
        ("SIMPLE", "T".rjust(20)), ("BITPIX", "-32".rjust(20)), ("NAXIS", "2".rjust(20)),
        ("NAXIS1", str(nx).rjust(20)), ("NAXIS2", str(ny).rjust(20)), ("EXTEND", "T".rjust(20)),
        ("BUNIT", "'nJy     '"), ("RADESYS", "'ICRS    '"), ("CTYPE1", "'RA---TAN'"), ("CTYPE2", "'DEC--TAN'"),
        ("CUNIT1", "'deg     '"), ("CUNIT2", "'deg     '"),
    ]  # fmt: skip
    return "".join(_card(*card) for card in cards).encode("ascii")


@lru_cache(maxsize=1024)
def _extension_header(ny: int, nx: int, name: str, utype: str, unit: str) -> bytes:
    cards = [
        ("XTENSION", "'IMAGE   '"), ("BITPIX", "-32".rjust(20)), ("NAXIS", "2".rjust(20)),
        ("NAXIS1", str(nx).rjust(20)), ("NAXIS2", str(ny).rjust(20)), ("PCOUNT", "0".rjust(20)),
        ("GCOUNT", "1".rjust(20)), ("EXTNAME", f"'{name:<8}'"), ("UTYPE", f"'{utype:<8}'"), ("BUNIT", f"'{unit:<8}'"),
    ]  # fmt: skip
    text = "".join(_card(key, value) for key, value in cards if value.strip("' ")) + "END"
    return text.ljust(_padded(len(text))).encode("ascii")


def _pixels(array: Float32) -> bytes:
    content = array.astype(">f4").tobytes()
    return content.ljust(_padded(len(content)), b"\0")


def _padded(n_bytes: int) -> int:
    return -(-n_bytes // _BLOCK) * _BLOCK
