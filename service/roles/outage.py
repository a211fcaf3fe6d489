"""A server that is away, in few words: one line when it goes, one every ten seconds, one when it is back."""

from typing import Final

import structlog

from core.errors import TransientError
from service.clock import Clock
from service.metrics import Metrics

REPEAT_S: Final = 10.0
QUIET_S: Final = 3.0
"""So long after the last failure it is over: a call that merely found nothing to read proves no server."""
MAX_CAUSE: Final = 300
"""Characters of a cause that are logged."""

log = structlog.get_logger()


class Outage:
    """Counts every failed call and logs few of them: what is tried ten times a second would bury the night's log.

    Parameters
    ----------
    where : fields of its lines, such as the loop that failed.
    """

    def __init__(self, clock: Clock, metrics: Metrics, **where: str) -> None:
        self._clock = clock
        self._metrics = metrics
        self._where = where
        self._code = ""
        self._n_failed = 0
        self._since_s = self._last_s = 0.0
        self._said_at_s = 0.0

    def failed(self, error: TransientError) -> None:
        """A call failed."""
        self._metrics.log_errors.inc()
        now = self._clock.monotonic_s()
        if not self._n_failed:
            self._since_s = now
        self._n_failed += 1
        self._last_s = now
        if error.code == self._code and now < self._said_at_s + REPEAT_S:
            return
        self._code, self._said_at_s = error.code, now
        log.warning(
            "transient_error",
            code=error.code,
            reason=str(error),
            cause=root_cause(error),
            n_failed=self._n_failed,
            **self._where,
        )

    def worked(self) -> None:
        """A call came through; after a while without a failure the outage is over."""
        if not self._n_failed or self._clock.monotonic_s() < self._last_s + QUIET_S:
            return
        away_s = round(self._last_s - self._since_s, 1)
        log.info("recovered", code=self._code, n_failed=self._n_failed, away_s=away_s, **self._where)
        self._code, self._n_failed = "", 0


def root_cause(error: BaseException) -> str:
    """What it all began with, shortened: a database layer wraps its driver's words in a page of SQL."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}"[:MAX_CAUSE]
