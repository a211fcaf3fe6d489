"""A point-spread function on the pixel grid, varying as a polynomial over the detector."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.contracts.checks import check_array
from core.contracts.local_maps import LocalMaps
from core.errors import Outcome, RejectedInputError, UnusableDataError

Float32 = NDArray[np.float32]


def n_terms(order: int) -> int:
    """Number of terms of a 2-D polynomial of total degree ``order``."""
    return (order + 1) * (order + 2) // 2


def polynomial_terms(x: ArrayLike, y: ArrayLike, shape: tuple[int, int], order: int) -> NDArray[np.float64]:
    """Terms ``u**(n-j) * v**j`` for n = 0..order, j = 0..n, with pixels scaled to [-1, 1].

    ``shape`` is (ny, nx) of the detector; returns (..., n_terms).
    """
    u = 2.0 * np.asarray(x, np.float64) / max(shape[1] - 1, 1) - 1.0
    v = 2.0 * np.asarray(y, np.float64) / max(shape[0] - 1, 1) - 1.0
    terms = [u ** (n - j) * v**j for n in range(order + 1) for j in range(n + 1)]
    return np.stack(np.broadcast_arrays(*terms), axis=-1)


def field_terms(
    x: ArrayLike, y: ArrayLike, shape: tuple[int, int], order: int, maps: LocalMaps | None
) -> NDArray[np.float64]:
    """:func:`polynomial_terms` followed by the values of the maps."""
    polynomial = polynomial_terms(x, y, shape, order)
    return polynomial if maps is None else np.concatenate([polynomial, maps.at(x, y)], axis=-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PsfModel:
    """PSF of one image.

    Parameters
    ----------
    coefficients : (n_terms + n_maps, k, k) float32, k odd: images multiplying :meth:`terms`.
    shape : (ny, nx) of the image the polynomial spans [pixel].
    order : total degree of the polynomial.
    maps : what varies faster; their images follow the polynomial's and sum to zero.

    An image of the PSF is centered on its central pixel and sums to one; a star at a fractional position is that
    image shifted by less than half a pixel (see ``core.kernels``).
    """

    coefficients: Float32
    shape: tuple[int, int]
    order: int
    maps: LocalMaps | None = None

    def __post_init__(self) -> None:
        k = self.coefficients.shape[-1]
        n_maps = self.maps.n_maps if self.maps is not None else 0
        check_array("PSF coefficients", self.coefficients, np.float32, (n_terms(self.order) + n_maps, k, k))
        if k % 2 == 0:
            raise RejectedInputError("a PSF image has odd size", code="bad_psf", size=k)

    @property
    def size(self) -> int:
        """Side k of the PSF image [pixel]."""
        return int(self.coefficients.shape[-1])

    def terms(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        """(..., n_terms + n_maps) factors of the coefficient images at pixels."""
        return field_terms(x, y, self.shape, self.order, self.maps)

    def at(self, x: float, y: float) -> Float32:
        """(k, k) image at pixel (x, y), unit sum, centered on its central pixel."""
        image = np.tensordot(self.terms(x, y), self.coefficients, axes=1)
        return np.asarray(image / image.sum(), np.float32)

    def at_many(self, x: ArrayLike, y: ArrayLike) -> Float32:
        """(n, k, k) images at n pixels, each of unit sum."""
        images = np.tensordot(self.terms(x, y), self.coefficients, axes=1)
        return np.asarray(images / images.sum(axis=(-2, -1), keepdims=True), np.float32)

    def center(self) -> Float32:
        """Image at the middle of the detector."""
        return self.at((self.shape[1] - 1) / 2, (self.shape[0] - 1) / 2)

    def moments(self, x: float, y: float) -> tuple[float, float, float]:
        """Second moments (ixx, iyy, ixy) [pixel**2] with an adaptive Gaussian weight at (x, y).

        Iterated to the matched weight (Bernstein & Jarvis 2002, AJ 123, 583, section 3).
        """
        image = self.at(x, y).astype(np.float64)
        axis = np.arange(self.size) - self.size // 2
        yy, xx = np.meshgrid(axis, axis, indexing="ij")
        moments = np.array([4.0, 4.0, 0.0])
        for _ in range(50):
            determinant = moments[0] * moments[1] - moments[2] ** 2
            exponent = (moments[1] * xx**2 - 2 * moments[2] * xx * yy + moments[0] * yy**2) / (2 * determinant)
            weighted = image * np.exp(-exponent)
            total = weighted.sum()
            measured = 2 * np.array([(weighted * t).sum() / total for t in (xx**2, yy**2, xx * yy)])
            if not np.isfinite(measured).all() or measured[0] * measured[1] <= measured[2] ** 2:
                raise UnusableDataError(
                    "the PSF has no adaptive moments", outcome=Outcome.BAD_SUBTRACTION, code="bad_psf"
                )
            if np.abs(measured - moments).max() < 1e-6:
                break
            moments = measured
        return float(moments[0]), float(moments[1]), float(moments[2])

    def fwhm_pix(self) -> float:
        """Full width at half maximum of the matched Gaussian at the detector's center [pixel]."""
        ixx, iyy, ixy = self.moments((self.shape[1] - 1) / 2, (self.shape[0] - 1) / 2)
        return float(2.3548 * (ixx * iyy - ixy**2) ** 0.25)

    def noise_area_pix(self, x: float, y: float) -> float:
        """Effective number of noise pixels 1 / sum(P**2) at (x, y)."""
        return float(1.0 / np.square(self.at(x, y).astype(np.float64)).sum())
