"""The compute child of a year in fast forward: detections from truth instead of pixels, the rest is the product's.

History from Redis and APDB, association, claims, forced photometry on drawn difference and science images, objects,
features, cutouts, packets: the code that runs in production, behind the same worker.
"""

import time
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from alerts.packet import AlertContext, EncodedPast, build_alerts
from benchmarks.history.scene import measured_visit
from benchmarks.year.campaign import (
    EPHEMERIS_SPAN_DAYS,
    EXPOSURE_S,
    FIRST_ASTEROID,
    Campaign,
    CampaignConfig,
    Detections,
    Visit,
    draw,
    psf_stamp,
)
from core.contracts.bundle import Bundle, BundlePart, PartSource
from core.contracts.catalogs import EPHEMERIS, Catalog, take_rows
from core.contracts.exposure import Exposure, RawExposure, VisitInfo
from core.contracts.psf import PsfModel
from core.errors import RejectedInputError
from core.ids import source_ids
from core.pipeline import FirstHalf, Pipeline
from core.stages.measure import ProcessingStamp
from core.stages.pointing import predict_wcs
from core.stopwatch import Stopwatch
from service.answers import Job
from service.bundle_loader import BundleLoader
from service.bundles import Ready
from service.compute import DetectorCompute
from service.records import Prepare, Readout
from service.settings import Settings
from service.storage.claims import Claims
from service.storage.recipe import BundleKey

EPHEMERIS_ERROR_ARCSEC: Final = 0.3
_NO_FLAG: Final = 0


class YearPipeline(Pipeline):
    """A pipeline whose first half begins with detections drawn from truth."""

    stage: FirstHalf
    """A visit that went through its pixels: frames and columns are taken from it."""
    campaign: Campaign
    noise: NDArray[np.float32]

    def measure(
        self,
        raw: RawExposure,
        bundle: Bundle,
        tail: Any,
        remaining_s: Any,
        time_processed_mjd_tai: float,
        stopwatch: Stopwatch | None = None,
    ) -> FirstHalf:
        """As :meth:`Pipeline.measure`, without the pixels."""
        watch, info = stopwatch or Stopwatch(self.clock), raw.visit_info
        done = self.stage.subtraction
        assert done is not None
        visit = visit_of(self.campaign, info.visit)
        with watch.stage("draw"):
            self._draw(visit, info.detector)
            found = self.campaign.detections(visit, info.detector)
            wcs = predict_wcs(self.camera, info.detector, info.ra_deg, info.dec_deg, info.rot_sky_deg)
            stamp = ProcessingStamp(release=self.config.release, time_processed_mjd_tai=time_processed_mjd_tai)
            exposure = replace(self.stage.exposure, visit_info=info, wcs=wcs, psf=self._psf())
            rows = self._rows(found, visit, exposure, stamp)
        first = replace(
            self.stage,
            exposure=exposure,
            stamp=stamp,
            counts={"n_detected": int(rows.size), "n_flagged": 0},
            stopwatch=watch,
        )
        difference = replace(done.difference, psf=self._psf(), photon_noise_njy=0.0)
        with watch.stage("tail"):  # in production it comes while the pixels are worked on
            appended = tail()
        return self.associate(first, rows, difference, done.template, bundle, lambda: appended)

    def _draw(self, visit: Visit, detector: int) -> None:
        """Fill the frames of the staged visit."""
        done = self.stage.subtraction
        assert done is not None
        images = draw(self.campaign, visit, detector, self.noise)
        for frame, image in zip((done.difference.frame, self.stage.exposure.frame), images, strict=True):
            frame.image[:] = image
            frame.variance[:] = visit.noise_njy**2
            frame.mask[:] = 0

    def _psf(self) -> PsfModel:
        shape = self.stage.exposure.frame.shape
        return PsfModel(coefficients=psf_stamp(0.0, 0.0).astype(np.float32)[None], shape=shape, order=0)

    def _rows(self, found: Detections, visit: Visit, exposure: Exposure, stamp: ProcessingStamp) -> Catalog:
        done = self.stage.subtraction
        assert done is not None
        info = exposure.visit_info
        rows = take_rows(done.sources, np.zeros(found.x.size, np.int64))
        numbers = np.arange(rows.size, dtype=np.int64)
        rows["diaSourceId"] = source_ids(stamp.release, info.visit, info.detector, numbers)
        rows["visit"], rows["detector"], rows["band"] = info.visit, info.detector, info.band
        rows["midpointMjdTai"], rows["timeProcessedMjdTai"] = info.midpoint_mjd_tai, stamp.time_processed_mjd_tai
        rows["x"], rows["y"] = found.x, found.y
        rows["ra"], rows["dec"] = exposure.wcs.pixel_to_sky(found.x, found.y)
        error = found.position_err_pix * self.camera.pixel_scale_arcsec / 3600
        rows["raErr"] = rows["decErr"] = error
        rows["ra_dec_Cov"] = 0.0
        rows["psfFlux"], rows["psfFluxErr"] = found.flux, visit.flux_err_njy
        rows["snr"] = np.abs(found.flux) / visit.flux_err_njy
        rows["scienceFlux"], rows["scienceFluxErr"] = found.flux, visit.flux_err_njy
        rows["isNegative"] = found.flux < 0
        rows["reliability"] = np.where(found.label >= 0, 0.9, 0.3)
        for name in self.config.associate.new_object_bad_flags:
            rows[name] = _NO_FLAG
        return rows


class YearCompute(DetectorCompute):
    """Computes readouts of a campaign."""

    def __init__(self, settings: Settings, loader: BundleLoader, claims: Claims | None) -> None:
        super().__init__(settings, loader, claims)
        self._campaign = Campaign(CampaignConfig.read(settings.dataset))
        self._plain = self.pipeline
        self._year = YearPipeline(self._plain.camera, self._plain.config, self._plain.clock)
        self.pipeline = self._year

    def warm_up(self) -> None:
        """One made-up visit through everything: its frames and calibrations serve all others."""
        detector = self._campaign.config.detectors[0]
        first, self._bundle = measured_visit(self._plain.camera, self._plain, detector)
        result = self._plain.finish(first)
        self._plain.light_curve_features(first, result)
        assert first.subtraction is not None
        build_alerts(result, first.subtraction.past, AlertContext(wcs=first.exposure.wcs))
        self._year.stage, self._year.campaign = first, self._campaign
        self._year.noise = np.random.default_rng(7).standard_normal(first.exposure.frame.shape, dtype=np.float32)
        self._loader.warm_up()

    def prepare(self, work: Prepare) -> None:
        """Nothing comes ahead in a year in fast forward."""

    def _read_raw(self, readout: Readout, deadline_monotonic_s: float) -> RawExposure:
        visit = visit_of(self._campaign, readout.visit)
        half = EXPOSURE_S / 2 / 86400
        info = VisitInfo(
            instrument=readout.instrument,
            group=readout.group,
            visit=readout.visit,
            detector=readout.detector,
            band=readout.band,
            exposure_start_mjd_tai=visit.mjd_tai - half,
            exposure_end_mjd_tai=visit.mjd_tai + half,
            exposure_time_s=EXPOSURE_S,
            ra_deg=visit.ra_deg,
            dec_deg=visit.dec_deg,
            rot_sky_deg=visit.rot_sky_deg,
        )
        return RawExposure(visit_info=info, segments=np.zeros((1, 1, 1), np.int32))

    def _take_bundle(self, key: BundleKey, job: Job) -> tuple[Ready, None]:
        """The history as it is now; ephemerides of the campaign; the rest is nobody's business here."""
        begin = time.perf_counter()
        history, source = self._loader.history.load(key)
        loaded_s = time.perf_counter() - begin
        ephemerides = ephemeris_rows(self._campaign, visit_of(self._campaign, job.readout.visit))
        rows = sum(table.size for table in (history.dia_sources, history.dia_forced_sources))
        parts = (
            BundlePart(kind="history", source=source, digest=f"{loaded_s:.6f}", nbytes=rows),
            BundlePart(kind="ephemerides", source=PartSource.MEMORY, digest="", nbytes=int(ephemerides.nbytes)),
        )
        bundle = replace(self._bundle, history=history, ephemerides=ephemerides, parts=parts)
        return Ready(bundle=bundle, encoded=EncodedPast.of(history)), None


def visit_of(campaign: Campaign, number: int) -> Visit:
    """The visit of a number; its last digits count the visits of the campaign."""
    order = number % 100_000 - 1
    if not 0 <= order < len(campaign.visits) or campaign.visits[order].visit != number:
        raise RejectedInputError("no visit of this campaign", code="bad_visit", visit=number)
    return campaign.visits[order]


def ephemeris_rows(campaign: Campaign, visit: Visit) -> Catalog:
    """EPHEMERIS rows of the visit's known asteroids."""
    known = campaign.ephemerides(visit)
    rows = np.zeros(len(known), EPHEMERIS)
    for row, (label, target, observer) in zip(rows, known, strict=True):
        row["ssObjectId"] = label
        row["designation"] = f"2026 S{label - FIRST_ASTEROID}"
        row["object"][:, : target.shape[1]], row["observer"][:, : observer.shape[1]] = target, observer
    rows["startMjdTai"] = visit.mjd_tai - EPHEMERIS_SPAN_DAYS / 2
    rows["endMjdTai"] = visit.mjd_tai + EPHEMERIS_SPAN_DAYS / 2
    rows["errorArcsec"], rows["ephVmag"] = EPHEMERIS_ERROR_ARCSEC, 21.0
    return rows


def build(settings: Settings) -> YearCompute:
    """What ``SUB60_COMPUTE`` names."""
    return YearCompute.open(settings)
