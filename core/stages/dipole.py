"""Dipoles: two point sources of opposite sign, the mark of a star that moved or was subtracted off its place."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.contracts.catalogs import Catalog
from core.kernels.dipole import opposite_lobe, two_lobe_sums
from core.kernels.psf_flux import psf_planes
from core.stages.point_source import UNUSABLE, PsfOnFrame
from core.workspace import Workspace, bands

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_MAX_STEP_PIX: Final = 0.5
_SMALLEST_STEP_PIX: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class DipoleConfig:
    """When a dipole is tried and when it is believed."""

    min_lobe_snr: float = 3.5
    """A lobe of the opposite sign this significant, or a footprint of both signs, has a dipole tried."""
    max_flux_share: float = 0.65
    """Share of the brighter lobe in the sum of both, above which it is no dipole."""
    min_chi2_gain: float = 20.0
    """By how much the two lobes must beat the single point."""
    max_fits: int = 400
    steps: int = 12


@dataclass(slots=True)
class _Lobes:
    """State of n fits: parameters (flux, x, y) of the positive lobe, then of the negative; windows at (y0, x0)."""

    values: Float64
    y0: Int64
    x0: Int64
    half: int

    def take(self, rows: Int64) -> "_Lobes":
        """Some of the fits, copied."""
        return _Lobes(values=self.values[rows], y0=self.y0[rows], x0=self.x0[rows], half=self.half)

    @property
    def centers(self) -> tuple[Float64, Float64]:
        """Middle pixels (x, y) of the windows."""
        return (self.x0 + self.half).astype(np.float64), (self.y0 + self.half).astype(np.float64)


def fit_dipoles(
    sources: Catalog,
    plane: PsfOnFrame,
    has_both_signs: NDArray[np.bool_],
    jacobians: Float64,
    workspace: Workspace,
    config: DipoleConfig,
) -> None:
    """Fill the dipole columns: values where a fit was tried, ``dipoleFitAttempted`` and ``isDipole`` everywhere.

    Lobes closer than about a PSF's sigma leave flux and length degenerate (only their product is known): the fit then
    keeps about the separation of the two peaks. The angle is the bearing from the negative to the positive lobe.
    """
    sources["dipoleFitAttempted"] = False
    sources["isDipole"] = False
    y, x = (np.floor(sources[name].astype(np.float64) + 0.5).astype(np.int64) for name in ("y", "x"))
    sign = np.where(sources["isNegative"] == 1, -1.0, 1.0)
    reach = int(np.ceil(1.5 * plane.fwhm_pix))
    lobe_y, lobe_x, lobe_snr = np.empty_like(y), np.empty_like(x), np.empty(y.size)
    frame = plane.frame
    opposite_lobe(frame.image, frame.variance, frame.mask, UNUSABLE, y, x, sign, reach, lobe_y, lobe_x, lobe_snr)
    tried = np.flatnonzero(
        ((lobe_snr >= config.min_lobe_snr) | has_both_signs) & (lobe_snr > 0) & np.isfinite(sources["psfFlux"])
    )
    if tried.size > config.max_fits:
        tried = np.sort(tried[np.argsort(-sources["snr"][tried], kind="stable")[: config.max_fits]])
    if tried.size == 0:
        return
    lobes = _start(sources[tried], sign[tried], lobe_y[tried], lobe_x[tried], plane)
    chi2, count, covariance, is_fitted = _solve(lobes, plane, workspace, config.steps)
    _fill(sources, tried[is_fitted], lobes.values[is_fitted], covariance[is_fitted], jacobians[tried[is_fitted]])
    sources["dipoleFitAttempted"][tried] = True
    good = tried[is_fitted]
    sources["dipoleChi2"][good], sources["dipoleNdata"][good] = chi2[is_fitted], count[is_fitted]
    fluxes = np.abs(lobes.values[:, [0, 3]])
    share = fluxes.max(axis=1) / np.maximum(fluxes.sum(axis=1), np.finfo(np.float64).tiny)
    lobe_errors = np.sqrt(np.maximum(covariance[:, [0, 3], [0, 3]], 0))
    is_significant = (lobes.values[:, [0, 3]] > 3 * lobe_errors).all(axis=1) | (lobe_snr[tried] >= 5)
    gain = _point_chi2(sources[tried], lobes, plane, workspace) - chi2
    sources["isDipole"][tried] = (
        is_fitted & is_significant & (share <= config.max_flux_share) & (gain >= config.min_chi2_gain)
    )


def _start(rows: Catalog, sign: Float64, lobe_y: Int64, lobe_x: Int64, plane: PsfOnFrame) -> _Lobes:
    x, y, flux = (rows[name].astype(np.float64) for name in ("x", "y", "psfFlux"))
    values = np.empty((rows.size, 6))
    other = 0.7 * np.abs(flux)
    is_positive = sign > 0
    values[:, 0] = np.where(is_positive, np.abs(flux), other)
    values[:, 3] = np.where(is_positive, other, np.abs(flux))
    values[:, 1], values[:, 4] = np.where(is_positive, (x, lobe_x), (lobe_x, x))
    values[:, 2], values[:, 5] = np.where(is_positive, (y, lobe_y), (lobe_y, y))
    half = plane.half + int(np.ceil(0.75 * plane.fwhm_pix))
    x0 = np.floor((x + lobe_x) / 2 + 0.5).astype(np.int64) - half
    y0 = np.floor((y + lobe_y) / 2 + 0.5).astype(np.int64) - half
    return _Lobes(values=values, y0=y0, x0=x0, half=half)


def _planes(lobes: _Lobes, plane: PsfOnFrame, terms: Float64, first: int) -> NDArray[np.float32]:
    size = 2 * lobes.half + 1
    out = np.empty((lobes.x0.size, 3, size, size), np.float32)
    dx = np.clip(lobes.values[:, first + 1] - lobes.x0 - lobes.half, -lobes.half, lobes.half)
    dy = np.clip(lobes.values[:, first + 2] - lobes.y0 - lobes.half, -lobes.half, lobes.half)
    psf_planes(plane.psf.coefficients, plane.sums, terms, dx, dy, lobes.half, out)
    return out


def _solve(
    lobes: _Lobes, plane: PsfOnFrame, workspace: Workspace, steps: int
) -> tuple[Float64, Int64, Float64, NDArray[np.bool_]]:
    """Damped Gauss-Newton (Levenberg-Marquardt) on all windows at once; returns chi2, pixels, covariance, success.

    Windows leave the loop as they converge; ``lobes.values`` ends at the best found.
    """
    n = lobes.x0.size
    damping, best_chi2, best = np.full(n, 1e-2), np.full(n, np.inf), lobes.values.copy()
    best_normal, best_right, best_count = np.zeros((n, 6, 6)), np.zeros((n, 6)), np.zeros(n, np.int64)
    active = np.arange(n)
    for _ in range(steps):
        normal, right, chi2, count = _sums(lobes.take(active), plane, workspace)
        better = chi2 < best_chi2[active]
        rows = active[better]
        best[rows], best_chi2[rows], best_count[rows] = lobes.values[rows], chi2[better], count[better]
        best_normal[rows], best_right[rows] = normal[better], right[better]
        damping[active] = np.clip(np.where(better, damping[active] * 0.3, damping[active] * 10), 1e-6, 1e6)
        step = _damped_step(best_normal[active], best_right[active], damping[active])
        moved = best[active] + step
        moved[:, [0, 3]] = np.maximum(moved[:, [0, 3]], 0.0)
        lobes.values[active] = moved
        active = active[np.abs(step[:, [1, 2, 4, 5]]).max(axis=1) >= _SMALLEST_STEP_PIX]
        if active.size == 0:
            break
    lobes.values = best
    is_fitted = np.isfinite(best_chi2) & (best_count > 6) & (best[:, 0] > 0) & (best[:, 3] > 0)
    covariance = np.full((n, 6, 6), np.nan)
    covariance[is_fitted] = np.linalg.pinv(best_normal[is_fitted], hermitian=True)
    return best_chi2, best_count, covariance, is_fitted


def _sums(lobes: _Lobes, plane: PsfOnFrame, workspace: Workspace) -> tuple[Float64, Float64, Float64, Int64]:
    n, frame = lobes.x0.size, plane.frame
    terms = plane.terms(*lobes.centers)
    normal, right = np.empty((n, 6, 6)), np.empty((n, 6))
    chi2, count = np.empty(n), np.empty(n, np.int64)
    flux = np.ascontiguousarray(lobes.values[:, [0, 3]])

    def add(rows: tuple[int, int]) -> None:
        some = slice(*rows)
        part = lobes.take(np.arange(*rows))
        two_lobe_sums(
            frame.image, frame.variance, frame.mask, UNUSABLE, part.y0, part.x0, _planes(part, plane, terms[some], 0),
            _planes(part, plane, terms[some], 3), flux[some], normal[some], right[some], chi2[some], count[some],
        )  # fmt: skip

    workspace.share(add, bands(n, workspace.n_threads))
    return normal, right, chi2, count


def _damped_step(normal: Float64, right: Float64, damping: Float64) -> Float64:
    diagonal = np.einsum("nii->ni", normal)
    scale = np.maximum(diagonal, 1e-12 * np.maximum(diagonal.max(axis=1, keepdims=True), 1e-300))
    damped = normal + np.einsum("ni,ij->nij", scale * damping[:, None], np.eye(6))
    step = np.linalg.solve(damped, right[:, :, None])[:, :, 0]
    step[:, [1, 2, 4, 5]] = np.clip(step[:, [1, 2, 4, 5]], -_MAX_STEP_PIX, _MAX_STEP_PIX)
    return np.asarray(np.nan_to_num(step), np.float64)


def _point_chi2(rows: Catalog, lobes: _Lobes, plane: PsfOnFrame, workspace: Workspace) -> Float64:
    """Chi-square of the single point on the windows of the dipoles."""
    flux = rows["psfFlux"].astype(np.float64)
    point = _Lobes(
        values=np.stack([flux, rows["x"], rows["y"], 0 * flux, rows["x"], rows["y"]], axis=1),
        y0=lobes.y0, x0=lobes.x0, half=lobes.half,
    )  # fmt: skip
    return _sums(point, plane, workspace)[2]


def _fill(sources: Catalog, rows: Int64, values: Float64, covariance: Float64, jacobians: Float64) -> None:
    mean = values[:, [0, 3]].mean(axis=1)
    sources["dipoleMeanFlux"][rows] = mean
    sources["dipoleFluxDiff"][rows] = values[:, 0] - values[:, 3]
    both, cross = covariance[:, 0, 0] + covariance[:, 3, 3], 2 * covariance[:, 0, 3]
    sources["dipoleMeanFluxErr"][rows] = np.sqrt(np.maximum(both + cross, 0)) / 2
    sources["dipoleFluxDiffErr"][rows] = np.sqrt(np.maximum(both - cross, 0))
    separation = np.stack([values[:, 1] - values[:, 4], values[:, 2] - values[:, 5]], axis=1)
    on_sky = (jacobians @ separation[:, :, None])[:, :, 0]
    sources["dipoleLength"][rows] = 3600 * np.hypot(on_sky[:, 0], on_sky[:, 1])
    sources["dipoleAngle"][rows] = np.degrees(np.arctan2(on_sky[:, 0], on_sky[:, 1])) % 360
