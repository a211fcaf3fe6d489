"""How long a worker waits for what may pass: a store that cannot be read, an APDB that is down."""

from typing import Final

from service.roles.commit_records import Attempt

PAUSES_S: Final = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Before an attempt is repeated; the last one again and again."""
LAST_ATTEMPT_S: Final = 10.0
"""So long before the deadline the last attempt begins, which goes without what still cannot be had."""
MIN_RETRIED_S: Final = 5.0
"""Of a readout that is late already, what may pass is waited for so long all the same."""


def is_last(attempt: Attempt) -> bool:
    """Whether time is up."""
    work = attempt.work
    until_s = max(attempt.deadline_monotonic_s - LAST_ATTEMPT_S, work.first_tried_s + MIN_RETRIED_S)
    return work.n_retries > 0 and attempt.started_monotonic_s >= until_s


def pause_s(n_retries: int) -> float:
    """Before the next attempt, after so many [s]."""
    return PAUSES_S[min(n_retries, len(PAUSES_S) - 1)]
