"""What the classic tools read and we do not write ourselves: TPV headers, LDAC catalogs, PSFEx models."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import fitsio
import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from core.contracts.wcs import Wcs
from core.stages.pointing import pixel_grid

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Cards = dict[str, float | int | str]

_TPV_EXPONENTS: Final = {0: (0, 0), 1: (1, 0), 2: (0, 1), 4: (2, 0), 5: (1, 1), 6: (0, 2),
                         7: (3, 0), 8: (2, 1), 9: (1, 2), 10: (0, 3)}  # fmt: skip
"""PV index to the exponents of its own and the other coordinate; 3 and 11 are radial and not used."""
_MAS_PER_DEG: Final = 3.6e6
_J2000_MJD: Final = 51544.5
_DAYS_PER_YEAR: Final = 365.25

REFERENCE_ROW: Final = np.dtype(
    [
        ("X_WORLD", "<f8"),
        ("Y_WORLD", "<f8"),
        ("ERRA_WORLD", "<f4"),
        ("ERRB_WORLD", "<f4"),
        ("ERRTHETA_WORLD", "<f4"),
        ("MAG", "<f4"),
        ("MAGERR", "<f4"),
        ("OBSDATE", "<f8"),
    ]
)
"""Columns that SCAMP expects of a local reference catalog: degrees, magnitudes, years."""


def tpv_cards(wcs: Wcs, shape: tuple[int, int]) -> Cards:
    """TPV keywords equal to a TAN-SIP of up to third order over (ny, nx); SWarp and SCAMP ignore SIP.

    SIP distorts pixels before the linear part and TPV intermediate coordinates after it, so the terms follow from a
    linear change of variables: here by least squares over the detector, exact for polynomials of equal degree.
    Reference: https://fits.gsfc.nasa.gov/registry/tpvwcs/tpv.html
    """
    px, py = pixel_grid(shape)
    linear = np.stack([px - wcs.crpix[0], py - wcs.crpix[1]], axis=-1) @ wcs.cd.T
    scale = float(np.abs(linear).max())
    wanted = wcs.pixel_to_plane(px, py)
    cards: Cards = {
        "CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "CUNIT1": "deg", "CUNIT2": "deg", "RADESYS": "ICRS",
        "EQUINOX": 2000.0,
        "CRPIX1": float(wcs.crpix[0]) + 1, "CRPIX2": float(wcs.crpix[1]) + 1,
        "CRVAL1": float(wcs.crval[0]), "CRVAL2": float(wcs.crval[1]),
        "CD1_1": float(wcs.cd[0, 0]), "CD1_2": float(wcs.cd[0, 1]),
        "CD2_1": float(wcs.cd[1, 0]), "CD2_2": float(wcs.cd[1, 1]),
    }  # fmt: skip
    for axis in (0, 1):
        own, other = linear[:, axis] / scale, linear[:, 1 - axis] / scale
        design = np.stack([own**p * other**q for p, q in _TPV_EXPONENTS.values()], axis=-1)
        solution = np.linalg.lstsq(design, wanted[axis], rcond=None)[0]
        for (index, (p, q)), value in zip(_TPV_EXPONENTS.items(), solution, strict=True):
            cards[f"PV{axis + 1}_{index}"] = float(value) / scale ** (p + q)
    return cards


def write_head(path: Path, cards: Mapping[str, Any]) -> None:
    """An ASCII header as SCAMP writes and SWarp reads it: cards of 80 columns, a line each."""
    header = fits.Header(list(cards.items()))
    lines = [card.image.rstrip() for card in header.cards]
    path.write_text("\n".join([*lines, "END", ""]), encoding="ascii")


def read_head(path: Path) -> fits.Header:
    """The first header of such a file. SCAMP's comments hold letters that FITS forbids: they are left out."""
    lines = path.read_text(encoding="latin-1").splitlines()
    lines = lines[: lines.index("END")] if "END" in lines else lines
    cards = [line for line in lines if line[:8].strip() not in {"HISTORY", "COMMENT", ""}]
    return fits.Header.fromstring("\n".join(line.partition(" / ")[0] for line in cards), sep="\n")


def head_to_sky(header: fits.Header, x: Float64, y: Float64) -> tuple[Float64, Float64]:
    """ICRS (ra, dec) [deg] of zero-based pixels by a TPV header."""
    ra, dec = WCS(header).all_pix2world(np.asarray(x, np.float64), np.asarray(y, np.float64), 0)
    return np.asarray(ra, np.float64), np.asarray(dec, np.float64)


def reference_rows(
    ra_deg: Float64, dec_deg: Float64, error_mas: Float64, magnitude: Float64, magnitude_error: Float64, mjd: float
) -> NDArray[np.void]:
    """(n,) :data:`REFERENCE_ROW` of stars whose positions are those at ``mjd``."""
    rows = np.zeros(ra_deg.size, REFERENCE_ROW)
    rows["X_WORLD"], rows["Y_WORLD"] = ra_deg, dec_deg
    rows["ERRA_WORLD"] = rows["ERRB_WORLD"] = error_mas / _MAS_PER_DEG
    rows["MAG"], rows["MAGERR"] = magnitude, magnitude_error
    rows["OBSDATE"] = 2000.0 + (mjd - _J2000_MJD) / _DAYS_PER_YEAR
    return rows


def write_ldac(path: Path, rows: NDArray[np.void], header: Mapping[str, Any]) -> None:
    """A FITS_LDAC catalog: a table that holds an image header as text, then a table of objects."""
    cards = [str(card).encode("ascii") for card in fits.Header(list(header.items())).cards]
    cards.append(b"END".ljust(80))
    image_header = np.zeros(1, [("Field Header Card", "S80", (len(cards),))])
    image_header["Field Header Card"][0] = [card.ljust(80) for card in cards]
    with fitsio.FITS(str(path), "rw", clobber=True) as file:
        file.write(None)
        file.write(image_header, extname="LDAC_IMHEAD")
        file.write(rows, extname="LDAC_OBJECTS")


def read_objects(path: Path) -> NDArray[np.void]:
    """Rows of an LDAC catalog."""
    rows: NDArray[np.void] = fitsio.read(str(path), ext="LDAC_OBJECTS")
    return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class PsfexModel:
    """A PSFEx model of two coordinates.

    Parameters
    ----------
    coefficients : (n_terms, k, k) images multiplying 1, u, u**2, …, v, u*v, …, v**2 (PSFEx's order).
    zero, scale : (2,) so that ``u = (x - zero[0]) / scale[0]`` with one-based pixels.
    sampling : side of a model pixel in image pixels.
    """

    coefficients: Float64
    zero: Float64
    scale: Float64
    degree: int
    sampling: float

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a ``.psf`` file."""
        with fits.open(path) as file:
            header = file["PSF_DATA"].header
            coefficients = np.asarray(file["PSF_DATA"].data["PSF_MASK"][0], np.float64)
        return cls(
            coefficients=coefficients,
            zero=np.array([header["POLZERO1"], header["POLZERO2"]], np.float64),
            scale=np.array([header["POLSCAL1"], header["POLSCAL2"]], np.float64),
            degree=int(header["POLDEG1"]),
            sampling=float(header["PSF_SAMP"]),
        )

    def at_many(self, x: Float64, y: Float64) -> Float64:
        """(n, side, side) images on the image's pixels at n zero-based places, each of unit sum.

        Only for a sampling that goes into a pixel a whole number of times: then a pixel's value is a model value, and
        nothing is interpolated.
        """
        step = round(1 / self.sampling)
        if abs(step * self.sampling - 1) > 1e-6:
            raise ValueError(f"a sampling of {self.sampling} pixel does not divide a pixel")
        u, v = (x + 1 - self.zero[0]) / self.scale[0], (y + 1 - self.zero[1]) / self.scale[1]
        terms = [u**p * v**q for q in range(self.degree + 1) for p in range(self.degree + 1 - q)]
        fine = np.tensordot(np.stack(terms, axis=-1), self.coefficients, axes=1)
        half = self.coefficients.shape[-1] // 2
        index = half + step * np.arange(-(half // step), half // step + 1)
        images = fine[:, index[:, None], index[None, :]]
        return np.asarray(images / images.sum(axis=(1, 2), keepdims=True), np.float64)
