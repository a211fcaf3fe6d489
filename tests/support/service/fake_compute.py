"""Compute that looks at the raw's URI instead of pixels: what the service around it must get right."""

import os
import signal
import time
from pathlib import Path

from core.contracts.catalogs import DIA_FORCED_SOURCE, DIA_OBJECT, SS_SOURCE, empty_catalog
from core.errors import Outcome, RejectedInputError, TransientError, UnusableDataError
from service.answers import Afterwork, Answer, Job
from service.records import Prepare, Result
from service.settings import Settings
from tests.support.service.small_alerts import MIDPOINT_MJD_TAI, small_alerts, small_sources


class FakeCompute:
    """``ok:N`` gives N alerts, ``storm:N`` N that are held unless redriven; the other URIs fail in the way they say.

    ``until:PATH`` is a bug until there is a file of that name.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._prepared: list[tuple[str, int]] = []
        self._seen: dict[int, float] = {}

    def warm_up(self) -> None:
        """Nothing to compile."""

    def prepare(self, work: Prepare) -> None:
        """Remember the hint."""
        self._prepared.append((work.group, work.detector))

    def process(self, job: Job) -> Answer:
        """Do as the URI says."""
        readout = job.readout
        verb, _, argument = readout.uri.partition(":")
        if verb == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if verb == "hang":
            time.sleep(float(argument))
        if verb == "bug" or (verb == "until" and not Path(argument).exists()):
            raise ValueError("a bug")
        if verb == "reject":
            raise RejectedInputError("no such thing", code="bad_header")
        if verb == "unusable":
            raise UnusableDataError("no stars", outcome=Outcome.ASTROMETRY_FAILED)
        if verb == "transient":
            raise TransientError("not there", code="raw_unreadable")
        if verb == "late":  # there for those who ask again after so many seconds
            self._seen.setdefault(readout.visit, time.monotonic())
            if time.monotonic() < self._seen[readout.visit] + float(argument):
                raise TransientError("not yet", code="raw_unreadable")
        if verb == "lasting" and not job.is_last_attempt:
            raise TransientError("the store is away", code="store_unreadable")
        if verb == "lasting":
            return Answer(outcome=Outcome.NO_TEMPLATE, code="store_unreadable", is_dead_letter=True)
        return self._answer(job, 1 if verb == "until" else int(argument or 0))

    def _answer(self, job: Job, n: int) -> Answer:
        readout = job.readout
        is_storm = readout.uri.startswith("storm:") and not readout.redrive
        outcome = Outcome.HELD if is_storm else Outcome.ALERTS
        sources = small_sources(readout.visit, readout.detector, n)
        alerts = [] if is_storm else small_alerts(sources)
        part = ("calibrations", "memory" if (readout.group, readout.detector) in self._prepared else "cold", "", 8)
        return Answer(
            outcome=outcome,
            code="storm" if is_storm else "",
            counts={"n_detected": n, "n_flagged": 0, "n_sent": len(alerts), "n_withheld": n - len(alerts)},
            summary={"seeing_arcsec": 0.8},
            timings=(("isr", 0.01, 0.01),),
            bundle=(part,),
            alert_ids=sources["diaSourceId"][: len(alerts)],
            alerts=tuple(alerts),
            result=Result(
                visit=readout.visit,
                detector=readout.detector,
                band=readout.band,
                outcome=outcome,
                midpoint_mjd_tai=MIDPOINT_MJD_TAI,
                processed_mjd_tai=job.processed_mjd_tai,
                dia_sources=sources,
                dia_objects=empty_catalog(DIA_OBJECT, 0),
                dia_forced_sources=empty_catalog(DIA_FORCED_SOURCE, 0),
                ss_sources=empty_catalog(SS_SOURCE, 0),
            ),
        )

    def after_answer(self, job: Job) -> Afterwork | None:
        """One object's features, as text; the URI ``sources:n`` has n alerts."""
        return Afterwork(features=((job.readout.visit, b"features"),)) if ":" in job.readout.uri else None

    def cpu_s(self) -> float:
        return time.thread_time()

    def measure_reference(self) -> tuple[float, float] | None:
        """A made-up figure."""
        return 0.1, 0.2


def build(settings: Settings) -> FakeCompute:
    """What ``SUB60_COMPUTE`` names."""
    return FakeCompute(settings)
