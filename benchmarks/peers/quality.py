"""How good each peer's result is, and ours, by the same functions against the simulation's truth."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from scipy.optimize import minimize
from scipy.spatial import cKDTree

from benchmarks.quality.matching import offsets_mas
from benchmarks.quality.photometry import robust_sd, shift, source_free
from benchmarks.quality.truth import Truth

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
Figures = dict[str, float | int | None]

MIN_INJECTED_SNR: Final = 6.0
MATCH_PIX: Final = 2.5
EXCUSE_PIX: Final = 5.0
"""A detection farther than this from every true change is false (1 arcsec)."""
BOX_PIX: Final = 17
"""Side of the box in which PSFs are compared: what PSFEx's model spans."""
STAR_SNR: Final = 50.0
_STAR_MATCH_PIX: Final = 2.0
_ISOLATION_PIX: Final = 15.0
_FRAME_MARGIN_PIX: Final = 20.0
_UNSATURATED: Final = 0.5
_BLOCK_PIX: Final = 128
_MIN_BLOCK_PIXELS: Final = 2000
_FAINTEST_SNR: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Half-open box of detector pixels."""

    y0: int
    y1: int
    x0: int
    x1: int

    def contains(self, x: Float64, y: Float64, margin: float = 0.0) -> Bool:
        """Which of the positions lie in it, ``margin`` pixels from its rim."""
        inside_x = (x >= self.x0 + margin) & (x <= self.x1 - 1 - margin)
        return np.asarray(inside_x & (y >= self.y0 + margin) & (y <= self.y1 - 1 - margin))

    @property
    def window(self) -> tuple[slice, slice]:
        """To index a frame with."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)


def busiest_tile(truth: Truth, shape: tuple[int, int], side: int, margin: int = 32) -> Region:
    """The tile with the most injections that count, of those on a grid of a quarter of its side."""
    if min(shape) < side + 2 * margin:
        return Region(y0=0, y1=shape[0], x0=0, x1=shape[1])
    x, y = truth.rows["x"], truth.rows["y"]
    counted = _counted(truth)
    starts = [range(margin, length - margin - side + 1, side // 4) for length in shape]
    tiles = [Region(y0=y0, y1=y0 + side, x0=x0, x1=x0 + side) for y0 in starts[0] for x0 in starts[1]]
    return max(tiles, key=lambda tile: int((counted & tile.contains(x, y, _FRAME_MARGIN_PIX)).sum()))


def _counted(truth: Truth) -> Bool:
    """Injections brighter in the visit than in the template and above the limit."""
    return np.asarray(truth.is_injected & (truth.rows["flux"] > 0) & (truth.rows["snr_true"] > MIN_INJECTED_SNR))


def judge_difference(x: Float64, y: Float64, truth: Truth, region: Region) -> Figures:
    """Injections found and false detections among positive detections (pixels of the detector), inside the region."""
    inside = region.contains(x, y, _FRAME_MARGIN_PIX)
    found = np.stack([x[inside], y[inside]], axis=-1)
    everything = np.stack([truth.rows["x"], truth.rows["y"]], axis=-1)
    wanted = everything[_counted(truth) & region.contains(truth.rows["x"], truth.rows["y"], _FRAME_MARGIN_PIX)]
    changes = everything[truth.is_change]
    n_found = _match_one_to_one(wanted, found, MATCH_PIX)
    false = found.shape[0]
    if found.size and changes.size:
        false = int((cKDTree(changes).query(found)[0] > EXCUSE_PIX).sum())
    return {"injected": int(wanted.shape[0]), "found": n_found, "detections": int(found.shape[0]), "false": false}


def _match_one_to_one(wanted: Float64, found: Float64, radius: float) -> int:
    """Number of pairs, nearest first, each position used once."""
    if not wanted.size or not found.size:
        return 0
    pairs = cKDTree(wanted).sparse_distance_matrix(cKDTree(found), radius, output_type="ndarray")
    used: tuple[set[int], set[int]] = (set(), set())
    for pair in pairs[np.lexsort((pairs["j"], pairs["i"], pairs["v"]))]:
        if int(pair["i"]) not in used[0] and int(pair["j"]) not in used[1]:
            used[0].add(int(pair["i"]))
            used[1].add(int(pair["j"]))
    return len(used[0])


def bright_stars(truth: Truth, shape: tuple[int, int], sky_sigma: float, saturation: float, fwhm_pix: float) -> Bool:
    """Rows of the truth that are isolated stars of S/N > 50, well below saturation, on the frame."""
    electrons = truth.rows["science_flux"] / truth.njy_per_electron
    noise_area = np.pi * fwhm_pix**2 / (2 * np.log(2))
    snr = electrons / np.sqrt(np.maximum(electrons, 0) + noise_area * sky_sigma**2)
    peak = electrons / (1.13 * fwhm_pix**2)
    x, y = truth.rows["x"], truth.rows["y"]
    region = Region(y0=0, y1=shape[0], x0=0, x1=shape[1])
    good = truth.is_kind("star") & (snr > STAR_SNR) & (peak < _UNSATURATED * saturation)
    good &= region.contains(x, y, _FRAME_MARGIN_PIX)
    shown = truth.rows["science_flux"] > 0
    positions = np.stack([x, y], axis=-1)
    neighbor, _ = cKDTree(positions[shown]).query(positions, k=2)
    return np.asarray(good & (neighbor[:, 1] > _ISOLATION_PIX))


def judge_astrometry(x: Float64, y: Float64, sky: tuple[Float64, Float64], truth: Truth, chosen: Bool) -> Figures:
    """Measured minus true ICRS position of the chosen stars: robust width per axis about the median, and the median."""
    if not x.size or not chosen.any():
        return {"astrometry_mas": None, "astrometry_offset_mas": None, "astrometry_stars": 0}
    rows = truth.rows[chosen]
    distance, index = cKDTree(np.stack([x, y], axis=-1)).query(np.stack([rows["x"], rows["y"]], axis=-1))
    near = distance < _STAR_MATCH_PIX
    east, north = offsets_mas((rows["ra"][near], rows["dec"][near]), (sky[0][index[near]], sky[1][index[near]]))
    medians = np.array([np.median(axis) for axis in (east, north)])
    width = robust_sd(np.concatenate([axis - median for axis, median in zip((east, north), medians, strict=True)]))
    return {
        "astrometry_mas": width,
        "astrometry_offset_mas": float(np.hypot(*medians)),
        "astrometry_stars": int(near.sum()),
    }


def judge_psf(images: Float64, truth: Truth) -> Figures:
    """Difference from the true PSF at the truth's places, rms over a box as a fraction of the true peak.

    ``images`` is (n, k, k) at (``truth.psf_x``, ``truth.psf_y``). Both are normalized over the box, and the truth is
    moved to where it fits best: a model's own center is a convention that positions measured with it share.
    """
    values = [_psf_rms(_crop(image, BOX_PIX), true) for image, true in zip(images, truth.psf, strict=True)]
    return {"psf_rms_of_peak": float(np.median(values)), "psf_rms_of_peak_max": float(np.max(values))}


def _crop(image: Float64, side: int) -> Float64:
    start = image.shape[0] // 2 - side // 2
    box = np.asarray(image[start : start + side, start : start + side], np.float64)
    return np.asarray(box / box.sum(), np.float64)


def _psf_rms(model: Float64, true: Float64) -> float:
    def residual(offset: Float64) -> Float64:
        moved = _crop(shift(true[None], offset[:1], offset[1:])[0], model.shape[0])
        return np.asarray((model - moved) / moved.max(), np.float64)

    fit = minimize(
        lambda offset: float(np.square(residual(offset)).sum()), np.zeros(2), method="Nelder-Mead",
        options={"xatol": 1e-4, "fatol": 1e-10, "initial_simplex": [[0, 0], [0.1, 0], [0, 0.1]]},
    )  # fmt: skip
    return float(np.sqrt(np.mean(np.square(residual(fit.x)))))


def judge_cosmic_rays(mask: Bool, truth: Truth) -> Figures:
    """Fraction of the pixels hit that are masked, and of the masked pixels that are hit or touch one that is."""
    hit = np.zeros(mask.shape, bool)
    hit[truth.cosmic_rays[:, 0], truth.cosmic_rays[:, 1]] = True
    n_hit, n_masked = int(hit.sum()), int(mask.sum())
    near = binary_dilation(hit, np.ones((3, 3), bool))
    return {
        "cr_complete": float((mask & hit).sum() / n_hit) if n_hit else None,
        "cr_pure": float((mask & near).sum() / n_masked) if n_masked else None,
        "cr_pixels": n_masked,
    }


def empty_sky(truth: Truth, good: Bool, sky_sigma: float, fwhm_pix: float) -> Bool:
    """Good pixels away from every true source above three sigma, farther from brighter ones."""
    error = sky_sigma * np.sqrt(np.pi * fwhm_pix**2 / (2 * np.log(2)))
    snr = np.abs(truth.rows["science_flux"]) / truth.njy_per_electron / error
    shown = snr > _FAINTEST_SNR
    radius = 1.5 * fwhm_pix * (1 + 2 * np.log10(snr[shown]))
    free = source_free(good.shape, truth.rows["x"][shown], truth.rows["y"][shown], radius)
    return np.asarray(free & good)


def judge_sky(image: Float32, sky: Float32, free: Bool) -> Figures:
    """Sky left in empty pixels after subtraction [e-]: mean, and rms over blocks beyond their noise.

    No truth of the sky is needed for this, only of where nothing is; light of sources too faint to be counted stays
    in the mean, the same for all.
    """
    levels, noises = [], []
    for y0 in range(0, image.shape[0] - _BLOCK_PIX + 1, _BLOCK_PIX):
        for x0 in range(0, image.shape[1] - _BLOCK_PIX + 1, _BLOCK_PIX):
            window = (slice(y0, y0 + _BLOCK_PIX), slice(x0, x0 + _BLOCK_PIX))
            left = (image[window] - sky[window])[free[window]].astype(np.float64)
            if left.size >= _MIN_BLOCK_PIXELS:
                levels.append(np.median(left))
                noises.append(1.2533 * robust_sd(left) / np.sqrt(left.size))
    if not levels:
        return {"sky_left_e": None, "sky_left_rms_e": None}
    excess = max(float(np.var(levels) - np.mean(np.square(noises))), 0.0)
    return {"sky_left_e": float(np.mean(levels)), "sky_left_rms_e": excess**0.5}
