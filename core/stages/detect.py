"""Find what changed: peaks of the matched filter in a difference image."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.contracts.exposure import DifferenceImage, Frame
from core.contracts.psf import PsfModel
from core.contracts.results import Detections
from core.flags import UNCLAIMED, Mask
from core.kernels.peaks import find_peaks, label_footprints, mark_footprints, refine_peaks
from core.kernels.snr_map import snr_block, snr_histogram
from core.workspace import Workspace, bands

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]

EXCLUDED: Final = int(UNCLAIMED | Mask.SAT_TEMPLATE)
"""Pixels with no weight in the matched filter."""

MAX_PIXEL_LOSS: Final = 0.07
"""Most of its S/N that a source between the pixels of the narrowest PSF loses on the map."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectConfig:
    """Matched filter, threshold and footprints."""

    threshold: float = 5.0
    rank: int = 2
    """Separable terms of the PSF: 2 lose about 1e-5 of the S/N."""
    filter_radius_fwhm: float = 1.8
    block_pix: int = 512
    """Side of the blocks of one PSF: 10 % of width over a detector cost 1e-4 of the S/N."""
    rows_pix: int = 64
    grow_fwhm: float = 0.6
    merge_fwhm: float = 0.5
    """Peaks of one sign nearer than this are one."""
    dipole_fwhm: float = 1.5
    """Peaks of opposite sign in one footprint nearer than this are one dipole, reported at the stronger lobe."""
    min_good_pixels: int = 5
    """Of the nine pixels around a peak so many must count."""
    max_peaks: int = 100_000


def detect(difference: DifferenceImage, workspace: Workspace, config: DetectConfig | None = None) -> Detections:
    """Peaks beyond ``config.threshold`` of both signs, ordered by (y, x).

    The S/N map stays in the workspace as ``difference.snr``, (ny, nx) float32, with the width of its source-free part
    in ``difference.snr_width``, (1,) float64. Sets DETECTED and DETECTED_NEGATIVE in the difference's mask.
    """
    config = config or DetectConfig()
    frame, psf = difference.frame, difference.psf
    fwhm = psf.fwhm_pix()
    snr = snr_map(frame, psf, workspace, config, difference.photon_noise_njy)
    workspace.array("difference.snr_width", (1,), np.float64)[0] = snr_map_width(snr, frame)
    y, x, peak = _peaks(snr, frame, config)
    mark_footprints(snr, config.threshold * (1 - MAX_PIXEL_LOSS), max(1, round(config.grow_fwhm * fwhm)), frame.mask)
    parent, boxes, n_pixels = _footprints(frame, y, x, workspace)
    keep = _merge(y, x, peak, parent, config.merge_fwhm * fwhm, config.dipole_fwhm * fwhm)
    y, x, peak, parent = y[keep], x[keep], peak[keep], parent[keep]
    box = boxes[parent]
    return Detections(
        y=y, x=x, snr=peak,
        y0=box[:, 0].copy(), y1=box[:, 1].copy(), x0=box[:, 2].copy(), x1=box[:, 3].copy(),
        n_pixels=n_pixels[parent], parent=parent,
    )  # fmt: skip


def snr_map(
    frame: Frame, psf: PsfModel, workspace: Workspace, config: DetectConfig, photon_noise_njy: float = 0.0
) -> Float32:
    """Matched-filter S/N, (ny, nx) float32, the workspace's ``difference.snr``; the PSF changes every ``block_pix``.

    The noise is that of the pixel without the source that is looked for: a source's own photons
    (``photon_noise_njy`` of variance for each nJy) neither hide it nor count.
    """
    ny, nx = frame.shape
    snr: Float32 = workspace.array("difference.snr", (ny, nx))  # type: ignore[assignment]
    half = min(psf.size // 2, max(3, int(np.ceil(config.filter_radius_fwhm * psf.fwhm_pix()))))
    half_square = min(half, max(3, int(np.ceil(0.75 * half))))
    block, rows = config.block_pix, config.rows_pix
    corners = [(y0, x0) for y0 in range(0, ny, block) for x0 in range(0, nx, block)]
    y_middle = np.array([(y0 + min(y0 + block, ny) - 1) / 2 for y0, _ in corners])
    x_middle = np.array([(x0 + min(x0 + block, nx) - 1) / 2 for _, x0 in corners])
    stamps = psf.at_many(x_middle, y_middle).astype(np.float64)
    x_taps, y_taps = separable_terms(_central(stamps, half), config.rank)
    x_square, y_square = separable_terms(_central(stamps**2, half_square), config.rank)
    parts = bands(len(corners), workspace.n_threads)
    size = 2 * (rows + 2 * half) * (block + 2 * half) + 4 * (rows + 2 * half) * block
    scratch: Float32 = workspace.array("difference.filter_scratch", (len(parts), size))  # type: ignore[assignment]

    def fill(part: int) -> None:
        for n in range(*parts[part]):
            y0, x0 = corners[n]
            for y in range(y0, min(y0 + block, ny), rows):
                snr_block(
                    frame.image, frame.variance, frame.mask, EXCLUDED, photon_noise_njy,
                    x_taps[n], y_taps[n], x_square[n], y_square[n],
                    y, min(y + rows, y0 + block, ny), x0, min(x0 + block, nx), scratch[part], snr,
                )  # fmt: skip

    workspace.share(fill, range(len(parts)))
    return snr


def separable_terms(images: Float64, rank: int) -> tuple[Float32, Float32]:
    """(n, rank, k) factors along x and y whose outer products sum to the best approximation of each of n images."""
    left, value, right = np.linalg.svd(images)
    root = np.sqrt(value[:, :rank, None])
    return (
        np.ascontiguousarray(right[:, :rank] * root, np.float32),
        np.ascontiguousarray(left[:, :, :rank].swapaxes(1, 2) * root, np.float32),
    )


def _central(images: Float64, half: int) -> Float64:
    c = images.shape[-1] // 2
    return images[..., c - half : c + half + 1, c - half : c + half + 1]


def snr_map_width(snr: Float32, frame: Frame) -> float:
    """1.4826 MAD of the S/N of source-free claimed pixels.

    Sources are left out by an upper limit of 4 on the |S/N|, which changes the median of a Gaussian by under 1e-4. One
    where nothing is claimed.
    """
    counts = np.empty(800, np.int64)
    snr_histogram(snr, frame.mask, EXCLUDED, 3, 4.0, counts)
    total = int(counts.sum())
    if total == 0:
        return 1.0
    cumulative = np.cumsum(counts)
    index = int(np.searchsorted(cumulative, total / 2))
    below = cumulative[index - 1] if index else 0
    return float(1.4826 * 4.0 / counts.size * (index + (total / 2 - below) / counts[index]))


def _peaks(snr: Float32, frame: Frame, config: DetectConfig) -> tuple[Int32, Int32, Float32]:
    """Pixels (y, x) of the peaks whose maximum between the pixels is beyond the threshold, and that maximum."""
    y, x = np.empty(config.max_peaks, np.int32), np.empty(config.max_peaks, np.int32)
    least = config.threshold * (1 - MAX_PIXEL_LOSS)
    n = min(find_peaks(snr, frame.mask, EXCLUDED, least, config.min_good_pixels, y, x), config.max_peaks)
    peak = np.empty(n, np.float32)
    refine_peaks(snr, y[:n], x[:n], 1 / (1 - MAX_PIXEL_LOSS), peak)
    rows = np.flatnonzero(np.abs(peak) >= config.threshold)
    return y[rows], x[rows], peak[rows]


def _footprints(frame: Frame, y: Int32, x: Int32, workspace: Workspace) -> tuple[Int32, Int32, Int32]:
    """Footprint of each peak, and box and number of pixels of each footprint."""
    labels: Int32 = workspace.array("difference.labels", frame.shape, np.int32)  # type: ignore[assignment]
    labels.fill(-1)
    # Every pixel is pushed once; what is never reached is never touched.
    stack: Int32 = workspace.array("difference.stack", (frame.image.size + 9,), np.int32)  # type: ignore[assignment]
    parent, boxes, n_pixels = np.empty(y.size, np.int32), np.zeros((y.size, 4), np.int32), np.zeros(y.size, np.int32)
    label_footprints(frame.mask, y, x, labels, stack, parent, boxes, n_pixels)
    return parent, boxes, n_pixels


def _merge(
    y: Int32, x: Int32, snr: Float32, parent: Int32, merge_radius: float, dipole_radius: float
) -> NDArray[np.bool_]:
    """Which peaks stay: from the strongest down, each removes its near neighbours in its own footprint."""
    keep = np.ones(y.size, np.bool_)
    order = np.argsort(parent, kind="stable")
    edges = np.r_[0, np.flatnonzero(np.diff(parent[order])) + 1, y.size]
    for first, last in pairwise(edges):
        if last - first < 2:
            continue
        rows = order[first:last]
        rows = rows[np.argsort(-np.abs(snr[rows]), kind="stable")]
        for n, row in enumerate(rows):
            if not keep[row]:
                continue
            rest = rows[n + 1 :]
            distance = np.hypot(y[rest] - y[row], x[rest] - x[row])
            is_same_sign = snr[rest] * snr[row] > 0
            keep[rest[distance < np.where(is_same_sign, merge_radius, dipole_radius)]] = False
    return keep
