"""Replays a campaign through the whole service: pair after pair, each as soon as the history holds the one before."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from benchmarks.service_process import ServiceProcess
from benchmarks.watch import Follower, sink_lag
from benchmarks.year.campaign import EXPOSURE_S, Campaign, CampaignConfig, Visit
from core.errors import ConfigurationError
from core.timescales import format_tai, mjd_tai_to_unix_tai
from service import topics
from service.audit.report import AuditReport
from service.audit.run import audit
from service.clock import SystemClock
from service.connections import connect_log
from service.log import Log, Record
from service.records import Committed, Heartbeat, Manifest, unpack
from service.roles.archive import APDB, FILES, HISTORY
from service.settings import Settings, read_settings
from service.storage.apdb import ApdbStore, create_apdb

WORKERS: Final = 4
READOUT_S: Final = 2.4
PAIR_LIMIT_S: Final = 120.0
SINKS_LIMIT_S: Final = 900.0
LONG_S: Final = 4e7
"""More than a year: visits of the past are neither late nor old."""


@dataclass(frozen=True, slots=True, kw_only=True)
class YearRun:
    """What came out of a replayed campaign."""

    manifests: dict[tuple[int, int], Manifest]
    committed: dict[tuple[int, int], Committed]
    wall_s: float
    features: list[bytes]
    """What the features topic held at the end."""
    audit: AuditReport
    settings: Settings


def make_dataset(folder: Path, config: CampaignConfig) -> Path:
    """A dataset with nothing but a camera, the campaign and an empty APDB."""
    campaign = Campaign(config)
    folder.mkdir(parents=True, exist_ok=True)
    info = {
        "format": 1,
        "instrument": campaign.camera.instrument,
        "camera": config.camera,
        "tracts": [],
        "release": 1,
    }
    (folder / "dataset.json").write_text(json.dumps(info) + "\n", encoding="utf-8")
    config.write(folder)
    if not (folder / "apdb").exists():
        (folder / "apdb").mkdir()
        create_apdb(f"sqlite:///{(folder / 'apdb' / 'apdb.sqlite').resolve()}", folder / "apdb" / "config.yaml")
    return folder


def replay_year(
    folder: Path, config: CampaignConfig, tell: Callable[[int, str], None], *, workers: int = WORKERS
) -> YearRun:
    """Run the campaign; ``tell`` hears how many visits are done and what is being done.

    Raises :class:`ConfigurationError` where readouts get no outcome in time.
    """
    campaign = Campaign(config)
    service = ServiceProcess(folder / "run", make_dataset(folder / "dataset", config))
    service.prepare()
    settings = service.settings(
        workers=workers,
        partitions=len(config.detectors),
        compute="benchmarks.year.compute:build",
        compute_threads=1,
        deadline_s=LONG_S,
        expire_s=LONG_S,
        clock_suspect_s=LONG_S,
        redis_timeout_ms=2000.0,
        history_base_s=15,
        history_prune_s=10.0,
        alerts_keep_mb=512,
        alert_files_s=2.0,
    )
    tell(0, "starting the service")
    service.start(settings)
    try:
        endpoints = service.wait_ready(lambda _: None)
        settings = settings.model_copy(update={"log_url": endpoints["log_url"]})
        with connect_log(read_settings(), endpoints["log_url"]) as log:
            follower = Follower(log)
            _until(lambda: _busy_workers(log) >= min(workers, len(config.detectors)), PAIR_LIMIT_S, service)
            begin = time.monotonic()
            for _, visits in groupby(campaign.visits, key=lambda visit: visit.pair):
                _one_pair(list(visits), campaign, log, follower, service, tell)
            wall_s = time.monotonic() - begin
            tell(config.visits, "waiting for the sinks")
            _until(
                lambda: all(sink_lag(log, name, topics.RESULTS) == 0 for name in (HISTORY, APDB)),
                SINKS_LIMIT_S,
                service,
            )
            _until(lambda: sink_lag(log, FILES, topics.ALERTS) == 0, SINKS_LIMIT_S, service)
            features = _read_all(log, topics.FEATURES)
            tell(config.visits, "audit")
            found = audit(log, settings, SystemClock(), apdb=ApdbStore(settings.apdb_config), settle_s=0.0)
            follower.turn(0.2)
            progress = follower.progress
            follower.close()
    finally:
        service.stop()
    return YearRun(
        manifests=progress.manifests,
        committed=progress.committed,
        wall_s=wall_s,
        features=features,
        audit=found,
        settings=settings,
    )


def readout_events(campaign: Campaign, visit: Visit) -> Iterator[dict[str, Any]]:
    """Readout events of a visit."""
    middle = mjd_tai_to_unix_tai(visit.mjd_tai)
    for detector in campaign.config.detectors:
        yield {
            "instrument": campaign.camera.instrument,
            "group": f"year-{visit.visit}",
            "visit": visit.visit,
            "detector": detector,
            "band": visit.band,
            "exposure_start_tai": format_tai(middle - EXPOSURE_S / 2),
            "exposure_end_tai": format_tai(middle + EXPOSURE_S / 2),
            "readout_end_tai": format_tai(middle + EXPOSURE_S / 2 + READOUT_S),
            "uri": f"year/{visit.visit}_{detector}",
            "ra": visit.ra_deg,
            "dec": visit.dec_deg,
            "rot_sky": visit.rot_sky_deg,
        }


def _one_pair(
    visits: list[Visit],
    campaign: Campaign,
    log: Log,
    follower: Follower,
    service: ServiceProcess,
    tell: Callable[[int, str], None],
) -> None:
    """Both visits of a pair at one instant; back when their results are in the history."""
    events = [event for visit in visits for event in readout_events(campaign, visit)]
    # a detector's readouts of both visits go to one worker: the second visit's come first for half of them
    records = [Record(topics.READOUT, event["group"].encode(), json.dumps(event).encode()) for event in events]
    producer = log.producer()
    producer.append(records)
    producer.close()
    keys = {(event["visit"], event["detector"]) for event in events}

    def is_done() -> bool:
        follower.turn(0.02)
        return keys <= set(follower.progress.manifests) and sink_lag(log, HISTORY, topics.RESULTS) == 0

    _until(is_done, PAIR_LIMIT_S, service)
    tell(visits[-1].order + 1, f"{follower.progress.n_alerts():,} alerts")


def _until(is_done: Callable[[], bool], limit_s: float, service: ServiceProcess) -> None:
    give_up_s = time.monotonic() + limit_s
    while not is_done():
        service.check()
        if time.monotonic() > give_up_s:
            raise ConfigurationError(f"not done in {limit_s:g} s: {service.log_tail()}", code="year_stuck")
        time.sleep(0.005)


def _busy_workers(log: Log) -> int:
    """Workers that own partitions, by their last words."""
    beats = (unpack(Heartbeat, value) for value in _read_all(log, topics.STATUS))
    return sum(bool(partitions) for partitions in {beat.worker: beat.partitions for beat in beats}.values())


def _read_all(log: Log, topic: str) -> list[bytes]:
    reader = log.reader(topic)
    values: list[bytes] = []
    while messages := reader.poll(0.3):
        values += [message.value for message in messages]
    reader.close()
    return values
