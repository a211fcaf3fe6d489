"""One detector-visit from raw segments to catalogs: orders the stages, times them, watches the deadline.

Two halves. :meth:`Pipeline.measure` goes from pixels to association; the caller then claims the new objects it names
(one call to a shared store, so that two visits of one field at one instant do not make an object twice) and hands the
answered ids to :meth:`Pipeline.finish`, which does forced photometry, objects and cutouts.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from core.camera import Camera
from core.config import PipelineConfig
from core.contracts.bundle import Bundle, History
from core.contracts.catalogs import (
    DIA_FORCED_SOURCE,
    DIA_OBJECT,
    DIA_SOURCE,
    LIGHT_CURVE_FEATURES,
    SS_SOURCE,
    Catalog,
    empty_catalog,
)
from core.contracts.exposure import DifferenceImage, Exposure, Frame, RawExposure, Template, VisitInfo, WarpedTemplate
from core.contracts.results import Association, Astrometry, DetectorResult, PsfFit, SkyCheck
from core.errors import Outcome, RejectedInputError, UnusableDataError
from core.flags import UNCLAIMED
from core.stages.associate import Claims, apply_claims, associate, drop_orphans, new_object_claims
from core.stages.astrometry import fit_wcs
from core.stages.background import subtract_background
from core.stages.bright_stars import flag_near_bright_stars
from core.stages.cosmic_rays import find_cosmic_rays
from core.stages.cutouts import cut_stamps
from core.stages.detect import detect
from core.stages.features import update_objects
from core.stages.flag_cuts import flag_cuts
from core.stages.forced import force_photometry, forced_targets
from core.stages.isr import isr
from core.stages.measure import Measurement, ProcessingStamp, measure
from core.stages.past import Past
from core.stages.photometry import apply_zero_point, fit_zero_point
from core.stages.pointing import predict_wcs
from core.stages.psf import fit_psf
from core.stages.psf_structure import widen
from core.stages.reliability import Reliability, score_sources
from core.stages.reliability_features import Surroundings, star_residuals
from core.stages.sky_sources import check_sky
from core.stages.solar_system import describe
from core.stages.sources import detect_sources, measure_seeing
from core.stages.streaks import mask_streaks
from core.stages.subtract import limit_claims, subtract
from core.stages.template import warp_template
from core.stages.wide_features import WideFeatures
from core.stopwatch import Clock, Stopwatch
from core.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class Subtraction:
    """What the second half needs of a visit that has a template."""

    template: WarpedTemplate
    difference: DifferenceImage
    sources: Catalog
    association: Association
    claims: Claims
    past: Past
    ephemerides: Catalog


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstHalf:
    """A detector-visit between its halves. Frames live in the pipeline's workspace: valid until the next visit."""

    outcome: Outcome
    exposure: Exposure
    sources: Catalog
    """SOURCE rows of the science image [nJy]."""
    subtraction: Subtraction | None
    """None where the sky has no template."""
    stamp: ProcessingStamp
    counts: dict[str, int]
    summary: dict[str, float]
    stopwatch: Stopwatch

    @property
    def claims(self) -> Claims | None:
        """New objects to be claimed, if any stage got that far."""
        return self.subtraction.claims if self.subtraction else None


class Pipeline:
    """Runs detector-visits of one camera, one at a time, in buffers it owns."""

    def __init__(self, camera: Camera, config: PipelineConfig, clock: Clock) -> None:
        self.camera = camera
        self.config = config
        self.workspace = Workspace(config.n_threads)
        self.clock = Clock(wall=clock.wall, cpu=lambda: clock.cpu() + self.workspace.helper_cpu_s)
        """For stopwatches of visits: ``clock``'s CPU is this thread's, this one's that of all threads."""
        self._wide_features = WideFeatures(config.wide_features)
        self.score: Callable[[Measurement, Surroundings], Reliability] = score_sources
        """What fills ``reliability``; whoever trains a model listens here."""

    def measure(
        self,
        raw: RawExposure,
        bundle: Bundle,
        tail: Callable[[], History | None],
        remaining_s: Callable[[], float],
        time_processed_mjd_tai: float,
        stopwatch: Stopwatch | None = None,
    ) -> FirstHalf:
        """From raw segments to associated DIASources and the claims of new objects.

        Parameters
        ----------
        tail : gives what was appended to the history since the bundle was made, None where it cannot be had;
            called once, after the pixels are done.
        remaining_s : seconds left of the clock; below ``optional_work_s`` optional fits are dropped.
        time_processed_mjd_tai : take-up time, stamped on the catalogs.
        stopwatch : continued, if the caller timed something before (the reading of the raw).

        Raises :class:`UnusableDataError` with the outcome where the data cannot give alerts.
        """
        watch = stopwatch or Stopwatch(self.clock)
        stamp = ProcessingStamp(release=self.config.release, time_processed_mjd_tai=time_processed_mjd_tai)
        exposure, sources, summary = self._calibrated(raw, bundle, watch)
        warped = self._warped(bundle.template, exposure, watch)
        first = FirstHalf(
            outcome=Outcome.NO_TEMPLATE,
            exposure=exposure,
            sources=sources,
            subtraction=None,
            stamp=stamp,
            counts={"n_detected": 0, "n_flagged": 0},
            summary=summary,
            stopwatch=watch,
        )
        if warped is None:
            return first
        return self._subtracted(first, warped, bundle, tail, remaining_s)

    def finish(self, first: FirstHalf, claimed_ids: NDArray[np.int64] | None = None) -> DetectorResult:
        """Forced photometry, objects, solar-system rows, cutouts; ``claimed_ids`` answer ``first.claims``."""
        watch, visit_info = first.stopwatch, first.exposure.visit_info
        done = first.subtraction
        if done is None:
            return _without_alerts(first)
        with watch.stage("forced"):
            answered = done.claims.proposed_id if claimed_ids is None else claimed_ids
            sources = apply_claims(
                done.sources, done.association, done.past.dia_objects, done.ephemerides, done.claims, answered
            )
            targets = forced_targets(sources, done.past.dia_objects, first.exposure, self.config.forced)
            forced = force_photometry(done.difference, first.exposure, targets, first.stamp)
        with watch.stage("features"):
            objects, object_index = update_objects(sources, forced, done.past, visit_info)
            ss_sources = describe(sources, done.association, done.ephemerides, visit_info)
        with watch.stage("cutouts"):
            cutouts = cut_stamps(done.difference, first.exposure, done.template, sources)
        return DetectorResult(
            outcome=Outcome.ALERTS,
            dia_sources=sources,
            dia_objects=objects,
            dia_forced_sources=forced,
            ss_sources=ss_sources,
            object_index=object_index,
            cutouts=cutouts,
            counts=first.counts,
            summary=first.summary,
            timings=watch.timings,
        )

    def light_curve_features(self, first: FirstHalf, result: DetectorResult) -> Catalog:
        """LIGHT_CURVE_FEATURES rows of a finished visit's objects.

        No alert waits for them: of the frames nothing is needed, of the bundle its history.
        """
        if first.subtraction is None or not self.config.wide_features.is_computed:
            return empty_catalog(LIGHT_CURVE_FEATURES, 0)
        return self._wide_features.of(
            result.dia_objects,
            result.dia_sources,
            result.dia_forced_sources,
            first.subtraction.past,
            first.exposure.visit_info,
        )

    def _calibrated(
        self, raw: RawExposure, bundle: Bundle, watch: Stopwatch
    ) -> tuple[Exposure, Catalog, dict[str, float]]:
        """Science exposure [nJy] with PSF, WCS and zero point; its sources [nJy]; figures of the image."""
        info, config, workspace = raw.visit_info, self.config, self.workspace
        detector = self.camera.detectors.get(info.detector)
        if detector is None:
            raise RejectedInputError("the camera has no such detector", code="bad_detector", detector=info.detector)
        fwhm_pix = config.expected_fwhm_arcsec / self.camera.pixel_scale_arcsec
        with watch.stage("isr"):
            frame = isr(raw, bundle.calibrations, detector, workspace, config.isr)
        with watch.stage("background"):
            background = subtract_background(frame, workspace, config.background)
        with watch.stage("seeing"):
            fwhm_pix = measure_seeing(frame, fwhm_pix, workspace, config.sources)
        with watch.stage("cosmic_rays"):
            n_cosmic_ray_pixels = find_cosmic_rays(frame, fwhm_pix, workspace, config.cosmic_rays)
        with watch.stage("detect_sources"):
            found = detect_sources(frame, fwhm_pix, workspace, config.sources)
        with watch.stage("psf"):
            fit = fit_psf(frame, found, workspace, config.psf)
        with watch.stage("astrometry"):
            predicted = predict_wcs(self.camera, info.detector, info.ra_deg, info.dec_deg, info.rot_sky_deg)
            astrometry = fit_wcs(fit.sources, bundle.reference_stars, predicted, info, frame.shape, config.astrometry)
        with watch.stage("photometry"):
            exposure = self._photometered(frame, fit, astrometry, bundle.reference_stars, info)
        sources = fit.sources.copy()
        scale = exposure.photo_calib.njy_per_electron_at(sources["x"], sources["y"], frame.shape)
        for name in ("psfFlux", "psfFluxErr", "apFlux", "apFluxErr", "peak"):
            sources[name] *= scale
        summary = {
            "sky_level_electron": float(background.level),
            "sky_sigma_electron": float(background.sigma),
            "n_cosmic_ray_pixels": float(n_cosmic_ray_pixels),
            "n_sources": float(sources.size),
            "n_psf_stars": float(fit.n_stars),
            "psf_fwhm_arcsec": fit.psf.fwhm_pix() * exposure.wcs.pixel_scale_arcsec,
            "n_astrometry_stars": float(astrometry.n_stars),
            "astrometry_rms_mas": float(astrometry.rms_mas),
            "zero_point_mag": exposure.photo_calib.zero_point_mag,
            "zero_point_error_mag": 1.0857 * exposure.photo_calib.relative_error,
        }
        return exposure, sources, summary

    def _photometered(
        self, frame: Frame, fit: PsfFit, astrometry: Astrometry, reference_stars: Catalog, info: VisitInfo
    ) -> Exposure:
        photo_calib = fit_zero_point(
            fit.sources, reference_stars, astrometry.pairs, info.band, frame.shape, self.config.photometry
        )
        apply_zero_point(frame, photo_calib)
        psf = widen(fit.psf, photo_calib.change_width)
        return Exposure(frame=frame, psf=psf, wcs=astrometry.wcs, photo_calib=photo_calib, visit_info=info)

    def _warped(self, template: Template | None, exposure: Exposure, watch: Stopwatch) -> WarpedTemplate | None:
        """The template on the science grid, or None where too little of the detector has one."""
        if template is None:
            return None
        with watch.stage("template"):
            try:
                warped = warp_template(
                    template, exposure.wcs, exposure.frame.shape, self.workspace, self.config.template
                )
            except UnusableDataError as error:
                if error.outcome is Outcome.NO_TEMPLATE:
                    return None
                raise
        return warped if warped.coverage >= self.config.min_template_coverage else None

    def _subtracted(
        self,
        first: FirstHalf,
        warped: WarpedTemplate,
        bundle: Bundle,
        tail: Callable[[], History | None],
        remaining_s: Callable[[], float],
    ) -> FirstHalf:
        config, workspace, watch, exposure = self.config, self.workspace, first.stopwatch, first.exposure
        info = exposure.visit_info
        with watch.stage("subtract"):
            difference = subtract(exposure, warped, first.sources, workspace, config.subtract)
        with watch.stage("streaks"):
            n_streaks = mask_streaks(difference.frame, workspace, config.streaks)
        with watch.stage("detect"):
            detections = detect(difference, workspace, config.detect)
        with watch.stage("measure"):
            is_optional_done = remaining_s() > config.optional_work_s
            measure_config = config.measure
            if not is_optional_done:
                measure_config = replace(measure_config, is_dipole_fitted=False, is_trail_fitted=False)
            measured = measure(difference, exposure, warped, detections, workspace, measure_config, first.stamp)
            cuts = flag_cuts(measured, config.flag_cuts)
            kept = measured.take(cuts.is_kept)
            self._fill_reliability(kept, measured, exposure, difference, first.sources)
            n_near_bright = flag_near_bright_stars(kept.sources, bundle.reference_stars, info, config.bright_stars)
            sky = check_sky(difference, info, config.sky)
            limit_claims(difference, config.subtract)
        counts = {
            "n_detected": int(detections.y.size),
            **{f"cut_{name}": number for name, number in cuts.counts.items()},
            "n_near_bright_star": n_near_bright,
            "optional_dropped": int(not is_optional_done),
        }
        summary = first.summary | _difference_summary(difference, warped, sky) | {"n_streaks": float(n_streaks)}
        return self.associate(
            replace(first, counts=counts, summary=summary), kept.sources, difference, warped, bundle, tail
        )

    def associate(
        self,
        first: FirstHalf,
        kept: Catalog,
        difference: DifferenceImage,
        warped: WarpedTemplate,
        bundle: Bundle,
        tail: Callable[[], History | None],
    ) -> FirstHalf:
        """The end of the first half: what the kept DIASources belong to, and the claims of those that are new."""
        config, info = self.config.associate, first.exposure.visit_info
        with first.stopwatch.stage("associate"):
            past = Past(bundle.history, bundle.history_index, tail() or _empty_history(), info)
            association = associate(kept, past.dia_objects, bundle.ephemerides, info, config)
            sources, association = drop_orphans(kept, association)
            claims = new_object_claims(sources, association, config)
        counts = first.counts | {
            "n_flagged": first.counts["n_detected"] - int(sources.size),
            "n_new_objects": int(claims.row.size),
            "n_solar_system": int((association.ephemeris_index >= 0).sum()),
            "cut_no_object": int(kept.size - sources.size),
        }
        return replace(
            first,
            outcome=Outcome.ALERTS,
            subtraction=Subtraction(
                template=warped,
                difference=difference,
                sources=sources,
                association=association,
                claims=claims,
                past=past,
                ephemerides=bundle.ephemerides,
            ),
            counts=counts,
        )

    def _fill_reliability(
        self,
        kept: Measurement,
        measured: Measurement,
        exposure: Exposure,
        difference: DifferenceImage,
        sources: Catalog,
    ) -> None:
        """Score what the cuts kept, in place."""
        around = Surroundings(
            x=measured.sources["x"].astype(np.float64),
            y=measured.sources["y"].astype(np.float64),
            sources=sources,
            residuals=star_residuals(difference, sources),
            pixel_scale_arcsec=exposure.wcs.pixel_scale_arcsec,
        )
        reliability = self.score(kept, around)
        kept.sources["reliability"], kept.sources["reliabilityVersion"] = reliability.probability, reliability.version


def _difference_summary(difference: DifferenceImage, warped: WarpedTemplate, sky: SkyCheck) -> dict[str, float]:
    mask = difference.frame.mask
    # by parts: no full frame is allocated
    parts = (mask[y : y + 128] & np.uint16(UNCLAIMED) for y in range(0, mask.shape[0], 128))
    n_unclaimed = sum(int(np.count_nonzero(part)) for part in parts)
    return {
        "template_coverage": warped.coverage,
        "kernel_sum": difference.kernel_sum,
        "variance_scale": difference.variance_scale,
        "is_science_convolved": float(difference.is_science_convolved),
        "sky_pull_mean": sky.mean,
        "sky_pull_sd": sky.sd,
        "masked_fraction": n_unclaimed / mask.size,
    }


def _empty_history() -> History:
    return History(
        dia_objects=empty_catalog(DIA_OBJECT, 0),
        dia_sources=empty_catalog(DIA_SOURCE, 0),
        dia_forced_sources=empty_catalog(DIA_FORCED_SOURCE, 0),
    )


def _without_alerts(first: FirstHalf) -> DetectorResult:
    return DetectorResult(
        outcome=first.outcome,
        dia_sources=empty_catalog(DIA_SOURCE, 0),
        dia_objects=empty_catalog(DIA_OBJECT, 0),
        dia_forced_sources=empty_catalog(DIA_FORCED_SOURCE, 0),
        ss_sources=empty_catalog(SS_SOURCE, 0),
        object_index=np.zeros(0, np.int64),
        cutouts=None,
        counts=first.counts,
        summary=first.summary,
        timings=first.stopwatch.timings,
    )
