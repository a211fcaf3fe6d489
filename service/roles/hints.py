"""Prepares a worker has seen: until their readout comes or they grow old."""

import structlog

from service.metrics import Metrics
from service.records import Prepare

log = structlog.get_logger()


class Hints:
    """Prepares by (group, detector). A next-visit without a readout ends as a count and an audit line."""

    def __init__(self, expire_s: float, metrics: Metrics) -> None:
        self._expire_s = expire_s
        self._metrics = metrics
        self._prepares: dict[tuple[str, int], Prepare] = {}

    def take(self, prepare: Prepare, now_tai_s: float) -> bool:
        """Remember a prepare; False if it is too old to act on."""
        if is_expired(prepare, self._expire_s, now_tai_s):
            self._metrics.prepares.labels("expired").inc()
            return False
        self._prepares[prepare.group, prepare.detector] = prepare
        self._metrics.prepares.labels("taken").inc()
        return True

    def use(self, group: str, detector: int) -> None:
        """Its readout has come."""
        if self._prepares.pop((group, detector), None) is not None:
            self._metrics.prepares.labels("used").inc()

    def expire(self, now_tai_s: float) -> None:
        """Forget old prepares whose readout never came."""
        while self._prepares:
            prepare = next(iter(self._prepares.values()))  # the oldest: a dict keeps the order of arrival
            if not is_expired(prepare, self._expire_s, now_tai_s):
                return
            del self._prepares[prepare.group, prepare.detector]
            self._metrics.prepares.labels("unused").inc()
            log.info("readout_never_came", group=prepare.group, detector=prepare.detector, band=prepare.band)

    def current(self) -> list[Prepare]:
        """Prepares still waiting for their readout, oldest first."""
        return list(self._prepares.values())


def is_expired(prepare: Prepare, expire_s: float, now_tai_s: float) -> bool:
    """Whether a prepare is too old to act on."""
    # Long exposures announce themselves long before their readout: count from the expected end of exposure.
    return now_tai_s > max(prepare.issued_tai_s, prepare.start_tai_s + prepare.duration_s) + expire_s
