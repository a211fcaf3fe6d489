"""One tree of errors, sorted by what the worker does next.

::

    Sub60Error
    ├── RejectedInputError      dead letter with cause and payload; commit; go on
    ├── UnusableDataError       an outcome of the visit-detector (see Outcome); commit; go on
    ├── TransientError          retry with backoff inside the deadline; wraps its cause
    ├── DeadlineExceededError   drop optional work; send late rather than never
    └── ConfigurationError      refuse to start

Anything else is a bug: crash with a nonzero exit and let redelivery do the work again.
"""

from enum import StrEnum


class Outcome(StrEnum):
    """What became of one readout: a closed set, used as metric label and wire value."""

    ALERTS = "alerts"
    NO_TEMPLATE = "no_template"
    ASTROMETRY_FAILED = "astrometry_failed"
    BAD_SUBTRACTION = "bad_subtraction"
    BAD_RAW = "bad_raw"
    REJECTED = "rejected"
    UNSUPPORTED = "unsupported"
    DUPLICATE = "duplicate"
    EXPIRED = "expired"
    HELD = "held"
    CRASHED = "crashed"


class Sub60Error(Exception):
    """Base of all errors this project raises on purpose.

    ``code`` comes from a closed set (it is a metric label and goes on the wire); ``context`` is logged as fields.
    """

    code: str = "error"

    def __init__(self, message: str, *, code: str | None = None, **context: object) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code
        self.context = context


class RejectedInputError(Sub60Error):
    """The input breaks its contract: it can never be processed."""

    code = "rejected_input"


class UnusableDataError(Sub60Error):
    """The input is well formed but the data cannot give alerts; ``outcome`` says which way it failed."""

    code = "unusable_data"

    def __init__(self, message: str, *, outcome: Outcome, code: str | None = None, **context: object) -> None:
        super().__init__(message, code=code or outcome.value, **context)
        self.outcome = outcome


class TransientError(Sub60Error):
    """A dependency failed in a way that may pass; raise it ``from`` its cause."""

    code = "transient"


class DeadlineExceededError(Sub60Error):
    """The 60-second clock ran out."""

    code = "deadline_exceeded"


class ConfigurationError(Sub60Error):
    """The service cannot run as configured."""

    code = "configuration"
