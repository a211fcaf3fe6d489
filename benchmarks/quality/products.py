"""What the pipeline made of one detector-visit: the input of every figure of quality."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.contracts.catalogs import Catalog
from core.contracts.exposure import Frame
from core.contracts.psf import PsfModel
from core.flags import UNCLAIMED

_SIGN_COLUMNS: Final = ("psfFlux", "snr")


@dataclass(frozen=True, slots=True, kw_only=True)
class Products:
    """Results of one detector-visit.

    Parameters
    ----------
    difference : image [nJy], variance [nJy**2] and mask of the difference.
    psf : PSF of point sources in the difference.
    dia_sources : DIA_SOURCE rows that passed the flag cuts.
    sources : SOURCE rows of the science image [nJy].
    pixel_scale_arcsec : side of a pixel.
    """

    visit: int
    detector: int
    band: str
    difference: Frame
    psf: PsfModel
    dia_sources: Catalog
    sources: Catalog
    pixel_scale_arcsec: float

    def claimed(self) -> NDArray[np.bool_]:
        """(ny, nx) pixels where completeness is promised."""
        return np.asarray((self.difference.mask & np.uint16(UNCLAIMED)) == 0)


def signs(dia_sources: Catalog) -> NDArray[np.int8]:
    """(n,) -1 for sources that faded, else 1: of the PSF flux, else of the detection."""
    sign = np.where(dia_sources["isNegative"] == 1, -1, 1).astype(np.int8)
    for column in reversed(_SIGN_COLUMNS):
        value = dia_sources[column]
        known = np.isfinite(value) & (value != 0)
        sign[known] = np.sign(value[known]).astype(np.int8)
    return sign
