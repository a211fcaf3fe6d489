"""Templates: separately simulated visits, warped to a tract and coadded. Nothing is drawn on the tract itself."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import fitsio
import numpy as np
from numpy.typing import NDArray

from benchmarks.simulator.changes import Variables
from benchmarks.simulator.config import SimulationConfig
from benchmarks.simulator.drawing import draw
from benchmarks.simulator.electronics import spill_columns
from benchmarks.simulator.landmarks import LargeGalaxy, large_galaxy
from benchmarks.simulator.randomness import stream
from benchmarks.simulator.scene import Frame, paint, place_rows
from benchmarks.simulator.skymodel import Rows, positions_at
from benchmarks.simulator.template_inputs import TemplateInput, input_frame, template_inputs
from benchmarks.simulator.tract import Tract
from benchmarks.simulator.warp import LANCZOS_VARIANCE, STEP, Coadd
from core.camera import Camera

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

# bits of the mask plane in docs/dataset.md
NODATA: Final = 1 << 4
SAT_TEMPLATE: Final = 1 << 10
HIGH_VARIANCE: Final = 1 << 11

_FULL_WELL: Final = 140_000.0
_READ_VARIANCE: Final = 36.0
_PSF_NOISE: Final = 1e-4
"""Draws a unit star's profile down to 1e-6 a pixel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateTruth:
    """What the simulation knows of one coadd.

    ``variance`` (ny, nx) [nJy**2] of tract pixels from ``corner`` = (y, x), zero outside the data: as a PSF sees it,
    with what resampling moved into correlations. ``epochs`` [MJD TAI] and ``weights`` (n_inputs,) say how fluxes and
    positions average. ``psf_cells`` (cells_y, cells_x, k, k) from ``first_cell``.
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
        tx, ty = self.tract.sky_to_pixel(*frame.to_sky(x, y))
        ax, ay = self.tract.sky_to_pixel(*frame.to_sky(x + 1, y))
        bx, by = self.tract.sky_to_pixel(*frame.to_sky(x, y + 1))
        offset = np.arange(size) - size // 2
        dy, dx = offset[None, :, None], offset[None, None, :]
        px = tx[:, None, None] + (ax - tx)[:, None, None] * dx + (bx - tx)[:, None, None] * dy
        py = ty[:, None, None] + (ay - ty)[:, None, None] * dx + (by - ty)[:, None, None] * dy
        iy = np.round(py).astype(np.int64) - self.corner[0]
        ix = np.round(px).astype(np.int64) - self.corner[1]
        ok = (iy >= 0) & (iy < self.variance.shape[0]) & (ix >= 0) & (ix < self.variance.shape[1])
        values = np.zeros(px.shape)
        values[ok] = self.variance[iy[ok], ix[ok]]
        coarse = self.variance[::16, ::16]
        return np.where(values > 0, values, np.median(coarse[coarse > 0]))

    def psf_at(self, ra: Float64, dec: Float64) -> Float32:
        """PSF images of the cells that contain positions."""
        x, y = self.tract.sky_to_pixel(ra, dec)
        size = self.tract.cell_size
        cy = np.clip(np.round(y).astype(int) // size - self.first_cell[0], 0, self.psf_cells.shape[0] - 1)
        cx = np.clip(np.round(x).astype(int) // size - self.first_cell[1], 0, self.psf_cells.shape[1] - 1)
        return np.asarray(self.psf_cells[cy, cx], np.float32)


def tract_box(
    config: SimulationConfig, camera: Camera, tract: Tract, detectors: tuple[int, ...]
) -> tuple[int, int, int, int]:
    """(y0, y1, x0, x1) of whole cells that hold the padded detectors, within the tract."""
    pad = config.template_padding_arcsec / camera.pixel_scale_arcsec
    xs, ys = [], []
    for detector in detectors:
        ny, nx = camera.detectors[detector].shape
        x, y = np.array([-pad, nx + pad, -pad, nx + pad]), np.array([-pad, -pad, ny + pad, ny + pad])
        ra, dec = camera.pixel_to_sky(detector, x, y, config.ra_deg, config.dec_deg, config.rot_sky_deg)
        tx, ty = tract.sky_to_pixel(ra, dec)
        xs.append(tx)
        ys.append(ty)
    cell = tract.cell_size
    low = np.floor(np.array([np.min(ys), np.min(xs)]) / cell).astype(int) * cell
    high = np.ceil(np.array([np.max(ys), np.max(xs)]) / cell).astype(int) * cell
    return (
        max(int(low[0]), 0), min(int(high[0]), tract.shape[0]), max(int(low[1]), 0), min(int(high[1]), tract.shape[1]),
    )  # fmt: skip


def _nodes(tract: Tract, frame: Frame, box: tuple[int, int, int, int]) -> tuple[Float64, Float64, Float64]:
    """Map of tract pixels to frame pixels, and output pixel areas, at every STEP-th pixel of the box."""
    y = box[0] + np.arange(0, box[1] - box[0] + STEP + 1, STEP, dtype=np.float64)
    x = box[2] + np.arange(0, box[3] - box[2] + STEP + 1, STEP, dtype=np.float64)
    grid_x, grid_y = np.meshgrid(x, y)
    u, v = frame.to_pixel(*tract.pixel_to_sky(grid_x, grid_y))
    u_x, v_x = frame.to_pixel(*tract.pixel_to_sky(grid_x + 1, grid_y))
    u_y, v_y = frame.to_pixel(*tract.pixel_to_sky(grid_x, grid_y + 1))
    area = np.abs((u_x - u) * (v_y - v) - (u_y - u) * (v_x - v))
    return u, v, area


def simulate_input(
    config: SimulationConfig,
    frame: Frame,
    visit: TemplateInput,
    rows: Rows,
    variables: list[Variables],
    galaxy: LargeGalaxy | None = None,
) -> tuple[Float32, Float32, NDArray[np.uint8]]:
    """One input visit as a calibrated frame [nJy]: image, variance and saturated pixels."""
    image = np.zeros(frame.shape, np.float32)
    for part in [rows, *(v.rows for v in variables)]:
        ra, dec = positions_at(part, visit.mjd_tai, proper_motion=config.effects.proper_motion)
        placed, kept = place_rows(frame, part, ra, dec)
        for own in variables:
            if part is own.rows:
                placed.flux[:] = own.flux(visit.band, visit.mjd_tai)[kept]
        paint(image, frame, placed)
    if galaxy:
        galaxy.paint(image, frame)
    rng = stream(config.seed, "template noise", visit.key, frame.shape[0], frame.shape[1])
    variance = image + np.float32(visit.sky_electrons + _READ_VARIANCE)
    noise = rng.standard_normal(image.shape, np.float32)
    noise *= np.sqrt(variance)
    image += noise
    saturated = np.zeros(frame.shape, np.uint8)
    if config.effects.saturation:
        spill_columns(image, np.full(image.shape[1], _FULL_WELL, np.float32), config.effects.bleeds)
        np.minimum(variance, np.float32(_FULL_WELL), out=variance)
        saturated[image >= 0.98 * _FULL_WELL] = 1
    image *= np.float32(frame.njy_per_electron)
    variance *= np.float32(frame.njy_per_electron**2)
    return image, variance, saturated


def make_template(
    out: Path,
    config: SimulationConfig,
    camera: Camera,
    tract: Tract,
    detectors: tuple[int, ...],
    band: str,
    rows: Rows,
    variables: list[Variables],
    tell_input: Callable[[], None],
) -> TemplateTruth:
    """Simulate, warp and coadd the inputs of one band around a group of detectors, and write its patches."""
    box = tract_box(config, camera, tract, detectors)
    shape = (box[1] - box[0], box[3] - box[2])
    inputs = template_inputs(config, camera, band)
    weights = np.array([visit.weight for visit in inputs])
    coadd, psf_coadd = Coadd(shape), Coadd(shape)
    for visit in inputs:
        frame = input_frame(config, camera, detectors, visit)
        nodes = _nodes(tract, frame, box)
        planes = simulate_input(config, frame, visit, rows, variables, large_galaxy(config, camera))
        coadd.add(*planes, nodes, visit.weight)
        _add_psf(psf_coadd, frame, tract, box, nodes, visit.weight, config.template_psf_size)
        tell_input()
    if config.template_coverage < 1:
        _uncover(config, camera, tract, detectors, box, (coadd, psf_coadd))
    coadd.finish()
    cells = _cut_psf(psf_coadd, tract.cell_size, config.template_psf_size)
    epochs = np.array([visit.mjd_tai for visit in inputs])
    weights = weights / weights.sum()
    mask = _mask(coadd, config.template_inputs)
    _write_patches(out, tract, band, box, coadd, mask, cells, len(inputs), float(epochs @ weights))
    return TemplateTruth(
        tract=tract,
        corner=(box[0], box[2]),
        variance=coadd.variance / np.float32(LANCZOS_VARIANCE),
        epochs=epochs,
        weights=weights,
        psf_cells=cells,
        first_cell=(box[0] // tract.cell_size, box[2] // tract.cell_size),
    )


def _uncover(
    config: SimulationConfig,
    camera: Camera,
    tract: Tract,
    detectors: tuple[int, ...],
    box: tuple[int, int, int, int],
    coadds: tuple[Coadd, Coadd],
) -> None:
    """Take away what lies west of a line, so that ``template_coverage`` of the detectors' area keeps its template."""
    columns = []
    for detector in detectors:
        ny, nx = camera.detectors[detector].shape
        x, y = (g.ravel() for g in np.meshgrid(np.linspace(0, nx, 200), np.linspace(0, ny, 200)))
        ra, dec = camera.pixel_to_sky(detector, x, y, config.ra_deg, config.dec_deg, config.rot_sky_deg)
        columns.append(tract.sky_to_pixel(ra, dec)[0])
    line = int(np.quantile(np.concatenate(columns), config.template_coverage)) - box[2]
    for coadd in coadds:
        for plane in (coadd.image, coadd.variance, coadd.weight, coadd.saturated):
            plane[:, line:] = 0


def _cell_centers(shape: tuple[int, int], cell: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    y, x = np.meshgrid(np.arange(cell // 2, shape[0], cell), np.arange(cell // 2, shape[1], cell), indexing="ij")
    return y.ravel(), x.ravel()


def _add_psf(
    coadd: Coadd,
    frame: Frame,
    tract: Tract,
    box: tuple[int, int, int, int],
    nodes: tuple[Float64, Float64, Float64],
    weight: float,
    size: int,
) -> None:
    """Unit stars at the centers of the cells, imaged by the input and warped as its pixels are."""
    y, x = _cell_centers(coadd.image.shape, tract.cell_size)
    ra, dec = tract.pixel_to_sky(x + np.float64(box[2]), y + np.float64(box[0]))
    u, v = frame.to_pixel(ra, dec)
    canvas = np.zeros(frame.shape, np.float32)
    none = np.zeros(frame.shape, np.uint8)
    weights = frame.optics.weights(u, v, np.full(u.size, 0.8))
    draw(canvas, frame.optics.basis, weights, u, v, np.ones(u.size), _PSF_NOISE)
    half = size // 2 + 1
    for cy, cx in zip(y, x, strict=True):
        near = (
            max(int(cy) - half, 0), min(int(cy) + half + 1, coadd.image.shape[0]),
            max(int(cx) - half, 0), min(int(cx) + half + 1, coadd.image.shape[1]),
        )  # fmt: skip
        coadd.add(canvas, canvas, none, nodes, weight, near)


def _cut_psf(coadd: Coadd, cell: int, size: int) -> Float32:
    """(cells_y, cells_x, k, k) images of unit sum; zero where the cell has no data."""
    ny, nx = coadd.image.shape[0] // cell, coadd.image.shape[1] // cell
    cells = np.zeros((ny, nx, size, size), np.float32)
    half = size // 2
    for j in range(ny):
        for i in range(nx):
            y, x = j * cell + cell // 2, i * cell + cell // 2
            part = coadd.image[y - half : y + half + 1, x - half : x + half + 1]
            if part.sum() > 0:
                cells[j, i] = part / part.sum(dtype=np.float64)
    return cells


def _mask(coadd: Coadd, n_inputs: int) -> NDArray[np.uint16]:
    mask = np.zeros(coadd.image.shape, np.uint16)
    mask[coadd.weight == 0] |= NODATA
    mask[coadd.saturated > 0] |= SAT_TEMPLATE
    mask[(coadd.weight > 0) & (coadd.weight < 0.5 * coadd.weight.max())] |= HIGH_VARIANCE
    return mask


def _write_patches(
    out: Path,
    tract: Tract,
    band: str,
    box: tuple[int, int, int, int],
    coadd: Coadd,
    mask: NDArray[np.uint16],
    cells: Float32,
    n_inputs: int,
    epoch: float,
) -> None:
    """One file a patch that has any data; pixels outside the simulated region are NODATA."""
    folder = out / "template" / "0" / band
    folder.mkdir(parents=True, exist_ok=True)
    size, per_patch, k = tract.patch_size, tract.patch_size // tract.cell_size, cells.shape[-1]
    for row in range(box[0] // size, -(-box[1] // size)):
        for column in range(box[2] // size, -(-box[3] // size)):
            y0, y1 = max(row * size, box[0]), min((row + 1) * size, box[1])
            x0, x1 = max(column * size, box[2]), min((column + 1) * size, box[3])
            inner = (slice(y0 - box[0], y1 - box[0]), slice(x0 - box[2], x1 - box[2]))
            if not coadd.weight[inner].any():
                continue
            outer = (slice(y0 - row * size, y1 - row * size), slice(x0 - column * size, x1 - column * size))
            planes = (np.zeros((size, size), np.float32), np.zeros((size, size), np.float32))
            flags = np.full((size, size), NODATA, np.uint16)
            planes[0][outer], planes[1][outer] = coadd.image[inner], coadd.variance[inner]
            flags[outer] = mask[inner]
            psf = np.zeros((per_patch, per_patch, k, k), np.float32)
            c = tract.cell_size
            cy, cx = (y0 - row * size) // c, (x0 - column * size) // c
            part = cells[(y0 - box[0]) // c : (y1 - box[0]) // c, (x0 - box[2]) // c : (x1 - box[2]) // c]
            psf[cy : cy + part.shape[0], cx : cx + part.shape[1]] = part
            with fitsio.FITS(str(folder / f"{row:03d}_{column:03d}.fits"), "rw", clobber=True) as fits:
                fits.write(None, header={"BAND": band, "NINPUT": n_inputs, "EPOCH": epoch, "TRACT": 0})
                for name, plane in (("IMAGE", planes[0]), ("VARIANCE", planes[1]), ("MASK", flags), ("PSF", psf)):
                    fits.write(plane, extname=name)
