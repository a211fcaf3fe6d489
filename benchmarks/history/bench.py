"""What follows the pixels, timed for histories of different depths: association to commit."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import numpy as np
import redis
import sep

from alerts.features import encode_features
from alerts.packet import AlertContext, EncodedPast, build_alerts
from benchmarks.history.scene import Depth, make_history, make_sources
from core.contracts.bundle import Bundle
from core.contracts.catalogs import Catalog
from core.pipeline import FirstHalf, Pipeline
from core.stages.associate import associate, drop_orphans, new_object_claims
from core.stages.past import Past
from service import topics
from service.log import Log, Record
from service.log.contract import Checkpoint, WorkerLog
from service.records import Result, pack
from service.storage.claims import Claims
from service.storage.tables import empty_history

SEED = 5


@dataclass(slots=True, kw_only=True)
class Timed:
    """Wall seconds of each step, round by round, and R beside them."""

    steps: dict[str, list[float]] = field(default_factory=dict)
    reference_wall_s: list[float] = field(default_factory=list)
    n_alerts: int = 0
    alert_bytes: int = 0
    encode_wall_s: float = 0.0
    """Of the base, before the pixels: not on the clock."""
    after_commit_wall_s: list[float] = field(default_factory=list)
    """Light-curve features: no alert waits for them."""

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time one step of a round."""
        begin = time.perf_counter()
        yield
        self.steps.setdefault(name, []).append(time.perf_counter() - begin)

    @property
    def wall_s(self) -> float:
        """Median of all steps together."""
        return median(map(sum, zip(*self.steps.values(), strict=True)))

    @property
    def wall_ratio(self) -> float:
        """The same in units of R."""
        rounds = list(map(sum, zip(*self.steps.values(), strict=True)))
        return median(wall / reference for wall, reference in zip(rounds, self.reference_wall_s, strict=True))

    def medians(self) -> dict[str, float]:
        """Of each step."""
        return {name: median(walls) for name, walls in self.steps.items()}


class AfterThePixels:
    """One measured visit, finished again and again with other histories."""

    def __init__(self, pipeline: Pipeline, first: FirstHalf, bundle: Bundle, log: Log, client: "redis.Redis[bytes]"):
        self._pipeline, self._first, self._bundle = pipeline, first, bundle
        self._client = client
        self._claims = Claims(client)
        self._log = log
        self._worker: WorkerLog = log.join("history-bench", topics.WORK, 0)
        while not self._worker.assignment():
            self._worker.poll(0.1)
        self._partition = min(self._worker.assignment())
        before = self._worker.checkpoint(self._partition)
        self._offset = 1 + (before.offset if before is not None else 0)

    def time(self, depth: Depth, n_rounds: int, advance: Callable[[], None]) -> Timed:
        """Rounds of one depth, R before each."""
        assert self._first.subtraction is not None
        rng = np.random.default_rng(SEED)
        sources = make_sources(self._first, depth, rng)
        history = make_history(self._first, sources, depth, rng)
        bundle = replace(self._bundle, history=history)
        begin = time.perf_counter()
        encoded = EncodedPast.of(history)
        timed = Timed(encode_wall_s=time.perf_counter() - begin)
        image = self._first.exposure.frame.image
        for _ in range(n_rounds + 1):
            self._client.flushall()
            self._worker.poll(0.0)  # a member that never polls is taken for dead
            begin = time.perf_counter()
            sep.Background(image, bw=128, bh=128)
            timed.reference_wall_s.append(time.perf_counter() - begin)
            self._round(timed, sources, bundle, encoded)
            advance()
        timed.reference_wall_s.pop(0)  # the first round warms up
        for walls in timed.steps.values():
            walls.pop(0)
        return timed

    def _round(self, timed: Timed, sources: Catalog, bundle: Bundle, encoded: EncodedPast) -> None:
        first, pipeline, config = self._first, self._pipeline, self._pipeline.config
        info = first.exposure.visit_info
        assert first.subtraction is not None
        with timed.step("associate"):
            past = Past(bundle.history, bundle.history_index, empty_history(), info)
            association = associate(sources, past.dia_objects, bundle.ephemerides, info, config.associate)
            kept, association = drop_orphans(sources, association)
            claims = new_object_claims(kept, association, config.associate)
        with timed.step("claim"):
            answered = self._claims.claim(f"{info.visit}:{info.detector}", claims.ra, claims.dec, claims.proposed_id)
        subtraction = replace(first.subtraction, sources=kept, association=association, claims=claims, past=past)
        first = replace(first, subtraction=subtraction)
        with timed.step("finish"):
            result = pipeline.finish(first, answered)
        with timed.step("package"):
            packets = build_alerts(result, past, AlertContext(wcs=first.exposure.wcs), None, encoded)
            record = pack(
                Result(
                    visit=info.visit, detector=info.detector, band=info.band, outcome=result.outcome,
                    midpoint_mjd_tai=info.midpoint_mjd_tai, processed_mjd_tai=info.midpoint_mjd_tai,
                    dia_sources=result.dia_sources, dia_objects=result.dia_objects,
                    dia_forced_sources=result.dia_forced_sources, ss_sources=result.ss_sources,
                )
            )  # fmt: skip
        with timed.step("commit"):
            records = [Record(topics.ALERTS, b"%d" % number, packet) for number, packet in packets]
            records.append(Record(topics.RESULTS, b"", record))
            self._worker.commit(self._partition, Checkpoint(offset=self._offset), records)
        self._offset += 1
        begin = time.perf_counter()
        encode_features(pipeline.light_curve_features(first, result))
        timed.after_commit_wall_s.append(time.perf_counter() - begin)
        timed.n_alerts, timed.alert_bytes = len(packets), sum(len(packet) for _, packet in packets)
        for topic in (topics.ALERTS, topics.RESULTS):
            self._log.trim(topic, 0, ())


def as_report(timed: Timed) -> dict[str, Any]:
    """One line of the report."""
    return {
        "post_pixel_wall_s": timed.wall_s,
        "wall_ratio": timed.wall_ratio,
        "steps_wall_s": timed.medians(),
        "alerts": timed.n_alerts,
        "alert_bytes": timed.alert_bytes,
        "encode_ahead_wall_s": timed.encode_wall_s,
        "after_commit_wall_s": median(timed.after_commit_wall_s),
    }
