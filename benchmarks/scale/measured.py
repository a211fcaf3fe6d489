"""The compute child of ``--stages measured``: a sleep as long as the pixels took, the rest is the product's.

Bundles from Redis, history, claims, association, packets, result and commit are the code that runs in production. What
stands in for the pixels takes their measured time and no CPU, so that a machine of two cores carries a focal plane.
"""

import time
from dataclasses import replace
from typing import Any, Final

import numpy as np

from alerts.packet import AlertContext, build_alerts
from benchmarks.history.scene import Depth, make_sources, measured_visit
from benchmarks.scale.profile import Profile
from core.camera import load_camera
from core.contracts.bundle import Bundle
from core.contracts.catalogs import Catalog
from core.contracts.exposure import RawExposure, VisitInfo
from core.pipeline import FirstHalf, Pipeline
from core.stages.measure import ProcessingStamp
from core.stages.pointing import predict_wcs
from core.stopwatch import Stopwatch
from core.timescales import unix_tai_to_mjd_tai
from service.bundle_loader import BundleLoader
from service.compute import DetectorCompute
from service.records import Readout
from service.settings import Settings
from service.storage.claims import Claims

STAGED_CAMERA: Final = "testcam"
"""Frames that alerts are cut from: 512 x 512 pixels."""
ALERTS: Final = 10
"""Of each detector-visit; half of them at the same places each time."""


class MeasuredPipeline(Pipeline):
    """A pipeline that sleeps until there are DIASources."""

    stage: FirstHalf
    """A visit that went through its pixels: frames and columns are taken from it."""
    profile: Profile

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
        for name, wall_s, _ in self.profile.pick(info.visit, info.detector).pixels():
            if name != "read":
                with watch.stage(name):
                    time.sleep(wall_s)
        wcs = predict_wcs(self.camera, info.detector, info.ra_deg, info.dec_deg, info.rot_sky_deg)
        stamp = ProcessingStamp(release=self.config.release, time_processed_mjd_tai=time_processed_mjd_tai)
        exposure = replace(self.stage.exposure, visit_info=info, wcs=wcs)
        first = replace(self.stage, exposure=exposure, stamp=stamp, stopwatch=watch)
        rows = self._rows(first, info)
        first = replace(first, counts={"n_detected": int(rows.size), "n_flagged": 0})
        return self.associate(first, rows, done.difference, done.template, bundle, tail)

    def _rows(self, first: FirstHalf, info: VisitInfo) -> Catalog:
        rows = make_sources(first, Depth(alerts=ALERTS, previous_visits=0), np.random.default_rng(info.detector))
        others = make_sources(
            first, Depth(alerts=ALERTS, previous_visits=0), np.random.default_rng((info.visit, info.detector))
        )
        for name in ("x", "y", "ra", "dec"):
            rows[name][1::2] = others[name][1::2]
        rows["visit"], rows["detector"], rows["band"] = info.visit, info.detector, info.band
        rows["midpointMjdTai"] = info.midpoint_mjd_tai
        rows["timeProcessedMjdTai"] = first.stamp.time_processed_mjd_tai
        for name in self.config.associate.new_object_bad_flags:
            rows[name] = 0
        rows["reliability"] = 0.9
        return rows


class MeasuredCompute(DetectorCompute):
    """Computes readouts of a dataset with a profile (:mod:`benchmarks.scale.reduced`)."""

    def __init__(self, settings: Settings, loader: BundleLoader, claims: Claims | None) -> None:
        super().__init__(settings, loader, claims)
        plain = self.pipeline
        self._staging = Pipeline(load_camera(STAGED_CAMERA), plain.config, plain.clock)
        self._measured = MeasuredPipeline(plain.camera, plain.config, plain.clock)
        self._measured.profile = Profile.read(settings.dataset)
        self.pipeline = self._measured

    def warm_up(self) -> None:
        """One made-up visit of the small camera through everything: its frames serve all others."""
        first, _ = measured_visit(self._staging.camera, self._staging, 0)
        result = self._staging.finish(first)
        self._staging.light_curve_features(first, result)
        assert first.subtraction is not None
        build_alerts(result, first.subtraction.past, AlertContext(wcs=first.exposure.wcs))
        self._measured.stage = first
        self._loader.warm_up()

    def _read_raw(self, readout: Readout, deadline_monotonic_s: float) -> RawExposure:
        """What the event says of the visit; the time of the raw's reading."""
        name, wall_s, _ = self._measured.profile.pick(readout.visit, readout.detector).pixels()[0]
        assert name == "read"
        time.sleep(wall_s)
        info = VisitInfo(
            instrument=readout.instrument,
            group=readout.group,
            visit=readout.visit,
            detector=readout.detector,
            band=readout.band,
            exposure_start_mjd_tai=unix_tai_to_mjd_tai(readout.exposure_start_tai_s),
            exposure_end_mjd_tai=unix_tai_to_mjd_tai(readout.exposure_end_tai_s),
            exposure_time_s=readout.exposure_end_tai_s - readout.exposure_start_tai_s,
            ra_deg=readout.ra_deg,
            dec_deg=readout.dec_deg,
            rot_sky_deg=readout.rot_sky_deg,
        )
        return RawExposure(visit_info=info, segments=np.zeros((1, 1, 1), np.int32))


def build(settings: Settings) -> MeasuredCompute:
    """What ``SUB60_COMPUTE`` names."""
    return MeasuredCompute.open(settings)
