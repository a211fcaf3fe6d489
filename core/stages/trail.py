"""Trails: sources that moved during the exposure.

The model is the PSF spread evenly along a line, the pixel form of Veres et al. 2012, PASP 124, 1197 (who take a
Gaussian PSF and integrate it in closed form).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.contracts.catalogs import Catalog
from core.contracts.wcs import Wcs
from core.kernels.psf_flux import psf_planes
from core.kernels.trail import spread, trail_sums
from core.stages.moments import Shapes
from core.stages.point_source import UNUSABLE, PsfOnFrame

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

TRAIL_FROM_ADAPTIVE_MOMENTS: Final = 1
"""``trailAlgorithm``: the fit starts from adaptive moments of the source (the schema's 1)."""

_MAX_HALF_PIX: Final = 60
_MAX_WIDTH_RATIO: Final = 1.3
# points of a line this close make an even trail: the PSF passes no finer detail
_POINT_SPACING_FWHM: Final = 0.35
_MAX_STEP_PIX: Final = 1.5
_SMALLEST_STEP_PIX: Final = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailConfig:
    """When a trail is tried."""

    min_significance: float = 4.0
    """Excess of the major axis over the PSF's, in its errors."""
    min_chi2_gain: float = 9.0
    """A trail that beats the point by less is flagged ``trail_flag``."""
    max_fits: int = 100
    steps: int = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fit:
    """Parameters (flux, x, y, half length x, half length y), their covariance, chi2 of trail and point, pixels."""

    values: Float64
    covariance: Float64
    chi2: float
    point_chi2: float
    n_data: int
    is_cut: bool


def fit_trails(
    sources: Catalog,
    plane: PsfOnFrame,
    shapes: Shapes,
    is_clean: NDArray[np.bool_],
    jacobians: Float64,
    wcs: Wcs,
    config: TrailConfig,
) -> None:
    """Fill the trail columns of ``is_clean`` sources whose major axis is significantly longer than the PSF's.

    All others stay null.
    """
    length, angle, significance = elongation(shapes, sources["psfFlux"] / sources["psfFluxErr"])
    is_shaped = is_clean & (sources["shape_flag"] == 0)
    tried = np.flatnonzero((significance >= config.min_significance) & is_shaped)
    tried = tried[np.argsort(-significance[tried], kind="stable")[: config.max_fits]]
    for i in tried:
        half = length[i] / 2
        start = np.array([0.0, sources["x"][i], sources["y"][i], half * np.cos(angle[i]), half * np.sin(angle[i])])
        fit = _fit_one(plane, start, config.steps)
        if fit is None:
            sources["trail_flag"][i] = True
            continue
        _fill(sources, int(i), fit, jacobians[i], wcs)
        sources["trail_flag"][i] = fit.point_chi2 - fit.chi2 < config.min_chi2_gain


def elongation(shapes: Shapes, snr: Float64) -> tuple[Float64, Float64, Float64]:
    """Length [pixel], angle [rad, +x to +y] and significance of the line that turns the PSF's moments into these.

    A line of length L adds L**2 / 12 to the variance along it; what is wide across it is no line (significance -inf).
    """
    xx, yy, xy = shapes.source.T
    half_trace, spread_ = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    angle = np.arctan2(2 * xy, xx - yy) / 2
    pxx, pyy, pxy = shapes.psf.T
    c, s = np.cos(angle), np.sin(angle)
    along_psf = pxx * c * c + pyy * s * s + 2 * pxy * c * s
    across_psf = pxx * s * s + pyy * c * c - 2 * pxy * c * s
    excess = half_trace + spread_ - along_psf
    lopsided = excess - (half_trace - spread_ - across_psf)
    error = 2.8 * half_trace / np.maximum(np.abs(snr), 1.0) + 0.02 * along_psf
    significance = np.minimum(excess, lopsided) / error
    across = half_trace - spread_
    is_thin = across * (1 - 6 / np.maximum(np.abs(snr), 6.0)) < _MAX_WIDTH_RATIO * across_psf
    significance = np.where(is_thin, significance, -np.inf)
    return np.sqrt(12 * np.maximum(excess, 0.0)), angle, np.nan_to_num(significance, nan=-np.inf)


def _fit_one(plane: PsfOnFrame, start: Float64, steps: int) -> _Fit | None:
    """Levenberg-Marquardt with equal damping of the scaled parameters; None if it does not converge to a flux."""
    half = min(int(np.ceil(np.hypot(start[3], start[4]) * 1.3)) + plane.half, _MAX_HALF_PIX)
    window = _Window.around(plane, start[1], start[2], half)
    if window is None:
        return None
    values, damping = start.copy(), 1e-3
    best = window.sums(values)
    values[0] = best.best_flux
    best = window.sums(values)
    for _ in range(steps):
        scale = np.diag(best.normal).copy()
        scale[scale <= 0] = 1e-30
        step = np.linalg.solve(best.normal + damping * np.diag(scale), best.right)
        step[1:] = np.clip(step[1:], -_MAX_STEP_PIX, _MAX_STEP_PIX)
        new = values + step
        if np.abs(new[1:3] - start[1:3]).max() > half or np.hypot(new[3], new[4]) > half:
            return None
        found = window.sums(new)
        if found.chi2 < best.chi2:
            values, best, damping = new, found, damping * 0.3
        else:
            damping *= 10
        if np.abs(step[1:]).max() < _SMALLEST_STEP_PIX or damping > 1e8:
            break
    point = window.sums(np.array([0.0, start[1], start[2], 0.0, 0.0]))
    point = window.sums(np.array([point.best_flux, start[1], start[2], 0.0, 0.0]))
    return _Fit(
        values=values, covariance=np.asarray(np.linalg.pinv(best.normal, hermitian=True), np.float64),
        chi2=best.chi2, point_chi2=point.chi2,
        n_data=window.n_data, is_cut=window.is_cut,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sums:
    normal: Float64
    right: Float64
    chi2: float

    @property
    def best_flux(self) -> float:
        """Flux of least chi-square, from sums taken at zero flux."""
        return float(self.right[0] / max(float(self.normal[0, 0]), 1e-300))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    """Pixels around a trail: data, inverse variance (0 = unusable), and the PSF's polynomial terms at its center."""

    plane: PsfOnFrame
    terms: Float64
    data: Float32
    weight: Float32
    x0: int
    y0: int
    is_cut: bool

    @classmethod
    def around(cls, plane: PsfOnFrame, x: float, y: float, half: int) -> "_Window | None":
        frame = plane.frame
        ny, nx = frame.shape
        xc, yc = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
        box = (slice(max(yc - half, 0), min(yc + half + 1, ny)), slice(max(xc - half, 0), min(xc + half + 1, nx)))
        variance = frame.variance[box]
        good = (variance > 0) & ((frame.mask[box] & UNUSABLE) == 0)
        if good.sum() < 20:
            return None
        side = 2 * half + 1
        data, weight = np.zeros((side, side), np.float32), np.zeros((side, side), np.float32)
        inner = (slice(box[0].start - yc + half, box[0].stop - yc + half),
                 slice(box[1].start - xc + half, box[1].stop - xc + half))  # fmt: skip
        data[inner] = np.where(good, frame.image[box], 0.0)
        weight[inner] = np.where(good, 1.0 / np.where(good, variance, 1.0), 0.0)
        is_cut = variance.shape != (side, side)
        terms = plane.terms(np.array([float(xc)]), np.array([float(yc)]))
        return cls(plane=plane, terms=terms, data=data, weight=weight, x0=xc - half, y0=yc - half, is_cut=is_cut)

    @property
    def n_data(self) -> int:
        return int((self.weight > 0).sum())

    def sums(self, values: Float64) -> _Sums:
        """Gauss-Newton sums of the model at ``values``; a flux of zero leaves the best flux to be found."""
        flux, x, y, a, b = values
        n_points = 3 + int(np.ceil(2 * np.hypot(a, b) / (_POINT_SPACING_FWHM * self.plane.fwhm_pix)))
        t = (np.arange(n_points) + 0.5) * 2 / n_points - 1
        px, py = x + t * a, y + t * b
        half = self.plane.half
        ix, iy = np.floor(px + 0.5).astype(np.int64), np.floor(py + 0.5).astype(np.int64)
        planes = np.empty((n_points, 3, 2 * half + 1, 2 * half + 1), np.float32)
        psf = self.plane.psf
        terms = np.repeat(self.terms, n_points, axis=0)
        psf_planes(psf.coefficients, self.plane.sums, terms, px - ix, py - iy, half, planes)
        model = np.empty((5, *self.data.shape), np.float32)
        spread(planes, iy - half - self.y0, ix - half - self.x0, t, model)
        normal, right = np.empty((5, 5)), np.empty(5)
        chi2 = float(trail_sums(model, self.data, self.weight, float(flux), normal, right))
        return _Sums(normal=normal, right=right, chi2=chi2)


def _fill(sources: Catalog, i: int, fit: _Fit, jacobian: Float64, wcs: Wcs) -> None:
    flux, x, y, a, b = fit.values
    variance = np.maximum(np.diag(fit.covariance), 0)
    sources["trailFlux"][i], sources["trailFluxErr"][i] = flux, np.sqrt(variance[0])
    ra, dec = wcs.pixel_to_sky(x, y)
    sources["trailRa"][i], sources["trailDec"][i] = float(ra), float(dec)
    position = jacobian @ fit.covariance[1:3, 1:3] @ jacobian.T
    sources["trailRaErr"][i], sources["trailDecErr"][i] = np.sqrt(np.maximum(np.diag(position), 0))
    east, north = 3600 * (jacobian @ np.array([2 * a, 2 * b]))
    length = float(np.hypot(east, north))
    on_sky = (7200 * jacobian) @ fit.covariance[3:5, 3:5] @ (7200 * jacobian).T
    unit = np.array([east, north]) / max(length, 1e-9)
    across = np.array([-unit[1], unit[0]])
    sources["trailLength"][i] = length
    sources["trailLengthErr"][i] = np.sqrt(max(float(unit @ on_sky @ unit), 0.0))
    sources["trailAngle"][i] = np.degrees(np.arctan2(east, north)) % 180
    sources["trailAngleErr"][i] = np.degrees(np.sqrt(max(float(across @ on_sky @ across), 0.0)) / max(length, 1e-9))
    sources["trailChi2"][i], sources["trailNdata"][i] = fit.chi2, fit.n_data
    sources["trailAlgorithm"][i] = TRAIL_FROM_ADAPTIVE_MOMENTS
    sources["trail_flag_edge"][i] = fit.is_cut
