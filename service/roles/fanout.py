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
    MAX_EVENT_BYTES,
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
from service.storage.places import read_small, resolve_uri

REDRIVEN: Final = "redriven"
"""Header of an event that an operator sent again: it may be old."""
SIDECAR_TRIES: Final = 20
SIDECAR_WAIT_S: Final = 0.1
MAX_OBJECTS: Final = 256
"""Objects of one notification; a focal plane has 189."""

log = structlog.get_logger()


class FanOut:
    """What becomes of one event: records for the work topic, or a dead letter.

    Parameters
    ----------
    partitions : of the work topic; a detector always goes to partition ``detector mod partitions``.
    roots : folders in which the objects of notifications lie, with their JSON sidecars.
    switched_off : detectors for which nothing is prepared; their readouts are work, which the worker answers at once.
    """

    def __init__(
        self,
        camera: Camera,
        partitions: int,
        roots: tuple[Path, ...],
        clock: Clock,
        metrics: Metrics,
        sleep: Callable[[float], None] = time.sleep,
        switched_off: frozenset[int] = frozenset(),
    ) -> None:
        self._camera = camera
        self._switched_off = switched_off
        self._partitions = partitions
        self._roots = roots
        self._clock = clock
        self._metrics = metrics
        self._sleep = sleep

    def records(self, message: Message) -> list[Record]:
        """Records to append for one message of an input topic."""
        try:
            value = parse_json(message.value)
            made = self._next_visit(value) if message.topic == topics.NEXT_VISIT else self._readout(value, message)
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

    def _readout(self, value: dict[str, Any], message: Message) -> list[Record]:
        keys = object_keys(value)
        if keys is not None and len(keys) > MAX_OBJECTS:
            raise RejectedInputError(f"a notification of more than {MAX_OBJECTS} objects", code="bad_event")
        events = [value] if keys is None else self._sidecars(keys)
        return [self._readout_work(event, may_be_old=REDRIVEN in message.headers) for event in events]

    def _readout_work(self, value: dict[str, Any], *, may_be_old: bool) -> Record:
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
            may_be_old=may_be_old,
        )
        return self._work(event.detector, readout)

    def _sidecars(self, keys: list[str]) -> list[dict[str, Any]]:
        """The readout events beside announced objects; an object store may show them a moment later.

        The moment is one for all of them: a notification of many absent ones does not hold the topic up for longer.
        """
        tries_left = SIDECAR_TRIES
        events = []
        for key in keys:
            path = self._sidecar_path(key)
            while True:
                tries_left -= 1
                try:
                    content = read_small(path, self._roots, MAX_EVENT_BYTES)
                    events.append(parse_json(content) | {"uri": key})
                    tries_left += 1
                    break
                except (OSError, RejectedInputError) as error:
                    if tries_left <= 0:
                        message = f"no readable sidecar of {key[:200]}: {error}"
                        raise RejectedInputError(message, code="no_sidecar") from error
                self._sleep(SIDECAR_WAIT_S)
        return events

    def _sidecar_path(self, key: str) -> Path:
        """The sidecar of an object, below the allowed folders whatever its key says."""
        resolve_uri(key, self._roots)
        stem, dot, suffix = key.rpartition(".")
        return resolve_uri(f"{stem if dot and '/' not in suffix else key}.json", self._roots)

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
