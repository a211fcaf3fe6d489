"""The whole focal plane on measured times: fan-out, bundles, commits, manifests and sinks at full rate, audited."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from benchmarks.load.limit import LoadStep, step_of
from benchmarks.load.site import ReplayPlan, Site, cadence_of, detectors_of, open_site, planned
from benchmarks.scale.profile import Profile
from benchmarks.scale.reduced import ReducedConfig, write_reduced
from benchmarks.watch import sink_lag
from core.errors import ConfigurationError
from core.timescales import unix_tai_to_mjd_tai
from service import topics
from service.audit.report import AuditReport
from service.audit.run import audit
from service.clock import SystemClock
from service.connections import connect_log
from service.log import Log
from service.roles.archive import APDB, FILES, HISTORY
from service.settings import read_settings
from service.storage.apdb import ApdbStore

WORKERS: Final = 24
VISITS: Final = 20
SINKS_LIMIT_S: Final = 1200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaneRun:
    """What came of it."""

    step: LoadStep
    section: dict[str, Any]
    wrong: list[str]
    audit: AuditReport
    sinks_s: float
    """From the last outcome until every sink had everything."""


def run_plane(
    folder: Path,
    profile: Profile,
    console: Console,
    *,
    visits: int = VISITS,
    workers: int = WORKERS,
    detectors: Sequence[int] = (),
    cadence_s: float | None = None,
) -> PlaneRun:
    """Write the reduced dataset, replay it, wait for the sinks, hold everything against everything."""
    now = unix_tai_to_mjd_tai(SystemClock().tai_s())
    config = ReducedConfig(visits=visits, detectors=tuple(detectors), start_mjd_tai=now)
    dataset = write_reduced(folder / "dataset", config, profile)
    plan = ReplayPlan(dataset=dataset, cadence_s=cadence_s, jitter_s=1.0)
    events = planned(plan)
    with open_site(
        plan, events, folder / "run", console, workers=workers, stages="measured", alert_files_s=2.0
    ) as site:
        load = site.run(plan, events, "readouts of the focal plane")
        step = step_of(load, len(detectors_of(events)), cadence_of(events), site.cores)
        began = time.monotonic()
        with console.status("waiting for the sinks"), connect_log(read_settings(), site.log_url) as log:
            _wait_for_sinks(log, site)
            sinks_s = time.monotonic() - began
            section, wrong = site.collect(load)
            assert site.process is not None
            settings = site.process.settings().model_copy(update={"log_url": site.log_url})
            found = audit(log, settings, SystemClock(), apdb=ApdbStore(settings.apdb_config), settle_s=0.0)
    if not found.is_clean:
        wrong.append(f"the audit is not clean: {found.counts}")
    return PlaneRun(step=step, section=section, wrong=wrong, audit=found, sinks_s=sinks_s)


def _wait_for_sinks(log: Log, site: Site) -> None:
    give_up_s = time.monotonic() + SINKS_LIMIT_S
    for name, topic in ((HISTORY, topics.RESULTS), (APDB, topics.RESULTS), (FILES, topics.ALERTS)):
        while sink_lag(log, name, topic):
            assert site.process is not None
            site.process.check()
            if time.monotonic() > give_up_s:
                raise ConfigurationError(f"the sink {name} is still behind", code="sink_behind")
            time.sleep(0.5)
