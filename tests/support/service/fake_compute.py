"""Compute that looks at the raw's URI instead of pixels: what the service around it must get right."""

import os
import signal
import time

import numpy as np

from core.contracts.catalogs import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, SS_SOURCE, empty_catalog
from core.errors import Outcome, RejectedInputError, TransientError, UnusableDataError
from core.ids import source_ids
from service.answers import Answer, Job
from service.records import Prepare, Result
from service.settings import Settings


class FakeCompute:
    """``ok:N`` gives N alerts; the other URIs fail in the way they say."""

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
        if verb == "bug":
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
        n = int(argument or 0)
        ids = source_ids(1, readout.visit, readout.detector, np.arange(n))
        sources = empty_catalog(DIA_SOURCE, n)
        sources["diaSourceId"] = ids
        part = ("calibrations", "memory" if (readout.group, readout.detector) in self._prepared else "cold", "", 8)
        return Answer(
            outcome=Outcome.ALERTS,
            counts={"n_detected": n, "n_sent": n},
            summary={"seeing_arcsec": 0.8},
            timings=(("isr", 0.01, 0.01),),
            bundle=(part,),
            alert_ids=ids,
            alerts=tuple(b"alert %d" % number for number in ids.tolist()),
            result=Result(
                visit=readout.visit,
                detector=readout.detector,
                band=readout.band,
                outcome=Outcome.ALERTS,
                midpoint_mjd_tai=60000.0,
                processed_mjd_tai=job.processed_mjd_tai,
                dia_sources=sources,
                dia_objects=empty_catalog(DIA_OBJECT, 0),
                dia_forced_sources=empty_catalog(DIA_FORCED_SOURCE, 0),
                ss_sources=empty_catalog(SS_SOURCE, 0),
            ),
        )

    def measure_reference(self) -> tuple[float, float] | None:
        """A made-up figure."""
        return 0.1, 0.2


def build(settings: Settings) -> FakeCompute:
    """What ``SUB60_COMPUTE`` names."""
    return FakeCompute(settings)
