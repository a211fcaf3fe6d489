"""What a compute child runs: raw file and bundle in, alerts and result out."""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import replace
from typing import Final, Self, TypeVar

import numpy as np
import sep
import structlog
from numpy.typing import NDArray

from alerts.features import encode_features
from alerts.packet import AlertContext, AlertFailure, build_alerts
from core.contracts.exposure import RawExposure
from core.contracts.results import DetectorResult
from core.errors import Outcome, RejectedInputError, TransientError, UnusableDataError
from core.kernels.rice import READ_AHEAD, rice_decode
from core.pipeline import FirstHalf, Pipeline
from core.stopwatch import Clock, Stopwatch
from core.warm_up import warm_up
from core.workspace import Workspace
from service.answers import Afterwork, Answer, Job
from service.bundle_keys import prepare_key, readout_key
from service.bundle_loader import BundleLoader
from service.bundles import BundleShelf, Ready
from service.failpoints import Failpoint, reach
from service.pipeline_config import pipeline_config
from service.records import Prepare, Readout, Result
from service.settings import Settings, allowed_roots
from service.storage.claims import Claims
from service.storage.raw import RawLimits, read_raw
from service.storage.recipe import BundleKey

STORM: Final = "storm"
"""Code of a detector-visit with more sources than ``max_dia_sources``."""
TOO_MANY_NEW: Final = "too_many_new_objects"
"""Code of one in which more sources than ``max_new_objects`` match nothing: a wrong WCS or template, most likely."""
RAW_RETRY_S: Final = 0.05
PREPARE_POLL_S: Final = 0.2

T = TypeVar("T")

log = structlog.get_logger()


class DetectorCompute:
    """Computes readouts of one camera; owns all large memory of the child."""

    def __init__(self, settings: Settings, loader: BundleLoader, claims: Claims | None) -> None:
        self._settings = settings
        self._loader = loader
        self._claims = claims
        config = pipeline_config(settings, loader.datastore.info.release)
        clock = Clock(wall=time.perf_counter, cpu=time.thread_time)
        self.pipeline = Pipeline(loader.datastore.camera, config, clock)
        self._limits = RawLimits(roots=allowed_roots(settings), max_bytes=settings.raw_max_mb << 20)
        self._raw_workspace = Workspace()
        self._shelf = BundleShelf(
            loader.load, self._wait_for_prefetch, loader.number, time.monotonic, settings.prepare_expire_s
        )
        self._calls = ThreadPoolExecutor(max_workers=1, thread_name_prefix="redis")
        self._decoder = ThreadPoolExecutor(max_workers=1, thread_name_prefix="decoder")
        self._image: NDArray[np.float32] | None = None
        self._finished: tuple[FirstHalf, DetectorResult] | None = None
        """The visit whose alerts have just been answered."""

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """On the stores and servers that the settings name."""
        loader = BundleLoader.open(settings, is_after_t0=True)
        claims = Claims(loader.bounded_client) if loader.bounded_client is not None else None
        return cls(settings, loader, claims)

    def warm_up(self) -> None:
        """Take a made-up visit through every kernel and buffer."""
        result = warm_up_kernels(self.pipeline)
        self._image = None
        sep.Background(np.ones((256, 256), np.float32), bw=128, bh=128)
        log.info("warmed_up", n_dia_sources=int(result.dia_sources.size), outcome=result.outcome.value)

    def prepare(self, work: Prepare) -> None:
        """Loading thread: bring the bundle of a detector to come into memory."""
        self._shelf.prepare(prepare_key(work))

    def process(self, job: Job) -> Answer:
        """One readout; unusable data is an answer too, with the timings up to there."""
        watch = Stopwatch(self.pipeline.clock)
        try:
            return self._process(job, watch)
        except UnusableDataError as error:
            timings = tuple((t.name, t.wall_s, t.cpu_s) for t in watch.timings)
            return Answer(outcome=error.outcome, code=error.code, message=str(error), timings=timings)

    def after_answer(self, job: Job) -> Afterwork | None:
        """Light-curve features of the alerts just answered; then the bundle makes room for the next one."""
        finished, self._finished = self._finished, None
        try:
            return None if finished is None else self._afterwork(job, *finished)
        finally:
            self._shelf.release()
            self._decoder.submit(self._shelf.decode_ahead)

    def cpu_s(self) -> float:
        """CPU of this thread and of the pipeline's helpers."""
        return self.pipeline.clock.cpu()

    def measure_reference(self) -> tuple[float, float] | None:
        """CPU and wall of SEP's background on the last detector's image: the unit of our performance figures."""
        if self._image is None:
            return None
        cpu, wall = time.thread_time(), time.perf_counter()
        sep.Background(self._image, bw=128, bh=128)
        return time.thread_time() - cpu, time.perf_counter() - wall

    def _process(self, job: Job, watch: Stopwatch) -> Answer:
        readout, key = job.readout, readout_key(job.readout)
        skipped: list[str] = []
        tail = self._calls.submit(self._loader.read_tail, key)
        with watch.stage("read"):
            raw = self._read_raw(readout, job.deadline_monotonic_s)
        reach(Failpoint.CHILD_READ)
        with watch.stage("bundle"):
            ready, missed = self._take_bundle(key, job)
        reach(Failpoint.CHILD_BUNDLE)
        self._image = None
        first = self.pipeline.measure(
            raw,
            ready.bundle,
            tail=lambda: self._bounded(tail, "history_tail", skipped),
            remaining_s=lambda: job.deadline_monotonic_s - time.monotonic(),
            time_processed_mjd_tai=job.processed_mjd_tai,
            stopwatch=watch,
        )
        self._image = first.exposure.frame.image
        reach(Failpoint.CHILD_MEASURED)
        with watch.stage("claim"):
            claimed = self._claim(readout, first, skipped)
        reach(Failpoint.CHILD_CLAIMED)
        result = self.pipeline.finish(first, claimed)
        reach(Failpoint.CHILD_FINISHED)
        answer = self._answer(job, first, result, ready, watch, skipped)
        if missed is not None:
            answer = replace(answer, code=missed.code, message=str(missed), is_dead_letter=True)
        reach(Failpoint.CHILD_PACKAGED)
        return answer

    def _afterwork(self, job: Job, first: FirstHalf, result: DetectorResult) -> Afterwork:
        """Dropped when little of the clock is left: then other readouts are late too."""
        if job.deadline_monotonic_s - time.monotonic() < self.pipeline.config.optional_work_s:
            return Afterwork(features=(), n_dropped=int(result.dia_objects.size))
        watch = Stopwatch(self.pipeline.clock)
        with watch.stage("wide_features"):
            features = encode_features(self.pipeline.light_curve_features(first, result))
        (timing,) = watch.timings
        return Afterwork(features=tuple(features), wall_s=timing.wall_s, cpu_s=timing.cpu_s)

    def _take_bundle(self, key: BundleKey, job: Job) -> tuple[Ready, TransientError | None]:
        """The readout's bundle; at the last attempt one for single-frame products, and why it is no better."""
        try:
            return self._shelf.take(key), None
        except TransientError as error:
            if not job.is_last_attempt:
                raise
            log.warning("single_frame_only", visit=key.visit, detector=key.detector, code=error.code)
            return Ready.of(self._loader.load_single_frame(key), Workspace()), error

    def _read_raw(self, readout: Readout, deadline_monotonic_s: float) -> RawExposure:
        """The raw; one that is announced but not there yet is waited for a moment."""
        give_up_s = min(time.monotonic() + self._settings.raw_wait_s, deadline_monotonic_s)
        camera = self._loader.datastore.camera
        while True:
            try:
                raw = read_raw(readout.uri, camera, self._limits, self._raw_workspace, readout.digest)
            except TransientError as error:
                if time.monotonic() >= give_up_s:
                    raise UnusableDataError(str(error), outcome=Outcome.BAD_RAW, code=error.code) from error
                time.sleep(RAW_RETRY_S)
            else:
                return _checked(raw, readout)

    def _claim(self, readout: Readout, first: FirstHalf, skipped: list[str]) -> NDArray[np.int64] | None:
        """Ids of the new objects after asking who else has just found them; None: our own."""
        claims = first.claims
        if self._claims is None or claims is None or claims.proposed_id.size == 0:
            return None
        owner = f"{readout.visit}:{readout.detector}"
        call = self._calls.submit(self._claims.claim, owner, claims.ra, claims.dec, claims.proposed_id)
        return self._bounded(call, "claims", skipped)

    def _bounded(self, call: "Future[T]", name: str, skipped: list[str]) -> T | None:
        """What a Redis call gave, or None after its time or its failure: the visit goes on without."""
        try:
            return call.result(timeout=self._settings.redis_timeout_ms / 1000)
        except (TransientError, FutureTimeoutError) as error:
            log.warning("redis_skipped", call=name, reason=str(error) or "timed out")
            skipped.append(name)
            return None

    def _answer(
        self,
        job: Job,
        first: FirstHalf,
        result: DetectorResult,
        ready: Ready,
        watch: Stopwatch,
        skipped: list[str],
    ) -> Answer:
        settings, readout = self._settings, job.readout
        failures: list[AlertFailure] = []
        outcome = result.outcome
        packets: list[tuple[int, bytes]] = []
        breaker = "" if readout.redrive else self._breaker(result)
        if outcome is Outcome.ALERTS and breaker:
            outcome = Outcome.HELD
        elif outcome is Outcome.ALERTS:
            with watch.stage("package"):
                context = AlertContext(wcs=first.exposure.wcs, min_reliability=settings.min_reliability)
                assert first.subtraction is not None
                packets = build_alerts(result, first.subtraction.past, context, failures, ready.encoded)
                if self.pipeline.config.wide_features.is_computed:
                    self._finished = first, result
        n_kept = int(result.dia_sources.size)
        n_dropped = len({f.dia_source_id for f in failures} - {dia_source_id for dia_source_id, _ in packets})
        counts = result.counts | {
            "n_low_reliability": n_kept - len(packets) - n_dropped if outcome is Outcome.ALERTS else 0,
            "n_sent": len(packets),
            "n_withheld": n_kept if outcome is Outcome.HELD else 0,
            "n_dropped": n_dropped,
        }
        for failure in failures[:5]:
            log.warning("alert_dropped", dia_source_id=failure.dia_source_id, column=failure.column)
        return Answer(
            outcome=outcome,
            code=breaker if outcome is Outcome.HELD else "",
            counts=counts,
            summary=result.summary,
            timings=tuple((t.name, t.wall_s, t.cpu_s) for t in watch.timings),
            bundle=tuple((part.kind, part.source.value, part.digest, part.nbytes) for part in ready.bundle.parts),
            redis_skipped=tuple(skipped),
            alert_ids=np.array([dia_source_id for dia_source_id, _ in packets], np.int64),
            alerts=tuple(packet for _, packet in packets),
            result=make_result(readout, result, outcome, first, job.processed_mjd_tai) if n_kept else None,
            n_dropped=n_dropped,
        )

    def _breaker(self, result: DetectorResult) -> str:
        """Why the alerts of a visit-detector are held until somebody has looked; empty: they are not."""
        if result.dia_sources.size > self._settings.max_dia_sources:
            return STORM
        return TOO_MANY_NEW if result.counts.get("n_new_objects", 0) > self._settings.max_new_objects else ""

    def _wait_for_prefetch(self, key: BundleKey, is_wanted: threading.Event) -> None:
        """Until prefetch has published the bundle, its readout has come, or its time is over."""
        give_up_s = time.monotonic() + self._settings.prefetch_wait_s
        while not self._loader.is_published(key) and time.monotonic() < give_up_s:
            if is_wanted.wait(PREPARE_POLL_S):
                return


def warm_up_kernels(pipeline: Pipeline) -> DetectorResult:
    """Take a made-up visit from its segments to its packets, and the decoder of raw tiles through one tile."""
    first, result = warm_up(pipeline)
    if first.subtraction is not None:
        build_alerts(result, first.subtraction.past, AlertContext(wcs=first.exposure.wcs))
    status = np.empty(1, np.uint8)
    place = np.zeros(1, np.int64)
    rice_decode(np.zeros(64 + READ_AHEAD, np.uint8), place, place + 64, 32, 32, np.zeros(32, np.int32), status)
    return result


def _checked(raw: RawExposure, readout: Readout) -> RawExposure:
    """Raise unless the file is the one the event speaks of; the event's group is kept."""
    info = raw.visit_info
    for name, of_file, of_event in (
        ("visit", info.visit, readout.visit),
        ("detector", info.detector, readout.detector),
        ("band", info.band, readout.band),
    ):
        if of_file != of_event:
            message = f"the file's {name} is {of_file}, the event's {of_event}"
            raise RejectedInputError(message, code="header_mismatch", field=name)
    return replace(raw, visit_info=replace(info, group=readout.group))


def make_result(
    readout: Readout, result: DetectorResult, outcome: Outcome, first: FirstHalf, processed_mjd_tai: float
) -> Result:
    """The record the archive writes from."""
    return Result(
        visit=readout.visit,
        detector=readout.detector,
        band=readout.band,
        outcome=outcome,
        midpoint_mjd_tai=first.exposure.visit_info.midpoint_mjd_tai,
        processed_mjd_tai=processed_mjd_tai,
        dia_sources=result.dia_sources,
        dia_objects=result.dia_objects,
        dia_forced_sources=result.dia_forced_sources,
        ss_sources=result.ss_sources,
    )


def build(settings: Settings) -> DetectorCompute:
    """What ``SUB60_COMPUTE`` names by default."""
    return DetectorCompute.open(settings)
