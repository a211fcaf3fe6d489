"""The truth that a dataset carries beside its pixels."""

from pathlib import Path
from typing import Any, Final

import fitsio
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

TRUTH: Final = np.dtype(
    [
        ("id", "<i8"), ("kind", "S10"), ("x", "<f8"), ("y", "<f8"), ("ra", "<f8"), ("dec", "<f8"), ("flux", "<f8"),
        ("science_flux", "<f8"), ("template_flux", "<f8"), ("snr_true", "<f8"), ("mag", "<f8"), ("hosted", "?"),
        ("near_bright", "?"), ("moved_px", "<f4"),
    ]
)  # fmt: skip


def write_truth(
    path: Path,
    table: NDArray[np.void],
    cosmic_rays: NDArray[np.void],
    positions: tuple[Float64, Float64],
    psf: Float32,
    template_psf: Float32,
    header: dict[str, Any],
) -> None:
    """Write the tables of one visit-detector (docs/dataset.md, "Truth")."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grid = np.zeros(positions[0].size, [("x", "<f8"), ("y", "<f8")])
    grid["x"], grid["y"] = positions
    with fitsio.FITS(str(path), "rw", clobber=True) as fits:
        fits.write(None, header=header)
        fits.write(table, extname="TRUTH")
        fits.write(cosmic_rays, extname="CR")
        fits.write(psf, extname="PSF")
        fits.write(grid, extname="PSFPOS")
        fits.write(template_psf, extname="PSFT")
