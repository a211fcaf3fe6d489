"""Real frames with sources of known S/N added: at which S/N half of them are found at a threshold of exactly 5.

ESO 085-030: two aligned exposures 74 s apart, each the other's template of equal depth. SDSS run 5754 field 280: one
frame, its own PSF from the survey's psField; detection alone. Both under ``SUB60_REFERENCE_DATA``.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import sep
from astropy.io import fits
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from scipy.signal import fftconvolve
from scipy.spatial import cKDTree

from benchmarks.quality.completeness import snr50
from benchmarks.quality.photometry import robust_sd, shift
from core.contracts.exposure import DifferenceImage, Frame
from core.contracts.psf import PsfModel
from core.contracts.results import Detections
from core.flags import MASK_DTYPE
from core.stages.background import BackgroundConfig, subtract_background
from core.stages.detect import detect
from core.stages.difference_pair import difference_pair, frames_of_pair
from core.stages.subtract import sky_width
from core.workspace import Workspace

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

SNR_RANGE: Final = (3.0, 12.0)
CLEAR_PIX: Final = 15
"""No source added is nearer to one that is there."""
_APART_PIX: Final = 30.0
_MATCH_PIX: Final = 2.0
_EDGE_PIX: Final = 40
_SDSS_SCALE: Final = 1e-3
_SDSS_BAND: Final = 3
_SDSS_INFO: Final = 6
_SOFT_BIAS: Final = 1000.0


def real_figures(folder: Path, rounds: int = 12, tell: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """``snr50`` and the number of sources added on both fields."""
    figures: dict[str, Any] = {}
    for name, measure in (("eso_pair", eso_pair), ("sdss_frame", sdss_frame)):
        parts = []
        for seed in range(1, rounds + 1):
            tell(f"{name} {seed}")
            parts.append(measure(folder, seed))
        found, snr = (np.concatenate(column) for column in zip(*parts, strict=True))
        figures[name] = {"snr50": snr50(found, snr), "injected": int(snr.size)}
    return figures


def eso_pair(folder: Path, seed: int) -> tuple[Bool, Float64]:
    """Sources added to ``a``, with ``b`` as template: whether each was found, and its S/N.

    The PSF that is added is the mean of isolated stars' pixels, none of the pipeline's; the noise that of ``a - b``.
    """
    a, b = (_read(folder / "real_pairs" / f"eso085-030_{name}.fits") for name in "ab")
    sources, segments = _objects(a)
    is_clear = ~(
        binary_dilation(segments, iterations=CLEAR_PIX) | binary_dilation(_objects(b)[1], iterations=CLEAR_PIX)
    )
    psf = _star(a - sep.Background(a).back(), sources)
    sky = (a - b)[is_clear]
    noise = robust_sd((sky[1:] - sky[:-1]).astype(np.float64)) / np.sqrt(2)
    x, y, snr = _places(is_clear, seed)
    flux = snr * noise / np.sqrt(np.square(psf).sum())
    science, template = frames_of_pair(_added(a, psf[None], x, y, flux), b)
    found = difference_pair(science, template, Workspace()).detections
    return _is_found(found, x, y), snr


def sdss_frame(folder: Path, seed: int) -> tuple[Bool, Float64]:
    """Sources of the survey's own PSF added to its frame, looked for with that PSF."""
    pairs = folder / "real_pairs"
    image = _read(pairs / "sdss_fpC-005754-r3-0280.fits.gz") - np.float32(_SOFT_BIAS)
    psfs = SdssPsf(pairs / "sdss_psField-005754-3-0280.fits")
    _, segments = _objects(image)
    is_clear = ~binary_dilation(segments, iterations=CLEAR_PIX)
    # counts are whole numbers: a plain width, of steps within five of a robust one
    step = np.diff(image, axis=1)[is_clear[:, 1:] & is_clear[:, :-1]].astype(np.float64)
    noise = float(np.std(step[np.abs(step) < 5 * robust_sd(step)]) / np.sqrt(2))
    middle = psfs.at(image.shape[1] / 2, image.shape[0] / 2)
    # a source's error is the scatter of fluxes where none is seen: galaxies too faint to be seen are in it
    fluxes = fftconvolve(image - sep.Background(image).back(), middle[::-1, ::-1], mode="same")[is_clear]
    error = robust_sd(fluxes.astype(np.float64)) / np.sqrt(np.square(middle).sum())
    x, y, snr = _places(is_clear, seed)
    stamps = np.stack([psfs.at(px, py) for px, py in zip(x, y, strict=True)])
    flux = snr * error / np.sqrt(np.square(stamps).sum(axis=(1, 2)))
    light = np.where(segments, np.maximum(image - np.median(image), 0), 0)
    variance = (noise**2 + light / psfs.gain).astype(np.float32)
    frame = Frame(image=_added(image, stamps, x, y, flux), variance=variance, mask=np.zeros(image.shape, MASK_DTYPE))
    workspace = Workspace()
    subtract_background(frame, workspace, BackgroundConfig(photon_noise=0.0))
    psf = PsfModel(coefficients=middle.astype(np.float32)[None], order=0, shape=frame.shape)
    # as every difference is: what is too faint to be seen alone is noise to what is looked for
    scale = sky_width(frame, psf) ** 2
    frame.variance[:] *= np.float32(scale)
    difference = DifferenceImage(frame=frame, psf=psf, kernel_sum=1.0, is_science_convolved=False, variance_scale=scale)
    return _is_found(detect(difference, workspace), x, y), snr


class SdssPsf:
    """The PSF of a psField file: eigenimages whose weights are polynomials of the place.

    Reference: SDSS data release 7, "Understanding the PSF in SDSS images": K-L images of 51 x 51 pixels, powers of row
    and column over 1,000.
    """

    def __init__(self, path: Path) -> None:
        with fits.open(path) as hdus:
            rows = hdus[_SDSS_BAND].data
            shape = int(rows["RNROW"][0]), int(rows["RNCOL"][0])
            self._images = np.stack([np.asarray(image, np.float64).reshape(shape) for image in rows["RROWS"]])
            self._powers = int(rows["nrow_b"][0]), int(rows["ncol_b"][0])
            n = self._powers[0] * self._powers[1]
            self._weights = np.stack([np.asarray(c, np.float64).ravel()[:n] for c in rows["c"]])
            self.gain = float(hdus[_SDSS_INFO].data["gain"][0][_SDSS_BAND - 1])
            """Electrons a count."""

    def at(self, x: float, y: float) -> Float64:
        """(k, k) of unit sum, at a pixel."""
        n_row, n_col = self._powers
        terms = np.array([(_SDSS_SCALE * y) ** i * (_SDSS_SCALE * x) ** j for j in range(n_col) for i in range(n_row)])
        image = np.tensordot(self._weights @ terms, self._images, axes=1)
        cut = image[10:-10, 10:-10]
        return np.asarray(cut / cut.sum(), np.float64)


def _read(path: Path) -> Float32:
    with fits.open(path) as hdus:
        return np.ascontiguousarray(hdus[0].data, np.float32)


def _objects(image: Float32) -> tuple[NDArray[np.void], Bool]:
    """SEP's sources above 3 sigma, and their pixels."""
    background = sep.Background(image)
    sources, segments = sep.extract(
        image - background.back(), 3.0, err=background.globalrms, segmentation_map=True, filter_kernel=None
    )
    return sources, np.asarray(segments > 0)


def _star(image: Float32, sources: NDArray[np.void], half: int = 15) -> Float64:
    """(k, k) of unit sum: the median of bright stars that stand alone, moved to the pixel's middle."""
    ny, nx = image.shape
    x, y = sources["x"], sources["y"]
    neighbor = cKDTree(np.stack([x, y], axis=-1)).query(np.stack([x, y], axis=-1), k=2)[0][:, 1]
    inside = (x > _EDGE_PIX) & (y > _EDGE_PIX) & (x < nx - _EDGE_PIX) & (y < ny - _EDGE_PIX)
    width = np.sqrt(sources["a"] * sources["b"])
    alone = inside & (neighbor > half) & (sources["flag"] == 0)
    bright = sources["peak"] > np.percentile(sources["peak"][alone], 70)
    usual = np.median(width[alone & bright])
    alone &= bright & (np.abs(width / usual - 1) < 0.1) & (sources["a"] < 1.2 * sources["b"])
    stamps = []
    for cx, cy in zip(x[alone], y[alone], strict=True):
        ix, iy = round(cx), round(cy)
        stamp = image[iy - half : iy + half + 1, ix - half : ix + half + 1].astype(np.float64)
        moved = shift(stamp[None], np.array([ix - cx]), np.array([iy - cy]))[0]
        stamps.append(moved / moved.sum())
    mean = np.median(stamps, axis=0)
    reach = np.hypot(*np.mgrid[-half : half + 1, -half : half + 1])
    mean -= np.median(mean[reach > half - 3])
    mean[reach > half - 3] = 0
    return np.asarray(mean / mean.sum(), np.float64)


def _places(is_clear: Bool, seed: int) -> tuple[Float64, Float64, Float64]:
    """Places on clear sky apart from each other, and S/N log-uniform in the range."""
    rng = np.random.default_rng(seed)
    ny, nx = is_clear.shape
    x, y = rng.uniform(_EDGE_PIX, nx - _EDGE_PIX, 4000), rng.uniform(_EDGE_PIX, ny - _EDGE_PIX, 4000)
    keep = is_clear[np.rint(y).astype(int), np.rint(x).astype(int)]
    x, y = x[keep], y[keep]
    taken = np.zeros(x.size, bool)
    for i, near in enumerate(
        cKDTree(np.stack([x, y], axis=-1)).query_ball_point(np.stack([x, y], axis=-1), _APART_PIX)
    ):
        taken[i] = not taken[[j for j in near if j < i]].any()
    x, y = x[taken][:150], y[taken][:150]
    return x, y, SNR_RANGE[0] * (SNR_RANGE[1] / SNR_RANGE[0]) ** rng.random(x.size)


def _added(image: Float32, stamps: Float64, x: Float64, y: Float64, flux: Float64) -> Float32:
    """The image and sources of the stamps (one for all, or each its own); faint: the photons' own noise is left out."""
    added = image.astype(np.float64)
    half = stamps.shape[-1] // 2
    ix, iy = np.rint(x).astype(int), np.rint(y).astype(int)
    moved = shift(np.broadcast_to(stamps, (x.size, *stamps.shape[1:])), x - ix, y - iy)
    for stamp, px, py, f in zip(moved, ix, iy, flux, strict=True):
        added[py - half : py + half + 1, px - half : px + half + 1] += f * stamp
    return added.astype(np.float32)


def _is_found(found: Detections, x: Float64, y: Float64) -> Bool:
    if found.y.size == 0:
        return np.zeros(x.size, bool)
    distance, _ = cKDTree(np.stack([found.x, found.y], axis=-1)).query(np.stack([x, y], axis=-1))
    return np.asarray(np.asarray(distance) <= _MATCH_PIX, bool)
