"""Whether alerts are held, as a worker knows it: reads the control topic along, without ever waiting for it."""

import structlog

from service.control import ControlState, order_of
from service.log.contract import LogUnavailable, Reader
from service.metrics import Metrics
from service.records import Verb

log = structlog.get_logger()


class AlertSwitch:
    """Orders are obeyed from the next commit on. Until all that stood there at the start is read, nothing is committed.

    Parameters
    ----------
    reader : of the control topic, from its oldest record.
    """

    def __init__(self, reader: Reader, metrics: Metrics) -> None:
        self._reader = reader
        self._metrics = metrics
        self._state = ControlState()
        self.offset, self._end = reader.bounds()[0]
        self._unread: int | None = None
        """First order that this release could not read and that no later one has overruled."""

    @property
    def is_held(self) -> bool:
        """Alerts are not sent."""
        return self._state.is_held

    @property
    def obeyed(self) -> int:
        """Offset before which every order is obeyed: what is told to whoever waits for that."""
        return self.offset if self._unread is None else self._unread

    @property
    def is_current(self) -> bool:
        """Everything that stood on the topic at the start is read."""
        return self.offset >= self._end

    def turn(self) -> None:
        """Read what has come. A log that is away is no reason to stop: without it nothing is committed either."""
        try:
            messages = self._reader.poll(0)
        except LogUnavailable:
            self._metrics.log_errors.inc()  # the worker's own poll says so
            return
        was_held = self.is_held
        for message in messages:
            self.offset = message.offset + 1
            if (order := order_of(message)) is None:
                log.error("unreadable_order", offset=message.offset)
                self._unread = message.offset if self._unread is None else self._unread
                continue
            self._state.take(order)
            if order.verb in (Verb.HOLD, Verb.RELEASE):  # the last one counts
                self._unread = None
        if messages and self.is_held != was_held:
            log.warning("alerts_held" if self.is_held else "alerts_released", reason=self._state.reason)
        self._metrics.alerts_held.set(self.is_held)
