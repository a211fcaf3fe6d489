"""What the simulator drew into one detector-visit."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import fitsio
import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
Table = NDArray[np.void]

INJECTED_KINDS: Final = ("injection", "transient")
"""New point sources whose S/N was drawn: what completeness, astrometry and pulls are measured on."""
CHANGED_KINDS: Final = (*INJECTED_KINDS, "variable", "mover")
MIN_CHANGE_SNR: Final = 2.0
MIN_MOVED_PIX: Final = 0.05
_NO_HITS: Final = [("y", "<i4"), ("x", "<i4"), ("event", "<i4"), ("electrons", "<f4")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """Truth of one detector-visit (docs/dataset.md, "Truth").

    Parameters
    ----------
    rows : (n,) the TRUTH table; positions in pixel and ICRS degrees at the visit's epoch, fluxes nJy.
    kind : (n,) the rows' kinds as text.
    cosmic_rays : (m, 2) pixels (y, x) hit.
    event, electrons : (m,) the particle that hit, and its charge there.
    psf, psf_x, psf_y : (p, k, k) true PSF of unit sum at (p,) places [pixel].
    njy_per_electron, fwhm_arcsec : true scale and seeing.
    """

    rows: Table
    kind: NDArray[np.str_]
    cosmic_rays: NDArray[np.int64]
    event: NDArray[np.int64]
    electrons: Float64
    psf: Float64
    psf_x: Float64
    psf_y: Float64
    njy_per_electron: float
    fwhm_arcsec: float

    def is_kind(self, *kinds: str) -> Bool:
        """(n,) rows of any of these kinds."""
        return np.isin(self.kind, kinds)

    @property
    def is_injected(self) -> Bool:
        """(n,) rows that count as injections."""
        return self.is_kind(*INJECTED_KINDS)

    @property
    def is_change(self) -> Bool:
        """(n,) rows that a DIASource may rightly stand for: true changes of \\|SNR_true\\| > 2."""
        moved = self.is_kind("star") & (self.rows["moved_px"] > MIN_MOVED_PIX)
        return np.asarray((self.is_kind(*CHANGED_KINDS) | moved) & (np.abs(self.rows["snr_true"]) > MIN_CHANGE_SNR))

    def mean_psf(self) -> Float64:
        """(k, k) true PSF averaged over the grid of places, of unit sum."""
        mean = self.psf.mean(axis=0)
        return np.asarray(mean / mean.sum(), np.float64)


def read_truth(path: Path) -> Truth:
    """Read a truth file."""
    with fitsio.FITS(str(path)) as fits:
        header = fits[0].read_header()
        rows = fits["TRUTH"].read()
        hits = fits["CR"].read() if fits["CR"].get_nrows() else np.zeros(0, _NO_HITS)
        psf = fits["PSF"].read().astype(np.float64)
        places = fits["PSFPOS"].read()
    return Truth(
        rows=rows,
        kind=np.char.strip(rows["kind"].astype(str)),
        cosmic_rays=np.stack([hits["y"], hits["x"]], axis=-1).astype(np.int64),
        event=hits["event"].astype(np.int64),
        electrons=hits["electrons"].astype(np.float64),
        psf=psf,
        psf_x=places["x"].astype(np.float64),
        psf_y=places["y"].astype(np.float64),
        njy_per_electron=float(header["ZP"]),
        fwhm_arcsec=float(header["FWHM"]),
    )
