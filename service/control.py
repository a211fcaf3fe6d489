"""Operators' orders: appended to the control topic, obeyed by every worker, and waited for.

The topic is the state: the last ``hold`` or ``release`` on it says whether alerts are held. It has one partition, so
everybody sees the same order of orders, and it is never trimmed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from core.errors import RejectedInputError
from service import topics
from service.clock import Clock
from service.log.contract import Log, Message, Producer, Reader, Record
from service.records import Control, Heartbeat, Verb, pack, unpack

KEY: Final = b"alerts"
LIVE_S: Final = 7.0
"""A worker that was silent for three heartbeats and a second counts as gone."""
FORGOTTEN_S: Final = 600.0
"""A redrive that did not say in this time that it has ended has died."""
LOOK_BACK: Final = 2000
"""Heartbeats looked at to learn who lives."""
POLL_S: Final = 0.3


@dataclass(slots=True, kw_only=True)
class ControlState:
    """What the orders so far amount to."""

    is_held: bool = False
    reason: str = ""
    who: str = ""
    since_tai_s: float | None = None
    redrive_since_tai_s: float | None = None
    """Somebody sends visits back to work since then."""
    redrive_by: str = ""

    def take(self, order: Control) -> None:
        """Obey one order."""
        if order.verb in (Verb.HOLD, Verb.RELEASE):
            self.is_held = order.verb is Verb.HOLD
            self.reason, self.who, self.since_tai_s = order.reason, order.who, order.at_tai_s
        elif order.verb is Verb.REDRIVE_BEGIN:
            since = self.redrive_since_tai_s
            if since is None or order.at_tai_s - since > FORGOTTEN_S:  # the first wins
                self.redrive_since_tai_s, self.redrive_by = order.at_tai_s, order.who
        elif order.who == self.redrive_by:
            self.redrive_since_tai_s, self.redrive_by = None, ""


def order_of(message: Message) -> Control | None:
    """The order in a message of the control topic; None for one of a version that this process does not read."""
    try:
        return unpack(Control, message.value)
    except RejectedInputError:
        return None


def send_order(producer: Producer, verb: Verb, at_tai_s: float, reason: str, who: str) -> None:
    """Append one order; durable on return."""
    order = Control(verb=verb, at_tai_s=at_tai_s, reason=reason, who=who)
    producer.append([Record(topics.CONTROL, KEY, pack(order))])


def read_control(log: Log) -> tuple[ControlState, int]:
    """The state now, and the offset after the last order."""
    reader = log.reader(topics.CONTROL)
    try:
        position, end = reader.bounds()[0]
        state = ControlState()
        while position < end:
            for message in reader.poll(POLL_S):
                position = message.offset + 1
                if (order := order_of(message)) is not None:
                    state.take(order)
        return state, position
    finally:
        reader.close()


Progress = Callable[[str, int, int], None]


def wait_until_obeyed(
    log: Log, offset: int, clock: Clock, timeout_s: float, progress: Progress
) -> tuple[list[str], list[str]]:
    """Wait until every live worker has read the control topic up to ``offset``.

    Returns the workers that have and those that have not in ``timeout_s``. None of either: no worker lives; one that
    starts later reads the orders before its first commit.
    """
    reader = log.reader(topics.STATUS)
    try:
        reader.seek({p: max(first, end - LOOK_BACK) for p, (first, end) in reader.bounds().items()})
        beats: dict[str, Heartbeat] = {}
        started_s = clock.monotonic_s()
        while True:
            _hear(reader, beats)
            live = {name: beat for name, beat in beats.items() if clock.tai_s() - beat.at_tai_s < LIVE_S}
            obeyed = sorted(name for name, beat in live.items() if beat.control_offset >= offset)
            progress("workers that have obeyed", len(obeyed), len(live))
            waited_s = clock.monotonic_s() - started_s
            is_over = waited_s > timeout_s or (not live and waited_s > LIVE_S)
            if is_over or (live and len(obeyed) == len(live)):
                return obeyed, sorted(live.keys() - set(obeyed))
    finally:
        reader.close()


def _hear(reader: Reader, beats: dict[str, Heartbeat]) -> None:
    messages = reader.poll(POLL_S)
    while messages:
        for message in messages:
            try:
                beat = unpack(Heartbeat, message.value)
            except RejectedInputError:
                continue
            beats[beat.worker] = beat
        messages = reader.poll(0)
