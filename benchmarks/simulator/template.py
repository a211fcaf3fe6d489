"""Templates: separately simulated visits, warped to a tract and coadded. Nothing is drawn on the tract itself."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.simulator.scene import Frame
from benchmarks.simulator.tract import Tract

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateTruth:
    """What the simulation knows of one coadd around a detector.

    ``variance`` (ny, nx) [nJy**2] of tract pixels from ``corner`` = (y, x), NaN outside the data. ``epochs`` [MJD TAI] and
    ``weights`` (n_inputs,) say how fluxes and positions average. ``psf_cells`` as in the patch files.
    """

    tract: Tract
    corner: tuple[int, int]
    variance: Float32
    epochs: Float64
    weights: Float64
    psf_cells: Float32
    first_cell: tuple[int, int]

    def variance_around(self, frame: Frame, x: Float64, y: Float64, size: int) -> Float64:
        """(n, size, size) template variance under the pixels around frame positions; the median where there is none."""
        ra, dec = frame.to_sky(x, y)
        tx, ty = self.tract.sky_to_pixel(ra, dec)
        ra_x, dec_x = frame.to_sky(x + 1, y)
        ra_y, dec_y = frame.to_sky(x, y + 1)
        ax, ay = self.tract.sky_to_pixel(ra_x, dec_x)
        bx, by = self.tract.sky_to_pixel(ra_y, dec_y)
        offset = np.arange(size) - size // 2
        dy, dx = offset[None, :, None], offset[None, None, :]
        px = tx[:, None, None] + (ax - tx)[:, None, None] * dx + (bx - tx)[:, None, None] * dy
        py = ty[:, None, None] + (ay - ty)[:, None, None] * dx + (by - ty)[:, None, None] * dy
        iy = np.round(py).astype(np.int64) - self.corner[0]
        ix = np.round(px).astype(np.int64) - self.corner[1]
        ok = (iy >= 0) & (iy < self.variance.shape[0]) & (ix >= 0) & (ix < self.variance.shape[1])
        values = np.full(px.shape, np.nan)
        values[ok] = self.variance[iy[ok], ix[ok]]
        return np.where(np.isfinite(values), values, np.nanmedian(self.variance[::16, ::16]))

    def psf_at(self, ra: Float64, dec: Float64) -> Float32:
        """PSF images of the cells that contain positions."""
        x, y = self.tract.sky_to_pixel(ra, dec)
        cy = np.clip(
            np.round(y).astype(int) // self.tract.cell_size - self.first_cell[0], 0, self.psf_cells.shape[0] - 1
        )
        cx = np.clip(
            np.round(x).astype(int) // self.tract.cell_size - self.first_cell[1], 0, self.psf_cells.shape[1] - 1
        )
        return np.asarray(self.psf_cells[cy, cx], np.float32)
