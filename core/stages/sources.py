"""Sources of the science frame: how wide its stars are, and where everything bright enough is."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.contracts.catalogs import SOURCE, Catalog
from core.contracts.exposure import Frame
from core.flags import Mask
from core.kernels.source_detection import bright_maxima, find_peaks, measure_shapes, smooth_separable
from core.workspace import Workspace

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]

FWHM_PER_SIGMA: Final = 2.3548
_MIN_FOR_SEEING: Final = 5
_UNTRUSTED: Final = np.uint16(Mask.BAD | Mask.SAT | Mask.NODATA | Mask.SUSPECT | Mask.CR)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcesConfig:
    """How sources are found and measured."""

    min_snr: float = 5.0
    max_sources: int = 20_000
    """The brightest are kept."""
    aperture_fwhm: float = 2.0
    """Radius of the aperture in units of the seeing."""
    ring_fwhm: float = 1.5
    """Distance at which a peak must stand out of its surroundings, in units of the seeing."""
    min_prominence: float = 0.15
    """Fraction of a peak that must lie above its surroundings."""
    seeing_min_snr: float = 25.0
    """Single pixels above this may be the centers of stars that show the seeing."""
    seeing_max_peaks: int = 400
    """So many of them are measured."""
    seeing_min_fwhm_pix: float = 1.7
    """Anything narrower is no star."""
    seeing_max_ellipticity: float = 0.5
    """Anything longer is no star, unless all are."""


def measure_seeing(frame: Frame, guess_fwhm_pix: float, workspace: Workspace, config: SourcesConfig) -> float:
    """FWHM [pixel] of the stars: the densest clump of sizes of bright peaks; ``guess_fwhm_pix`` where there are few.

    Needs no clean frame: cosmic rays are narrower than any star, galaxies spread over all sizes, and the hundreds of
    peaks along a satellite's track are long. About 0.03 s CPU.
    """
    y, x = (workspace.array(f"seeing.{axis}", (4096,), np.int32) for axis in "yx")
    step = 2 if frame.shape[0] >= 2048 else 1
    least = max(0.8 * config.seeing_min_snr * float(np.sqrt(np.percentile(frame.variance[::37, ::31], 10))), 1e-30)
    n = bright_maxima(
        frame.image, frame.variance, frame.mask, _UNTRUSTED, least, config.seeing_min_snr, 16, step, y, x  # type: ignore[arg-type]
    )  # fmt: skip
    if n < _MIN_FOR_SEEING:
        return guess_fwhm_pix
    chosen = np.linspace(0, n - 1, min(n, config.seeing_max_peaks)).astype(np.int64)
    shapes, _ = _measure(frame, y[chosen], x[chosen], guess_fwhm_pix / FWHM_PER_SIGMA, 4, 1.0)  # type: ignore[arg-type]
    ixx, iyy, ixy = shapes[:, 2:5].T
    widths = fwhm_of(ixx, iyy, ixy)
    is_wide = np.isfinite(widths) & (widths > config.seeing_min_fwhm_pix)
    widths = widths[without_long(is_wide, (ixx, iyy, ixy), config.seeing_max_ellipticity, _MIN_FOR_SEEING)]
    return clump(widths) if widths.size >= _MIN_FOR_SEEING else guess_fwhm_pix


def detect_sources(frame: Frame, fwhm_pix: float, workspace: Workspace, config: SourcesConfig) -> Catalog:
    """Peaks of the frame convolved with a Gaussian of ``fwhm_pix``, with windowed positions, moments and apertures.

    The frame is background subtracted, in any unit. Returns :data:`SOURCE` rows, brightest first, psfFlux zero.
    Nothing is deblended; peaks on a brighter star's wing must stand out of it. Buffers ``sources.*``. About 0.15 s CPU.
    """
    sigma = fwhm_pix / FWHM_PER_SIGMA
    taps = gaussian_taps(sigma)
    smooth: Float32 = workspace.array("sources.smooth", frame.shape)  # type: ignore[assignment]
    smooth_separable(frame.image, taps, smooth)
    total = 2 * float(np.square(taps).sum()) - float(taps[0] ** 2)
    floor = 0.6 * float(np.percentile(frame.variance[::37, ::31], 25))
    least = config.min_snr * total * np.sqrt(floor)
    y, x = (workspace.array(f"sources.{axis}", (1 << 17,), np.int32) for axis in "yx")
    snr: Float32 = workspace.array("sources.snr", (1 << 17,))  # type: ignore[assignment]
    ring = max(round(config.ring_fwhm * fwhm_pix), 3)
    n = find_peaks(
        smooth, frame.variance, frame.mask, taps, least, config.min_snr, ring, config.min_prominence, y, x, snr  # type: ignore[arg-type]
    )  # fmt: skip
    order = np.argsort(-smooth[y[:n], x[:n]], kind="stable")[: config.max_sources]
    peak_y, peak_x = (np.ascontiguousarray(a[:n][order], np.int32) for a in (y, x))
    shapes, bits = _measure(frame, peak_y, peak_x, sigma, 0, config.aperture_fwhm * fwhm_pix)
    return _catalog(shapes, bits, snr[:n][order], sigma)


def gaussian_taps(sigma: float) -> Float32:
    """Half profile of a unit-sum Gaussian, center first, to three sigma."""
    half = np.exp(-0.5 * (np.arange(int(3 * sigma + 1.5)) / sigma) ** 2)
    return np.asarray(half / (2 * half.sum() - half[0]), np.float32)


def fwhm_of(ixx: Float64, iyy: Float64, ixy: Float64) -> Float64:
    """FWHM of the Gaussian with these moments [pixel]; NaN where they are none."""
    determinant = ixx * iyy - ixy**2
    return np.asarray(FWHM_PER_SIGMA * np.where(determinant > 0, determinant, np.nan) ** 0.25, np.float64)


def ellipticity_of(ixx: Float64, iyy: Float64, ixy: Float64) -> Float64:
    """Length of (ixx - iyy, 2 ixy) / (ixx + iyy): 0 round, 1 a line."""
    return np.asarray(np.hypot(ixx - iyy, 2 * ixy) / np.maximum(ixx + iyy, 1e-30), np.float64)


def without_long(
    chosen: NDArray[np.bool_], moments: tuple[Float64, Float64, Float64], max_ellipticity: float, n_least: int
) -> NDArray[np.bool_]:
    """The chosen that are rounder; all of them where fewer than ``n_least`` are.

    A satellite's track is hundreds of long peaks of one size; in a trailed exposure the stars are long too.
    """
    is_round = chosen & (ellipticity_of(*moments) < max_ellipticity)
    return is_round if is_round.sum() >= n_least else chosen


def clump(values: Float64) -> float:
    """Mode of positive values by the half-sample method in their logarithm (Robertson & Cryer 1974)."""
    ordered = np.sort(np.log(values))
    while ordered.size > 3:
        half = (ordered.size + 1) // 2
        start = int(np.argmin(ordered[half - 1 :] - ordered[: ordered.size - half + 1]))
        ordered = ordered[start : start + half]
    return float(np.exp(ordered.mean()))


def _measure(
    frame: Frame, y: Int32, x: Int32, sigma: float, n_adapt: int, radius: float
) -> tuple[Float64, NDArray[np.uint16]]:
    out, bits = np.empty((y.size, 8)), np.empty(y.size, np.uint16)
    measure_shapes(frame.image, frame.variance, frame.mask, y, x, sigma, n_adapt, radius, out, bits)
    return out, bits


def _catalog(shapes: Float64, bits: NDArray[np.uint16], snr: Float32, sigma: float) -> Catalog:
    sources = np.zeros(snr.size, SOURCE)
    sources["x"], sources["y"] = shapes[:, 0], shapes[:, 1]
    for name, column in zip(("ixx", "iyy", "ixy", "apFlux"), (2, 3, 4, 5), strict=True):
        sources[name] = shapes[:, column]
    sources["apFluxErr"] = np.sqrt(shapes[:, 6])
    sources["peak"] = shapes[:, 7]
    sources["snr"] = snr
    # a Gaussian's Cramér-Rao bound
    sources["xErr"] = sources["yErr"] = sigma / np.maximum(snr, 1.0)
    sources["mask"] = bits
    return sources
