"""A convolution kernel over a detector."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.contracts.local_maps import LocalMaps
from core.contracts.psf import field_terms
from core.flags import Mask

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

UNFIT: Final = int(Mask.BAD | Mask.SAT | Mask.EDGE | Mask.NODATA | Mask.STREAK | Mask.SAT_TEMPLATE)
"""Stars with such pixels tell nothing of a kernel."""
NO_WEIGHT: Final = UNFIT | int(Mask.CR | Mask.INTERPOLATED)
"""Such pixels of the other stars do not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelField:
    """A convolution kernel varying as a polynomial over the detector.

    ``coefficients`` is (n_terms + n_maps, k, k) float32 multiplying :meth:`terms`: a polynomial's, then the maps'.
    """

    coefficients: Float32
    shape: tuple[int, int]
    order: int
    maps: LocalMaps | None = None

    @property
    def half_width(self) -> int:
        """(k - 1) / 2 [pixel]."""
        return int(self.coefficients.shape[1] // 2)

    def at(self, x: float, y: float) -> Float32:
        """(k, k) kernel at pixel (x, y)."""
        return np.asarray(np.tensordot(self.terms(x, y), self.coefficients, axes=1), np.float32)

    def terms(self, x: ArrayLike, y: ArrayLike) -> Float64:
        """(..., n_terms + n_maps) factors of the coefficient images at pixels."""
        return field_terms(x, y, self.shape, self.order, self.maps)

    def slopes(self, x: Float64, y: Float64, axis: int) -> Float64:
        """(n, n_terms + n_maps) derivatives of the terms by y (axis 0) or x (axis 1) [1/pixel]."""
        size_y, size_x = (max(n - 1, 1) for n in self.shape)
        u, v = 2.0 * x / size_x - 1.0, 2.0 * y / size_y - 1.0
        columns = []
        for n in range(self.order + 1):
            for j in range(n + 1):
                i = n - j
                if axis == 0:
                    columns.append(j * u**i * v ** max(j - 1, 0) * 2.0 / size_y)
                else:
                    columns.append(i * u ** max(i - 1, 0) * v**j * 2.0 / size_x)
        polynomial = np.stack(columns, axis=-1)
        if self.maps is None:
            return polynomial
        return np.concatenate([polynomial, self.maps.slope(x, y, axis)], axis=-1)

    def sum_center(self) -> float:
        """Sum of the kernel at the detector's center: the flux scale."""
        return float(self.at((self.shape[1] - 1) / 2, (self.shape[0] - 1) / 2).sum())
