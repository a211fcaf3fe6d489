"""The PSF by Piff instead of by our own pixels: the choice that the Rubin pipelines run with, kept for comparison.

Reference: Jarvis et al. 2021, MNRAS 501, 1282. Piff is an optional dependency (``pip install "sub60[piff]"``).
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from core.contracts.exposure import Frame
from core.contracts.psf import PsfModel, n_terms, polynomial_terms
from core.errors import ConfigurationError, Outcome, UnusableDataError

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class PiffConfig:
    """What Piff fits. The defaults are near those of Rubin's ``meas_extensions_piff``."""

    model: Literal["PixelGrid", "Moffat", "Kolmogorov", "Gaussian"] = "PixelGrid"
    order: int = 2
    grid_size_pix: int = 25
    """Side of the PixelGrid; beyond it that model is zero."""
    interpolant: Literal["Lanczos(3)", "Lanczos(5)", "Lanczos(7)", "Lanczos(11)"] = "Lanczos(7)"
    """Between the points of the PixelGrid; the cost grows as the square of its order."""
    beta: float = 3.0
    """Exponent of the Moffat."""
    max_stars: int = 100
    """The brightest of those given; the cost is proportional."""
    stars_per_term: int = 4
    """Fewer than this a polynomial term lower the order."""
    max_snr: float = 100.0
    """Brighter stars count as if they had this S/N: no polynomial follows the PSF to better than a percent."""
    outlier_sigma: float = 5.0
    max_removed: float = 0.05
    """At most this fraction of the stars leaves as outliers at each iteration."""
    max_iterations: int = 30
    n_side: int = 5
    """Piff's PSF is drawn on this grid of positions, through which the polynomial of our PSF model goes."""


def import_piff() -> ModuleType:
    """The package, or an error that says how to get it."""
    try:
        import piff
    except ImportError as error:
        raise ConfigurationError(
            'psf.determiner "piff" needs the package piff, which is not installed: pip install "sub60[piff]"',
            code="piff_missing",
        ) from error
    module: ModuleType = piff
    return module


def fit_piff(
    frame: Frame, x: Float64, y: Float64, flux: Float64, ignored: np.uint16, size: int, config: PiffConfig
) -> PsfModel:
    """Piff's PSF of the stars at (x, y) [pixel], drawn as a :class:`PsfModel` of side ``size``.

    Piff fits each star's position and flux itself, from these, and removes outliers itself. PixelGrid costs a hundred
    to a thousand times the pixel basis, the profiles about a tenth of that.

    Parameters
    ----------
    x, y, flux : (n,) float64 of stars that are known to be stars [pixel], [unit of the image].
    ignored : pixels with a bit of these carry no weight.

    Raises ``UnusableDataError`` (astrometry_failed) where Piff finds no solution.
    """
    piff = import_piff()
    chosen = np.sort(np.argsort(-flux, kind="stable")[: config.max_stars])
    order = config.order
    while order > 0 and chosen.size < config.stars_per_term * n_terms(order):
        order -= 1
    # beyond its grid that model says zero, which the stars' wings are not
    half = config.grid_size_pix // 2 if config.model == "PixelGrid" else size // 2
    stars = [_star(frame, x[i], y[i], flux[i], half, ignored, config.max_snr) for i in chosen]
    psf = _blank(piff, order, config)
    try:
        psf.fit([star for star in stars if star is not None])
    except (RuntimeError, ValueError, np.linalg.LinAlgError) as error:
        raise UnusableDataError(
            f"Piff found no PSF: {error}", outcome=Outcome.ASTROMETRY_FAILED, code="piff_failed"
        ) from error
    return _drawn(psf, frame.shape, size, order, config.n_side)


def _blank(piff: ModuleType, order: int, config: PiffConfig) -> Any:
    """Piff's object before its fit."""
    import galsim

    if config.model == "PixelGrid":
        model = piff.PixelGrid(scale=1.0, size=config.grid_size_pix, interp=config.interpolant)
        interp = piff.BasisPolynomial(order=order, solver="cpp")
    else:
        keywords = {"beta": config.beta} if config.model == "Moffat" else {}
        model, interp = getattr(piff, config.model)(**keywords), piff.Polynomial(order=order)
    outliers = piff.ChisqOutliers(nsigma=config.outlier_sigma, max_remove=config.max_removed)
    psf = piff.SimplePSF(model, interp, [outliers], max_iter=config.max_iterations)
    psf.set_context({0: galsim.PixelScale(1.0)})
    return psf


def _star(frame: Frame, x: float, y: float, flux: float, half: int, ignored: np.uint16, max_snr: float) -> Any:
    """Piff's star of a stamp; None where the stamp leaves the frame."""
    import galsim
    from piff import Star, StarData
    from piff.star import StarFit

    ny, nx = frame.shape
    cx, cy = round(x), round(y)
    if cx < half or cy < half or cx + half >= nx or cy + half >= ny:
        return None
    here = (slice(cy - half, cy + half + 1), slice(cx - half, cx + half + 1))
    variance = frame.variance[here].astype(np.float64)
    is_good = ((frame.mask[here] & ignored) == 0) & np.isfinite(variance) & (variance > 0)
    weight = np.where(is_good, 1 / np.where(is_good, variance, 1), 0.0)
    # S/N of a star whose light is where the image has it
    pixels = frame.image[here].astype(np.float64)
    snr = float(np.sqrt((weight * np.maximum(pixels, 0) ** 2).sum()))
    weight *= min(1.0, max_snr / max(snr, 1e-30)) ** 2
    place = {"wcs": galsim.PixelScale(1.0), "xmin": cx - half, "ymin": cy - half}
    data = StarData(
        galsim.Image(pixels, **place),
        galsim.PositionD(x, y),
        weight=galsim.Image(weight, **place),
        field_pos=galsim.PositionD(*_scaled(x, y, frame.shape)),
        properties={"chipnum": 0},
    )
    return Star(data, StarFit(None, flux=flux, center=(0.0, 0.0)))


def _scaled(x: float, y: float, shape: tuple[int, int]) -> tuple[float, float]:
    """Pixels to [-1, 1], the coordinates of Piff's polynomials: those of pixels would be ill-conditioned."""
    terms = polynomial_terms(x, y, shape, 1)
    return float(terms[1]), float(terms[2])


def _drawn(psf: Any, shape: tuple[int, int], size: int, order: int, n_side: int) -> PsfModel:
    """Least-squares polynomial through Piff's PSF at the centers of n_side x n_side cells, each image of unit sum."""
    import galsim
    from piff import Star

    y = ((np.arange(n_side) + 0.5) * shape[0] / n_side).astype(np.int64)
    x = ((np.arange(n_side) + 0.5) * shape[1] / n_side).astype(np.int64)
    xx, yy = (axis.ravel().astype(np.float64) for axis in np.meshgrid(x, y))
    stamps = np.empty((xx.size, size, size))
    for i in range(xx.size):
        u, v = _scaled(xx[i], yy[i], shape)
        star = Star.makeTarget(
            x=xx[i], y=yy[i], u=u, v=v, wcs=galsim.PixelScale(1.0), stamp_size=size, properties={"chipnum": 0}
        )
        stamps[i] = psf.drawStar(psf.interpolateStar(star)).image.array
        stamps[i] /= stamps[i].sum()
    terms = polynomial_terms(xx, yy, shape, order)
    solution = np.linalg.lstsq(terms, stamps.reshape(xx.size, -1), rcond=1e-6)[0].reshape(-1, size, size)
    coefficients = np.ascontiguousarray(solution / solution[0].sum(), np.float32)
    return PsfModel(coefficients=coefficients, shape=shape, order=order)
