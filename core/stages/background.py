"""Sky background: a mesh of clipped modes, subtracted by bicubic interpolation."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from core.contracts.exposure import Frame
from core.contracts.psf import polynomial_terms
from core.contracts.results import Background
from core.errors import Outcome, UnusableDataError
from core.flags import Mask
from core.kernels.background import mesh_statistics, subtract_mesh
from core.workspace import Workspace

Float32 = NDArray[np.float32]

_MIN_CELLS: Final = 8
"""A side of the mesh with fewer cells tells no object from the sky."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackgroundConfig:
    """How the sky is estimated."""

    cell_size_pix: int = 128
    filter_cells: int = 3
    """Median filter over the mesh, so that a bright galaxy does not dig a ring around itself; 1 is off."""
    min_good_fraction: float = 0.3
    """Cells with fewer usable pixels take their neighbours' sky."""
    row_step: int = 2
    """Every such row goes into the statistics."""
    ignored_planes: Mask = Mask.BAD | Mask.SAT | Mask.NODATA | Mask.CR
    max_object_sigma: float = 0.2
    """Cells so far above a smooth sky, in units of a pixel's noise, hold the light of an object larger than they."""
    photon_noise: float = 1.0
    """Variance that the frame holds for each unit of a pixel's value: 1 for electrons, 0 where it holds none."""


def subtract_background(frame: Frame, workspace: Workspace, config: BackgroundConfig) -> Background:
    """Subtract the sky from ``frame.image`` in place; the variance becomes that of the expected sky under noise.

    Electrons, or any unit with its ``photon_noise``. About 0.07 s CPU for a full detector.

    Raises ``UnusableDataError`` (bad_raw) where no cell has enough usable pixels.
    """
    ny, nx = frame.shape
    n_cells = tuple(max(round(n / config.cell_size_pix), 1) for n in (ny, nx))
    edges_y, edges_x = (
        np.linspace(0, n, c + 1).round().astype(np.int64) for n, c in zip((ny, nx), n_cells, strict=True)
    )
    level: Float32 = workspace.array("background.level", n_cells)  # type: ignore[assignment]
    sigma: Float32 = workspace.array("background.sigma", n_cells)  # type: ignore[assignment]
    skip = np.uint16(config.ignored_planes)
    fraction = config.min_good_fraction
    mesh_statistics(frame.image, frame.mask, edges_y, edges_x, skip, config.row_step, fraction, level, sigma)
    if not np.isfinite(level).any():
        raise UnusableDataError("no sky to be seen", outcome=Outcome.BAD_RAW)
    mesh = _filled(level)
    if config.filter_cells > 1:
        mesh = median_filter(mesh, size=config.filter_cells, mode="nearest")
    median_sigma = float(np.nanmedian(sigma))
    mesh = _without_large_objects(mesh, median_sigma, config)
    subtract_mesh(
        frame.image, frame.variance, frame.mask, _extended(mesh), max(median_sigma, 1e-6), config.photon_noise
    )
    return Background(level=float(np.median(mesh)), sigma=median_sigma, mesh=mesh)


def _without_large_objects(mesh: Float32, sigma: float, config: BackgroundConfig) -> Float32:
    """Cells that stand out of a second-order surface, as those of a large galaxy do, take the surface's value.

    The surface is fitted to all cells, then to those within three of their own spread, until they stay the same.
    """
    if min(mesh.shape) < _MIN_CELLS:
        return mesh
    y, x = np.indices(mesh.shape)
    terms = polynomial_terms(x.ravel(), y.ravel(), mesh.shape, 2)
    values = mesh.ravel().astype(np.float64)
    keep = np.ones(values.size, np.bool_)
    for _ in range(20):
        surface = terms @ np.linalg.lstsq(terms[keep], values[keep], rcond=None)[0]
        residual = values - surface
        spread = 1.4826 * float(np.median(np.abs(residual[keep])))
        previous, keep = keep, np.abs(residual) <= 3 * max(spread, 1e-6)
        if keep.sum() < values.size // 4:
            return mesh
        if (keep == previous).all():
            break
    is_object = residual > max(config.max_object_sigma * sigma, 5 * spread)
    return np.where(is_object, surface, values).reshape(mesh.shape).astype(np.float32)


def _filled(level: Float32) -> Float32:
    """NaN cells take the mean of their known neighbours, ring by ring."""
    mesh = level.copy()
    while (missing := ~np.isfinite(mesh)).any():
        padded = np.pad(mesh, 1, constant_values=np.nan)
        around = np.stack(
            [padded[dy : dy + mesh.shape[0], dx : dx + mesh.shape[1]] for dy in range(3) for dx in range(3)]
        )
        known = np.isfinite(around)
        n = known.sum(axis=0)
        mean = np.where(known, around, 0).sum(axis=0) / np.maximum(n, 1)
        mesh = np.where(missing & (n > 0), mean, mesh).astype(np.float32)
    return mesh


def _extended(mesh: Float32) -> Float32:
    """Two more cells on every side, extrapolated linearly."""
    if min(mesh.shape) == 1:
        return np.pad(mesh, 2, mode="edge")
    return np.ascontiguousarray(
        np.pad(mesh, 2, mode="reflect", reflect_type="odd") if min(mesh.shape) > 2 else _linear(mesh)
    )


def _linear(mesh: Float32) -> Float32:
    once = np.pad(mesh, 1, mode="reflect", reflect_type="odd")
    return np.asarray(np.pad(once, 1, mode="reflect", reflect_type="odd"), np.float32)
