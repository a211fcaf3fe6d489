"""What every process of ours does first: logging, signals."""

import logging
import signal
import sys
import threading
from collections.abc import Iterable
from typing import Any

import structlog

from service.masking import mask_secrets


def configure_logging(level: str, secrets: Iterable[str] = ()) -> None:
    """One JSON object a line on stderr; the event is a fixed name, everything else is a field.

    ``secrets`` are values that no line may hold, wherever they come from: an error's text, a traceback.
    """
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            mask_secrets(secrets),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


def stop_on_signal() -> threading.Event:
    """An event that SIGTERM and SIGINT set. Call from the main thread."""
    stopping = threading.Event()

    def stop(_number: int, _frame: Any) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    return stopping
