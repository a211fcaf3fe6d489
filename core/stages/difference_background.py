"""What is left of the background in a difference."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.contracts.catalogs import Catalog
from core.contracts.exposure import Frame
from core.flags import Mask
from core.kernels.difference import mark_disks, mesh_histograms, subtract_mesh
from core.workspace import Workspace, bands

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

_SOURCE: Final = np.uint16(Mask.DETECTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferenceBackgroundConfig:
    """Mesh of the difference background."""

    mesh_size_pix: int = 64
    limit_sigma: float = 4.0
    n_bins: int = 256
    row_step: int = 1
    min_fraction: float = 0.25
    """A cell with a smaller fraction of usable pixels takes the value of its neighbours."""
    max_step_sigma: float = 0.1
    """A cell that differs from the mean of its neighbourhood by more than this (in units of a pixel's noise) is not
    averaged with it: the science image's sky is peaked where it took in the light of a large galaxy."""
    enough_sigma: float = 1.0
    """A mesh that takes out more than this anywhere is followed by another: clipped medians lag behind."""
    max_rounds: int = 4
    source_radius_fwhm: float = 1.8
    """Within this of a source of S/N 10 a pixel is no sky, and farther for brighter ones: the wings of what changed
    would raise the median, by two hundredths of the error of a faint flux beside them."""
    max_source_share: float = 0.3
    """Where sources would take more of the pixels than this, none are left out."""


def subtract_difference_background(
    frame: Frame,
    workspace: Workspace,
    config: DifferenceBackgroundConfig | None = None,
    sources: Catalog | None = None,
    fwhm_pix: float = 0.0,
) -> Float32:
    """Subtract in place the median of unmasked pixels on a coarse mesh, smoothed over 3 x 3 cells; returns the mesh.

    (n_my, n_mx) float32, in the frame's unit. The median of one cell is good to two percent of a pixel's noise, that of
    nine to 0.7: next to nothing in the S/N of a source. A wider mesh leaves structure of the two sky models.

    Parameters
    ----------
    sources : SOURCE rows of the science image, none of whose pixels are sky; ``fwhm_pix`` of the broader PSF.
    """
    config = config or DifferenceBackgroundConfig()
    if sources is not None:
        _mark_sources(frame, sources, fwhm_pix, config)
    ny, nx = frame.shape
    n_my, n_mx = max(1, round(ny / config.mesh_size_pix)), max(1, round(nx / config.mesh_size_pix))
    histograms = np.empty((n_my, n_mx, config.n_bins), np.int64)
    sigma = _cell_sigma(frame, n_my, n_mx)
    removed = np.zeros((n_my, n_mx), np.float32)

    def count(rows: tuple[int, int]) -> None:
        mesh_histograms(
            frame.image, frame.variance, frame.mask, sigma, config.limit_sigma, config.row_step, *rows, histograms
        )

    for _ in range(config.max_rounds):
        workspace.share(count, bands(n_my, workspace.n_threads))
        is_measured = histograms.sum(axis=2) >= config.min_fraction * ny * nx / (n_my * n_mx * config.row_step)
        raw = np.where(is_measured, _median(histograms, config) * sigma, np.nan)
        smooth = _smooth(raw)
        is_steep = np.abs(raw - smooth) > config.max_step_sigma * sigma  # never where it is not measured
        mesh = np.where(is_steep, raw, smooth).astype(np.float32)
        subtract_mesh(mesh, frame.image)
        removed += mesh
        if np.abs(mesh / sigma).max() < config.enough_sigma:
            break
    if sources is not None:
        np.bitwise_and(frame.mask, ~_SOURCE, out=frame.mask)
    return removed


def _mark_sources(frame: Frame, sources: Catalog, fwhm_pix: float, config: DifferenceBackgroundConfig) -> None:
    """DETECTED about the sources, which is no sky; no mark where hardly any sky would be left."""
    decades = np.clip(np.log10(np.maximum(sources["snr"].astype(np.float64), 1.0)) - 1, -0.5, 2.0)
    radius = config.source_radius_fwhm * fwhm_pix * (1 + 0.6 * decades)
    y, x = (np.rint(sources[name]).astype(np.int64) for name in ("y", "x"))
    n_marked = mark_disks(frame.mask, _SOURCE, y, x, radius)
    if n_marked > config.max_source_share * frame.mask.size:
        np.bitwise_and(frame.mask, ~_SOURCE, out=frame.mask)


def _median(histograms: Int64, config: DifferenceBackgroundConfig) -> NDArray[np.float64]:
    """Median of each histogram, clipped twice at two and a half sigma of its own, in units of sigma."""
    centers = (np.arange(config.n_bins) + 0.5) * 2 * config.limit_sigma / config.n_bins - config.limit_sigma
    low = np.full(histograms.shape[:2], -config.limit_sigma)
    high = -low
    median = np.zeros(histograms.shape[:2])
    for _ in range(3):
        inside = (centers >= low[..., None]) & (centers <= high[..., None])
        cumulative = np.cumsum(histograms * inside, axis=2)
        half = cumulative[..., -1:] / 2
        index = np.argmax(cumulative >= half, axis=2)
        below = np.take_along_axis(cumulative, np.maximum(index - 1, 0)[..., None], 2)[..., 0] * (index > 0)
        count = np.take_along_axis(histograms, index[..., None], 2)[..., 0]
        width = 2 * config.limit_sigma / config.n_bins
        median = centers[index] + width * ((half[..., 0] - below) / np.maximum(count, 1) - 0.5)
        low, high = median - 2.5, median + 2.5
    return median


def _cell_sigma(frame: Frame, n_my: int, n_mx: int) -> Float32:
    """(n_my, n_mx) typical noise of a sky pixel: lower quartile of a sparse sample of the variance."""
    ny, nx = frame.shape
    n_side = 5
    y = ((np.arange(n_my * n_side) + 0.5) * ny / (n_my * n_side)).astype(np.int64)
    x = ((np.arange(n_mx * n_side) + 0.5) * nx / (n_mx * n_side)).astype(np.int64)
    sample = frame.variance[np.ix_(y, x)].reshape(n_my, n_side, n_mx, n_side).swapaxes(1, 2).reshape(n_my, n_mx, -1)
    rank = n_side**2 // 4
    return np.asarray(np.sqrt(np.partition(sample, rank, axis=2)[:, :, rank]), np.float32)


def _smooth(mesh: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over 3 x 3 cells, without the unmeasured; zero where nothing near is measured."""
    is_known = np.isfinite(mesh)
    filled = np.pad(np.where(is_known, mesh, 0.0), 1)
    weight = np.pad(is_known.astype(np.float64), 1)
    shape = mesh.shape
    window = [(slice(j, j + shape[0]), slice(i, i + shape[1])) for j in range(3) for i in range(3)]
    total = np.sum([filled[w] for w in window], axis=0)
    count = np.sum([weight[w] for w in window], axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), 0.0)
