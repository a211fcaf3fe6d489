"""Fan-out: checks events from outside and turns each into work, one record a detector. At least once."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog

from core.camera import Camera
from core.errors import RejectedInputError
from service import topics
from service.clock import Clock
from service.events import (
    ICRS,
    ROTATION_SKY,
    NextVisit,
    NextVisitCanceled,
    ReadoutEvent,
    check_camera,
    object_keys,
    parse_event,
    parse_json,
)
from service.log.contract import Message, Record
from service.metrics import Metrics
from service.records import DeadLetter, Prepare, Readout, pack
from service.roles.commit_records import MAX_PAYLOAD_BYTES

SIDECAR_TRIES: Final = 20
SIDECAR_WAIT_S: Final = 0.1

log = structlog.get_logger()


class FanOut:
    """What becomes of one event: records for the work topic, or a dead letter.

    Parameters
    ----------
    partitions : of the work topic; a detector always goes to partition ``detector mod partitions``.
    root : folder in which the objects of notifications lie, with their JSON sidecars.
    switched_off : detectors for which nothing is prepared; their readouts are work, which the worker answers at once.
    """

    def __init__(
        self,
        camera: Camera,
        partitions: int,
        root: Path,
        clock: Clock,
        metrics: Metrics,
        sleep: Callable[[float], None] = time.sleep,
        switched_off: frozenset[int] = frozenset(),
    ) -> None:
        self._camera = camera
        self._switched_off = switched_off
        self._partitions = partitions
        self._root = root
        self._clock = clock
        self._metrics = metrics
        self._sleep = sleep

    def records(self, message: Message) -> list[Record]:
        """Records to append for one message of an input topic."""
        try:
            value = parse_json(message.value)
            made = self._next_visit(value) if message.topic == topics.NEXT_VISIT else self._readout(value)
        except RejectedInputError as error:
            self._metrics.events.labels(message.topic, "rejected").inc()
            self._metrics.dead_letters.labels(error.code).inc()
            self._metrics.failures.labels(error.code).inc()
            log.warning("event_rejected", topic=message.topic, code=error.code, reason=str(error)[:500])
            return [self._dead_letter(message, error)]
        self._metrics.events.labels(message.topic, "accepted").inc()
        return made

    def _next_visit(self, value: dict[str, Any]) -> list[Record]:
        if value.get("canceled") is True:
            canceled = parse_event(NextVisitCanceled, value)
            log.info("next_visit_canceled", group=canceled.group)
            return []
        event = parse_event(NextVisit, value)
        check_camera(event, self._camera)
        if event.coordinate_system != ICRS or event.rotation_system != ROTATION_SKY or not event.band:
            # Nothing can be loaded ahead for such a pointing; its readouts are processed all the same.
            log.info("next_visit_without_sky", group=event.group, filters=event.filters)
            return []
        wanted = set(self._camera.detectors if event.detectors is None else event.detectors)
        detectors = sorted(wanted - self._switched_off)
        log.info("next_visit", group=event.group, band=event.band, n_detectors=len(detectors))
        return [self._work(detector, self._prepare(event, detector)) for detector in detectors]

    def _prepare(self, event: NextVisit, detector: int) -> Prepare:
        return Prepare(
            instrument=self._camera.instrument,
            group=event.group,
            detector=detector,
            band=event.band,
            ra_deg=event.position[0],
            dec_deg=event.position[1],
            rot_sky_deg=event.camera_angle_deg,
            start_tai_s=event.start_tai_s,
            duration_s=event.duration_s,
            issued_tai_s=self._clock.tai_s(),
            visit=event.visit,
        )

    def _readout(self, value: dict[str, Any]) -> list[Record]:
        keys = object_keys(value)
        events = [value] if keys is None else [self._sidecar(key) for key in keys]
        return [self._readout_work(event) for event in events]

    def _readout_work(self, value: dict[str, Any]) -> Record:
        event = parse_event(ReadoutEvent, value)
        check_camera(event, self._camera)
        readout = Readout(
            instrument=self._camera.instrument,
            group=event.group,
            visit=event.visit,
            snap=event.snap,
            n_snaps=event.n_snaps,
            detector=event.detector,
            band=event.band,
            exposure_start_tai_s=event.exposure_start_tai_s,
            exposure_end_tai_s=event.exposure_end_tai_s,
            readout_end_tai_s=event.readout_end_tai_s,
            uri=event.uri,
            ra_deg=event.ra_deg,
            dec_deg=event.dec_deg,
            rot_sky_deg=event.rot_sky_deg,
            received_tai_s=self._clock.tai_s(),
            digest=event.digest,
        )
        return self._work(event.detector, readout)

    def _sidecar(self, key: str) -> dict[str, Any]:
        """The readout event beside an announced object; object stores may show it a moment later."""
        try:
            path = (self._root / key).with_suffix(".json").resolve()
        except (OSError, ValueError) as error:  # no file name in it, a NUL, more links than there may be
            raise RejectedInputError("the key names no file", code="bad_uri", key=key[:200]) from error
        if not path.is_relative_to(self._root.resolve()):
            raise RejectedInputError("the object lies outside the allowed folder", code="bad_uri", key=key[:200])
        for attempt in range(SIDECAR_TRIES):
            try:
                return parse_json(path.read_bytes()) | {"uri": key}
            except (OSError, RejectedInputError) as error:
                cause: Exception = error
            if attempt + 1 < SIDECAR_TRIES:
                self._sleep(SIDECAR_WAIT_S)
        raise RejectedInputError(f"no readable sidecar of {key[:200]}", code="no_sidecar") from cause

    def _work(self, detector: int, record: Prepare | Readout) -> Record:
        return Record(topics.WORK, b"%d" % detector, pack(record), detector % self._partitions)

    def _dead_letter(self, message: Message, error: RejectedInputError) -> Record:
        letter = DeadLetter(
            topic=message.topic,
            partition=message.partition,
            code=error.code,
            message=str(error)[:1000],
            payload=message.value[:MAX_PAYLOAD_BYTES],
            at_tai_s=self._clock.tai_s(),
        )
        return Record(topics.DEAD_LETTERS, message.key or b"event", pack(letter))
