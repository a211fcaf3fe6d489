"""WCS of the exposure from reference stars."""

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from core.contracts.catalogs import Catalog
from core.contracts.exposure import VisitInfo
from core.contracts.local_maps import LocalMaps
from core.contracts.results import Astrometry, MatchedPairs
from core.contracts.wcs import Wcs, plane_to_sky, sky_to_plane
from core.errors import Outcome, UnusableDataError
from core.flags import Mask
from core.stages.local_maps import LocalMapsConfig, fit_maps
from core.stages.pointing import SIP_ORDER, fit_tan_sip, pixel_grid, plane_exponents
from core.stages.star_motion import positions_at_epoch

__all__ = ["Astrometry", "AstrometryConfig", "fit_wcs"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class AstrometryConfig:
    """How stars are matched and the WCS is fitted."""

    max_offset_arcsec: float = 24.0
    """Of a star from where the pointing predicts it; a rotation about the boresight shifts an outer detector too."""
    max_rotation_deg: float = 0.1
    rotation_step_deg: float = 0.02
    vote_stars: int = 300
    """Brightest sources and reference stars that vote for the offset."""
    vote_bin_pix: float = 3.0
    min_votes: int = 5
    sure_votes: float = 0.15
    """Fraction of the sources whose votes settle it; with less, fainter reference stars are asked too: where a field
    is crowded, all of the brightest may be saturated in the image."""
    max_vote_references: int = 10_000
    match_radii_pix: tuple[float, ...] = (6.0, 3.0, 2.0)
    """Of successive matches, each after a better fit."""
    stars_per_term: int = 6
    """Fewer than this a polynomial term lower the order."""
    max_order: int = 3
    min_stars: int = 6
    min_snr: float = 10.0
    max_sources: int = 6000
    """The brightest are matched: more add nothing to the WCS, and a crowded field has ten times as many."""
    clip_sigma: float = 3.5
    error_floor_mas: float = 5.0
    """Turbulence and whatever else the errors do not know, added in quadrature."""
    max_rms_mas: float = 150.0
    """A worse hold-out residual means a wrong match."""
    n_folds: int = 5
    color_zero: float = 0.4
    """Color (g - i) whose positions the WCS gives: what changes on the sky, from supernovae and quasars (0.2) to
    asteroids (0.7), is bluer than the stars that are fitted, and the atmosphere disperses blue light more."""
    min_stars_for_color: int = 60
    color_range: tuple[float, float] = (-0.5, 3.0)
    is_mapped: bool = True
    """Map what turbulence displaces on scales below the polynomial's."""
    maps: LocalMapsConfig = field(default_factory=LocalMapsConfig)


_NOT_STARS: Final = np.uint16(Mask.BAD | Mask.SAT | Mask.NODATA | Mask.CR)
_ERROR_UNKNOWN_MAS: Final = 30.0


def fit_wcs(
    sources: Catalog,
    reference_stars: Catalog,
    predicted: Wcs,
    visit_info: VisitInfo,
    shape: tuple[int, int],
    config: AstrometryConfig,
) -> Astrometry:
    """Match sources with reference stars at the visit's epoch and refine the predicted WCS.

    Offset and rotation are voted for by all pairs of bright stars within reach; matches are then tightened over
    successive fits, of lower order where stars are few. The residual is that of stars left out of the fit in turn.
    About 0.02 s CPU.

    Raises ``UnusableDataError`` (astrometry_failed) where there are too few stars or the residual is too large.
    """
    rows = np.flatnonzero(((sources["mask"] & _NOT_STARS) == 0) & (sources["snr"] > config.min_snr))
    if rows.size > config.max_sources:
        rows = np.sort(rows[np.argsort(-sources["psfFlux"][rows], kind="stable")[: config.max_sources]])
    ra, dec = positions_at_epoch(reference_stars, visit_info.midpoint_mjd_tai)
    ref_x, ref_y = predicted.sky_to_pixel(ra, dec)
    reach = config.max_offset_arcsec / predicted.pixel_scale_arcsec
    inside = (ref_x > -reach) & (ref_x < shape[1] + reach) & (ref_y > -reach) & (ref_y < shape[0] + reach)
    references = np.flatnonzero(inside)
    if rows.size < config.min_stars or references.size < config.min_stars:
        raise _failure("too few sources or reference stars", rows.size, references.size)
    found = np.stack([sources["x"], sources["y"]], axis=-1)[rows]
    expected = np.stack([ref_x, ref_y], axis=-1)[references]
    brightness = _brightness(reference_stars[references], visit_info.band)
    moved = _vote(found, sources["psfFlux"][rows], expected, brightness, shape, reach, config)
    solver = _Solver(predicted, found, (ra[references], dec[references]), _errors(sources[rows], config))
    solver.take_reference(reference_stars[references], visit_info.midpoint_mjd_tai, config)
    for radius in config.match_radii_pix:
        pairs = _match(found, moved, radius)
        if pairs[0].size < config.min_stars:
            raise _failure("too few matches", rows.size, references.size, n_matches=int(pairs[0].size))
        keep, order = solver.fit(*pairs, config)
        moved = solver.predict(expected)
    rms = solver.hold_out_mas(pairs[0][keep], pairs[1][keep], order, config.n_folds)
    if keep.sum() < config.min_stars or not rms <= config.max_rms_mas:
        raise _failure("the fit does not hold", rows.size, references.size, rms_mas=rms, n_stars=int(keep.sum()))
    final = _match(found, moved, config.match_radii_pix[-1])
    wcs = solver.wcs(shape)
    if config.is_mapped:
        wcs = replace(wcs, maps=solver.maps(pairs[0][keep], pairs[1][keep], shape, config))
    return Astrometry(
        wcs=wcs,
        pairs=MatchedPairs(source_index=rows[final[0]], reference_index=references[final[1]]),
        n_stars=int(keep.sum()),
        rms_mas=rms,
    )


def _failure(message: str, n_sources: int, n_references: int, **context: float) -> UnusableDataError:
    error = UnusableDataError(
        message, outcome=Outcome.ASTROMETRY_FAILED, n_sources=n_sources, n_references=n_references
    )
    error.context.update(context)
    return error


def _brightness(stars: Catalog, band: str) -> Float64:
    """Flux in the band, or in any where the band has none."""
    fluxes = np.stack([stars[f"{b}_flux"] for b in (band, "r", "i", "g", "z", "y", "u")]).astype(np.float64)
    fluxes = np.where(fluxes > 0, fluxes, np.nan)
    first = np.argmax(np.isfinite(fluxes), axis=0)
    return np.asarray(np.nan_to_num(fluxes[first, np.arange(stars.size)]), np.float64)


def star_colors(stars: Catalog, color_zero: float, color_range: tuple[float, float]) -> Float64:
    """(n,) g - i of REFERENCE_STAR rows relative to ``color_zero`` [mag], within the range; 0 where not known."""
    blue, red = stars["g_flux"].astype(np.float64), stars["i_flux"].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        color = -2.5 * np.log10(blue / red)
    known = np.isfinite(color) & stars["isStar"]
    return np.where(known, np.clip(color, *color_range) - color_zero, 0.0)


def _errors(sources: Catalog, config: AstrometryConfig) -> Float64:
    """(n,) position error per axis [pixel]."""
    error = np.hypot(sources["xErr"], sources["yErr"]).astype(np.float64) / np.sqrt(2)
    return np.where(np.isfinite(error), np.maximum(error, 1e-3), 1.0)


def _vote(
    found: Float64, flux: Float64, expected: Float64, brightness: Float64, shape: tuple[int, int],
    reach: float, config: AstrometryConfig,
) -> Float64:  # fmt: skip
    """Predicted positions [pixel] of all reference stars, moved by the offset and rotation most pairs agree on."""
    ours = found[np.argsort(-flux, kind="stable")[: config.vote_stars]]
    by_brightness = np.argsort(-brightness, kind="stable")[: config.max_vote_references]
    first, n = 0, config.vote_stars
    score, step, shift = _best_turn(ours, expected[by_brightness[:n]], shape, reach, config)
    while score < config.sure_votes * ours.shape[0] and (first := first + n) < by_brightness.size:
        n *= 2
        other = _best_turn(ours, expected[by_brightness[first : first + n]], shape, reach, config)
        if other[0] >= config.sure_votes * ours.shape[0]:
            score, step, shift = other
    if score < config.min_votes:
        raise _failure("the stars agree on no offset", found.shape[0], expected.shape[0], votes=score)
    center = np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2])
    return np.asarray((expected - center) @ _rotation(step * config.rotation_step_deg).T + center + shift)


def _best_turn(
    ours: Float64, theirs: Float64, shape: tuple[int, int], reach: float, config: AstrometryConfig
) -> tuple[int, int, Float64]:
    """Votes, steps of rotation and offset [pixel] that most pairs agree on."""
    center = np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2])
    n_step = round(config.max_rotation_deg / config.rotation_step_deg)
    best: tuple[int, int, Float64] = (0, 0, np.zeros(2))
    # the smallest turns first: among equal votes the pointing is believed
    for step in sorted(range(-n_step, n_step + 1), key=abs):
        turned = (theirs - center) @ _rotation(step * config.rotation_step_deg).T + center
        score, shift = _best_offset(ours, turned, reach, config.vote_bin_pix)
        if score > best[0]:
            best = (score, step, shift)
    return best


def _best_offset(ours: Float64, theirs: Float64, reach: float, bin_pix: float) -> tuple[int, Float64]:
    """Pairs that agree on one offset within two bins, and that offset [pixel]."""
    dx, dy = (np.subtract.outer(ours[:, i], theirs[:, i]).ravel() for i in (0, 1))
    near = np.flatnonzero((np.abs(dx) < reach) & (np.abs(dy) < reach))
    if near.size == 0:
        return 0, np.zeros(2)
    dx, dy = dx[near], dy[near]
    n_bins = int(2 * reach / bin_pix) + 1
    cell = ((dy + reach) / bin_pix).astype(np.int64) * n_bins + ((dx + reach) / bin_pix).astype(np.int64)
    votes = np.bincount(cell, minlength=n_bins * n_bins)[: n_bins * n_bins].reshape(n_bins, n_bins)
    blocks = votes[:-1, :-1] + votes[1:, :-1] + votes[:-1, 1:] + votes[1:, 1:]
    j, i = np.unravel_index(int(np.argmax(blocks)), blocks.shape)
    corner_x, corner_y = (i + 1) * bin_pix - reach, (j + 1) * bin_pix - reach
    close = (np.abs(dx - corner_x) <= bin_pix) & (np.abs(dy - corner_y) <= bin_pix)
    return int(blocks.max()), np.array([np.median(dx[close]), np.median(dy[close])])


def _rotation(angle_deg: float) -> Float64:
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    return np.array([[c, -s], [s, c]])


def _match(found: Float64, expected: Float64, radius: float) -> tuple[Int64, Int64]:
    """Mutually nearest pairs within ``radius``; a star with two candidates of near equal distance is left out."""
    tree = cKDTree(expected)
    distance, index = tree.query(found, k=2, distance_upper_bound=2 * radius)
    _, back = cKDTree(found).query(expected, k=1)
    row = np.flatnonzero((distance[:, 0] < radius) & (distance[:, 1] > 1.5 * distance[:, 0]))
    partner = index[row, 0]
    mutual = back[partner] == row
    return row[mutual], partner[mutual]


class _Solver:
    """Residual polynomial from pixels to the predicted tangent plane; holds the state of successive fits."""

    def __init__(self, predicted: Wcs, found: Float64, sky: tuple[Float64, Float64], errors_pix: Float64) -> None:
        self._predicted = predicted
        self._scale = max(float(np.abs(found - predicted.crpix).max()), 1.0)
        self._plane = np.stack(predicted.pixel_to_plane(found[:, 0], found[:, 1]), axis=-1)
        self._target = np.stack(sky_to_plane(*sky, predicted.crval), axis=-1)
        self._found = found
        self._errors_mas = errors_pix * predicted.pixel_scale_arcsec * 1000.0
        self._reference_mas = np.zeros(sky[0].size)
        self._color = np.zeros(sky[0].size)
        self._solution: Float64 = np.zeros((1, 2))
        self._dispersion: Float64 = np.zeros(2)
        self._order = 0

    def take_reference(self, stars: Catalog, mjd_tai: float, config: AstrometryConfig) -> None:
        """Take the catalog's errors, unknown ones as large as ``_ERROR_UNKNOWN_MAS``, and colors.

        The catalog gives no error of the motions; that of a survey which measured both in a few years is about the
        position's, a year.
        """
        error = np.hypot(stars["raErr"], stars["decErr"]).astype(np.float64) / np.sqrt(2)
        years = (mjd_tai - stars["epochMjdTai"].astype(np.float64)) / 365.25
        error = np.where(np.isfinite(error), error * np.hypot(1.0, years), _ERROR_UNKNOWN_MAS)
        # galaxies and stars without known motion are matched, but do not lead
        loose = ~stars["isStar"] | ~np.isfinite(stars["pmRa"])
        self._reference_mas = np.where(loose, np.maximum(error, _ERROR_UNKNOWN_MAS), error)
        self._floor_mas = config.error_floor_mas
        self._color = star_colors(stars, config.color_zero, config.color_range)

    def _design(self, position: Float64, order: int) -> Float64:
        u, v = ((position - self._predicted.crpix) / self._scale).T
        return np.stack([u**p * v**q for p, q in plane_exponents(order)], axis=-1)

    def _error(self, rows: Int64, partners: Int64) -> Float64:
        """(n,) errors per axis [mas] of matched pairs, turbulence included."""
        return np.asarray(
            np.sqrt(self._errors_mas[rows] ** 2 + self._reference_mas[partners] ** 2 + self._floor_mas**2), np.float64
        )

    def _solve(self, rows: Int64, partners: Int64, order: int, *, with_color: bool = False) -> tuple[Float64, Float64]:
        """(n_terms, 2) coefficients [mas] and the dispersion (2,) [mas per magnitude], weighted by the errors."""
        error = self._error(rows, partners)
        design = self._design(self._found[rows], order)
        if with_color:
            design = np.column_stack([design, self._color[partners]])
        residual = (self._target[partners] - self._plane[rows]) * 3.6e6
        solution = np.linalg.lstsq(design / error[:, None], residual / error[:, None], rcond=None)[0]
        if not with_color:
            return np.asarray(solution, np.float64), np.zeros(2)
        return np.asarray(solution[:-1], np.float64), np.asarray(solution[-1], np.float64)

    def fit(self, rows: Int64, partners: Int64, config: AstrometryConfig) -> tuple[NDArray[np.bool_], int]:
        """Fit with clipping; returns which pairs were kept and the order."""
        keep = np.ones(rows.size, bool)
        order = 1
        for _ in range(8):
            order = config.max_order
            while order > 1 and keep.sum() < config.stars_per_term * (order + 1) * (order + 2) // 2:
                order -= 1
            with_color = int(np.count_nonzero(self._color[partners[keep]])) >= config.min_stars_for_color
            self._solution, self._dispersion = self._solve(rows[keep], partners[keep], order, with_color=with_color)
            self._order = order
            pull = np.hypot(*self._pulls(rows, partners).T)
            # 1.18 is the median of two axes' length, in sigma
            spread = max(float(np.median(pull[keep])) / 1.1774, 0.5)
            previous, keep = keep, pull < config.clip_sigma * spread
            if keep.sum() < config.min_stars:
                return previous, order
            if (keep == previous).all():
                break
        return keep, order

    def _residual(self, rows: Int64, partners: Int64) -> Float64:
        """(n, 2) what the fit leaves of matched pairs [mas]."""
        residual = (self._target[partners] - self._plane[rows]) * 3.6e6
        residual -= self._color[partners, None] * self._dispersion
        return np.asarray(residual - self._design(self._found[rows], self._order) @ self._solution, np.float64)

    def _pulls(self, rows: Int64, partners: Int64) -> Float64:
        return self._residual(rows, partners) / self._error(rows, partners)[:, None]

    def maps(self, rows: Int64, partners: Int64, shape: tuple[int, int], config: AstrometryConfig) -> LocalMaps | None:
        """Turbulence as maps of (x, y) [pixel] that are added to pixels before the WCS."""
        to_pixel = np.linalg.inv(self._predicted.cd) / 3.6e6
        shift = self._residual(rows, partners) @ to_pixel.T
        error = np.hypot(self._errors_mas[rows], self._reference_mas[partners])
        error = error / (self._predicted.pixel_scale_arcsec * 1000.0)
        x, y = self._found[rows].T
        return fit_maps(x, y, shift, np.stack([error, error], axis=-1), shape, config.maps)

    def predict(self, expected: Float64) -> Float64:
        """Pixels at which the current fit puts the reference stars, starting from the predicted ones."""
        pixel = expected.copy()
        inverse = np.linalg.inv(self._predicted.cd)
        for _ in range(4):
            plane = np.stack(self._predicted.pixel_to_plane(pixel[:, 0], pixel[:, 1]), axis=-1)
            plane += self._design(pixel, self._order) @ self._solution / 3.6e6
            pixel = pixel + (self._target - plane) @ inverse.T
        return np.asarray(pixel)

    def hold_out_mas(self, rows: Int64, partners: Int64, order: int, n_folds: int) -> float:
        """Robust residual per axis [mas] of the better half of the stars, each left out of the fit that predicts it."""
        error = self._error(rows, partners)
        fold = np.arange(rows.size) % n_folds
        residual = np.full((rows.size, 2), np.nan)
        for k in range(n_folds):
            test, train = fold == k, fold != k
            if train.sum() < (order + 1) * (order + 2) // 2 + 1 or not test.any():
                return float("nan")
            with_color = bool(self._dispersion.any())
            solution, dispersion = self._solve(rows[train], partners[train], order, with_color=with_color)
            shift = (self._target[partners[test]] - self._plane[rows[test]]) * 3.6e6
            shift -= self._color[partners[test], None] * dispersion
            residual[test] = shift - self._design(self._found[rows[test]], order) @ solution
        good = residual[error <= np.median(error)]
        return float(1.4826 * np.median(np.abs(good)))

    def wcs(self, shape: tuple[int, int]) -> Wcs:
        """TAN-SIP of the predicted WCS plus the fitted residual."""
        x, y = pixel_grid(shape)
        crpix = self._predicted.crpix
        x, y = np.append(x, crpix[0]), np.append(y, crpix[1])
        xi, eta = self._predicted.pixel_to_plane(x, y)
        change = self._design(np.stack([x, y], axis=-1), self._order) @ self._solution / 3.6e6
        ra, dec = plane_to_sky(xi + change[:, 0], eta + change[:, 1], self._predicted.crval)
        crval = np.array([ra[-1], dec[-1]])
        return fit_tan_sip(x, y, (ra, dec), crpix, crval, max(SIP_ORDER, self._order))
