"""Smooth functions over a detector, on a lattice of pixels: what a low polynomial cannot follow."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.contracts.checks import check_array

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


def lattice_shape(shape: tuple[int, int], step_pix: int) -> tuple[int, int]:
    """Nodes (y, x) of a lattice whose first is pixel (0, 0) and whose last lies on or beyond the detector's end."""
    return -(-(shape[0] - 1) // step_pix) + 1, -(-(shape[1] - 1) // step_pix) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalMaps:
    """Values at the nodes, bilinear in between; beyond the lattice its rim goes on.

    Parameters
    ----------
    values : (n_maps, n_y, n_x) float32; node (j, i) is pixel (x, y) = (i, j) * step_pix.
    step_pix : distance of the nodes.
    """

    values: Float32
    step_pix: int

    def __post_init__(self) -> None:
        check_array("map values", self.values, np.float32, (None, None, None))

    @property
    def n_maps(self) -> int:
        """Number of maps."""
        return int(self.values.shape[0])

    def at(self, x: ArrayLike, y: ArrayLike) -> Float64:
        """(..., n_maps) values at pixels; positions that are not finite take the first node's."""
        corners, fx, fy = self._corners(x, y)
        low = corners[0] + fx * (corners[1] - corners[0])
        high = corners[2] + fx * (corners[3] - corners[2])
        return np.asarray(low + fy * (high - low), np.float64)

    def slope(self, x: ArrayLike, y: ArrayLike, axis: int) -> Float64:
        """(..., n_maps) derivatives by y (axis 0) or x (axis 1) [1/pixel], over one step about the pixel."""
        half = self.step_pix / 2
        dx, dy = (0.0, half) if axis == 0 else (half, 0.0)
        x_, y_ = np.asarray(x, np.float64), np.asarray(y, np.float64)
        return (self.at(x_ + dx, y_ + dy) - self.at(x_ - dx, y_ - dy)) / self.step_pix

    def _corners(self, x: ArrayLike, y: ArrayLike) -> tuple[list[Float64], Float64, Float64]:
        n_y, n_x = self.values.shape[1:]
        gx = np.clip(np.nan_to_num(np.asarray(x, np.float64)) / self.step_pix, 0, n_x - 1)
        gy = np.clip(np.nan_to_num(np.asarray(y, np.float64)) / self.step_pix, 0, n_y - 1)
        gx, gy = np.broadcast_arrays(gx, gy)
        ix, iy = (np.minimum(g.astype(np.int64), max(n - 2, 0)) for g, n in ((gx, n_x), (gy, n_y)))
        jx, jy = np.minimum(ix + 1, n_x - 1), np.minimum(iy + 1, n_y - 1)
        values = [np.moveaxis(self.values[:, j, i], 0, -1).astype(np.float64) for j in (iy, jy) for i in (ix, jx)]
        return values, (gx - ix)[..., None], (gy - iy)[..., None]
