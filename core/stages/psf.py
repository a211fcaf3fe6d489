"""PSF of the science frame from its stars, and PSF fits of all its sources."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from core.contracts.catalogs import Catalog
from core.contracts.exposure import Frame
from core.contracts.psf import PsfModel, n_terms, polynomial_terms
from core.contracts.results import PsfFit
from core.errors import Outcome, UnusableDataError
from core.flags import Mask
from core.kernels.psf_fit import FIT_FAILED, FIT_OK, fit_pixels, fit_sources
from core.stages.point_source import PsfOnFrame
from core.stages.psf_piff import PiffConfig, fit_piff
from core.stages.psf_structure import StructureConfig, map_structure, star_stamps
from core.stages.sources import clump, fwhm_of, without_long
from core.workspace import Workspace, bands

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class PsfConfig:
    """How stars are chosen and the PSF is fitted."""

    determiner: Literal["pixel_basis", "piff"] = "pixel_basis"
    """What the last word is: our own pixels, or Piff's fit to the stars and places found with them."""
    piff: PiffConfig = field(default_factory=PiffConfig)
    n_rounds: int = 2
    """Fits with the positions and fluxes that the model before gave."""
    order: int = 2
    max_stars: int = 240
    first_stars: int = 80
    min_stars: int = 3
    stars_per_term: int = 4
    """Fewer than this a polynomial term lower the order."""
    min_snr: float = 40.0
    size_fwhm: float = 10.0
    """Side of the PSF image in units of the seeing, within the limits below."""
    min_size_pix: int = 31
    max_size_pix: int = 41
    max_ellipticity: float = 0.5
    """Anything longer is no star, unless all are."""
    size_tolerance: float = 0.12
    """First cut around the clump of sizes, as fraction; then 3 sigma around a quadratic over the detector."""
    isolation_fwhm: float = 5.0
    """No neighbour this near may have more than ``max_neighbour`` of a star's flux."""
    max_neighbour: float = 0.05
    model_error: float = 0.01
    """Error of the model as fraction of its value: keeps the brightest stars from deciding alone."""
    clip_sigma: float = 4.0
    wing_fwhm: tuple[float, float] = (1.8, 2.8)
    """Between these radii the pixels give way to smoothed ones, in units of the seeing."""
    wing_smoothing_pix: float = 1.5
    fit_half_fwhm: float = 1.5
    """Half side of the stamp in which sources are fitted, in units of the seeing."""
    max_shift_pix: float = 1.5
    structure: StructureConfig = field(default_factory=StructureConfig)
    ignored_planes: Mask = Mask.BAD | Mask.SAT | Mask.NODATA | Mask.CR


_NOT_STARS = np.uint16(Mask.BAD | Mask.SAT | Mask.NODATA | Mask.CR | Mask.EDGE | Mask.SUSPECT)


def fit_psf(frame: Frame, sources: Catalog, workspace: Workspace, config: PsfConfig) -> PsfFit:
    """Fit the frame's PSF and measure every source with it.

    Stars are the clump of sizes among isolated, unsaturated sources. Each pixel of the PSF is a polynomial over the
    detector, fitted to stars shifted to a common center, with clipping; ``n_rounds`` times, with positions and fluxes
    of the round before. Buffers ``psf.*``. About 0.05 s CPU plus 7 µs a source.

    Raises ``UnusableDataError`` (astrometry_failed) where the frame shows too few stars.
    """
    stars = select_stars(sources, frame.shape, config)
    if stars.size < config.min_stars:
        raise UnusableDataError(
            "too few stars for a PSF", outcome=Outcome.ASTROMETRY_FAILED, code="no_psf_stars", n_stars=int(stars.size)
        )
    fwhm = float(np.median(_widths(sources[stars])))
    x, y, flux = (sources[name][stars].astype(np.float64) for name in ("x", "y", "apFlux"))
    kept = np.ones(stars.size, bool)
    # a first model from a few bright stars only gives the positions
    first = np.argsort(-flux)[: config.first_stars]
    psf = _fit_model(frame, x[first], y[first], flux[first], fwhm, workspace, config)
    for _ in range(config.n_rounds):
        fits = _fit_positions(frame, psf, x, y, fwhm, 2, workspace, config)
        chi2 = fits[:, 4] / np.median(fits[:, 4])
        size = fits[:, 0] / fits[:, 1]
        # a close pair or a galaxy fits badly for its brightness
        kept = (fits[:, 5] == FIT_OK) & (fits[:, 0] > 0) & (chi2 < 3.0 + (size / 300.0) ** 2)
        if kept.sum() < config.min_stars:
            break
        psf = _fit_model(frame, x[kept], y[kept], fits[kept, 0], fwhm, workspace, config)
    if config.determiner == "piff":
        psf = fit_piff(frame, x[kept], y[kept], flux[kept], np.uint16(config.ignored_planes), psf.size, config.piff)
    mapped = (x[kept], y[kept], fits[kept, 0])
    psf, width = map_structure(frame, psf, mapped, fwhm, np.uint16(config.ignored_planes), workspace, config.structure)
    measured = _measure_all(frame, psf, sources, fwhm, workspace, config)
    measured["isPsfStar"][stars[kept]] = True
    measured["widthExcess"] = np.nan
    measured["widthExcess"][stars[kept]] = width
    order = np.argsort(-measured["psfFlux"], kind="stable")
    return PsfFit(psf=psf, sources=measured[order], n_stars=int(kept.sum()))


def select_stars(sources: Catalog, shape: tuple[int, int], config: PsfConfig) -> NDArray[np.int64]:
    """Rows of isolated, unsaturated, star-like sources, at most ``max_stars``, spread over the detector."""
    width = _widths(sources)
    margin = config.min_size_pix // 2
    usable = np.isfinite(width) & ((sources["mask"] & _NOT_STARS) == 0) & (sources["snr"] > config.min_snr)
    usable &= (sources["x"] > margin) & (sources["x"] < shape[1] - 1 - margin)
    usable &= (sources["y"] > margin) & (sources["y"] < shape[0] - 1 - margin)
    rows = np.flatnonzero(without_long(usable, _moments(sources), config.max_ellipticity, config.min_stars))
    if rows.size < config.min_stars:
        return rows
    bright = rows[sources["snr"][rows] > 3 * config.min_snr]
    mode = clump(width[bright if bright.size >= 20 else rows])
    rows = rows[np.abs(width[rows] / mode - 1) < config.size_tolerance]
    rows = rows[_on_locus(sources[rows], width[rows], shape, config)]
    alone = rows[_is_isolated(sources, rows, config.isolation_fwhm * mode, config.max_neighbour)]
    if alone.size < 6 * config.min_stars:
        alone = rows[_is_isolated(sources, rows, 2.5 * mode, 0.3)]
    return _spread(sources, alone, shape, config.max_stars)


def _widths(sources: Catalog) -> Float64:
    return fwhm_of(*_moments(sources))


def _moments(sources: Catalog) -> tuple[Float64, Float64, Float64]:
    ixx, iyy, ixy = (sources[name].astype(np.float64) for name in ("ixx", "iyy", "ixy"))
    return ixx, iyy, ixy


def _on_locus(stars: Catalog, width: Float64, shape: tuple[int, int], config: PsfConfig) -> NDArray[np.bool_]:
    """Within 3 sigma of a smooth run of sizes over the detector."""
    keep = np.ones(width.size, bool)
    order = 2 if width.size >= 40 else (1 if width.size >= 15 else 0)
    terms = polynomial_terms(stars["x"], stars["y"], shape, order)
    for _ in range(4):
        if keep.sum() < n_terms(order) + 2:
            break
        solution = np.linalg.lstsq(terms[keep], width[keep], rcond=None)[0]
        residual = width - terms @ solution
        sigma = 1.4826 * np.median(np.abs(residual[keep]))
        keep = np.abs(residual) < max(3 * sigma, 0.005 * float(np.median(width)))
    return keep


def _is_isolated(sources: Catalog, rows: NDArray[np.int64], radius: float, fraction: float) -> NDArray[np.bool_]:
    """Whether no neighbour within ``radius`` has more than ``fraction`` of the row's flux."""
    positions = np.stack([sources["x"], sources["y"]], axis=-1)
    neighbours = cKDTree(positions).query_ball_point(positions[rows], radius)
    peak = sources["peak"]
    alone = [peak[near].sum() - peak[row] <= fraction * peak[row] for row, near in zip(rows, neighbours, strict=True)]
    return np.array(alone, bool)


def _spread(sources: Catalog, rows: NDArray[np.int64], shape: tuple[int, int], n_max: int) -> NDArray[np.int64]:
    """The brightest of each part of the detector in turn, until there are ``n_max``."""
    if rows.size <= n_max:
        return rows
    n_grid = 6
    cell = (sources["y"][rows] * n_grid // shape[0]).astype(int) * n_grid + (
        sources["x"][rows] * n_grid // shape[1]
    ).astype(int)
    by_flux = np.argsort(-sources["apFlux"][rows], kind="stable")
    rank = np.empty(rows.size, np.int64)
    for value in np.unique(cell):
        members = by_flux[cell[by_flux] == value]
        rank[members] = np.arange(members.size)
    return np.sort(rows[np.lexsort((-sources["apFlux"][rows], rank))[:n_max]])


def _fit_model(
    frame: Frame, x: Float64, y: Float64, flux: Float64, fwhm: float, workspace: Workspace, config: PsfConfig
) -> PsfModel:
    k = int(np.clip(2 * round(config.size_fwhm * fwhm / 2) + 1, config.min_size_pix, config.max_size_pix))
    stamps, spread = star_stamps(frame, (x, y, flux), k, np.uint16(config.ignored_planes), workspace)
    radius = np.hypot(*np.meshgrid(*(np.arange(k) - k // 2,) * 2))
    ring = (radius > k // 2 - 2) & (radius <= k // 2)
    # what the mesh left of the sky, and the aureole's level there: the PSF ends at zero
    stamps -= np.median(stamps[:, ring], axis=1)[:, None, None]
    stamps /= flux[:, None, None].astype(np.float32)
    mean = np.maximum(np.median(stamps, axis=0), 0)
    weights = np.zeros_like(spread)
    error = spread / (flux[:, None, None].astype(np.float32) ** 2) + (config.model_error * mean) ** 2
    np.divide(1.0, error, out=weights, where=spread > 0)
    order = config.order
    while order > 0 and x.size < config.stars_per_term * n_terms(order):
        order -= 1
    coefficients = np.empty((n_terms(order), k, k), np.float32)
    terms = polynomial_terms(x, y, frame.shape, order)
    fit_pixels(stamps, weights, terms, config.clip_sigma, 3, coefficients)
    _smooth_wings(coefficients, radius, fwhm, config)
    coefficients /= coefficients[0].sum()
    return PsfModel(coefficients=coefficients, shape=frame.shape, order=order)


def _smooth_wings(coefficients: Float32, radius: Float64, fwhm: float, config: PsfConfig) -> None:
    """Blend the noisy pixels far out with smoothed ones; let the last two pixels' rim go to zero.

    What is smoothed is the departure from the mean of the ring: a wing falls so steeply that to smooth itself would
    raise it, by 30 % at 2.5 FWHM.
    """
    inner, outer = (f * fwhm for f in config.wing_fwhm)
    share = np.clip((radius - inner) / (outer - inner), 0, 1)
    half = radius.shape[0] // 2
    rim = np.clip((half + 0.5 - radius) / 2.5, 0, 1)
    for image in coefficients:
        profile = _ring_means(image, radius)
        smooth = profile + gaussian_filter(image - profile, config.wing_smoothing_pix, mode="nearest")
        image[:] = ((1 - share) * image + share * smooth) * rim


def _ring_means(image: Float32, radius: Float64) -> Float64:
    """Mean of the image on rings one pixel wide, interpolated to every pixel."""
    ring = np.rint(radius).astype(np.int64).ravel()
    counts = np.bincount(ring)
    centers, means = (np.bincount(ring, values.ravel()) / counts for values in (radius, image))
    return np.asarray(PchipInterpolator(centers, means)(np.minimum(radius, centers[-1])), np.float64)


def _fit_positions(
    frame: Frame,
    psf: PsfModel,
    x: Float64,
    y: Float64,
    fwhm: float,
    n_iterations: int,
    workspace: Workspace,
    config: PsfConfig,
) -> Float64:
    """(n, 6) of :func:`fit_sources`; ``x`` and ``y`` move in place."""
    half = int(np.clip(round(config.fit_half_fwhm * fwhm), 3, psf.size // 2 - 5))
    out = np.empty((x.size, 6))
    skip = np.uint16(config.ignored_planes)
    terms = psf.terms(x, y)

    def fit_rows(rows: tuple[int, int]) -> None:
        some = slice(*rows)
        fit_sources(
            frame.image, frame.variance, frame.mask, skip, psf.coefficients, terms[some], half, n_iterations,
            config.max_shift_pix, config.model_error, x[some], y[some], out[some],
        )  # fmt: skip

    workspace.share(fit_rows, bands(x.size, workspace.n_threads))
    return out


def _measure_all(
    frame: Frame, psf: PsfModel, sources: Catalog, fwhm: float, workspace: Workspace, config: PsfConfig
) -> Catalog:
    """Copy of the sources with PSF positions, fluxes and errors; those whose fit failed keep their position."""
    measured = sources.copy()
    x, y = sources["x"].copy(), sources["y"].copy()
    fits = _fit_positions(frame, psf, x, y, fwhm, 2, workspace, config)
    has_flux = fits[:, 5] != FIT_FAILED
    has_position = fits[:, 5] == FIT_OK
    measured["x"][has_position], measured["y"][has_position] = x[has_position], y[has_position]
    measured["xErr"][has_position] = fits[has_position, 2]
    measured["yErr"][has_position] = fits[has_position, 3]
    # The zero point must come from the estimator that measures DIASources: pixels of equal weight. Weights that fall
    # with a star's own light see other parts of the profile in bright stars than in faint ones.
    forced = PsfOnFrame.of(frame, psf).forced(measured["x"], measured["y"])
    has_flux &= np.isfinite(forced.flux)
    measured["psfFlux"] = np.where(has_flux, forced.flux, 0.0)
    measured["psfFluxErr"] = np.where(has_flux, forced.flux_err, np.inf)
    return measured
