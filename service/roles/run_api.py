"""The API process: reads what the workers wrote, answers over HTTP."""

from collections.abc import Callable
from typing import Final

from service import topics
from service.api_state import ApiState
from service.handlers.alerts import alert_routes
from service.handlers.control import ControlDesk, control_routes
from service.handlers.page import page_routes
from service.handlers.schemas import schema_routes
from service.handlers.visits import visit_routes
from service.log.contract import Message, Reader
from service.roles.runner import make_process, open_topics, run_loops, start_http
from service.settings import Settings

POLL_S: Final = 0.5
RECORDS: Final = (topics.MANIFESTS, topics.COMMITTED, topics.DEAD_LETTERS, topics.STATUS, topics.CONTROL)


class FeedLoop:
    """Reads one topic into the state."""

    def __init__(self, reader: Reader, take: Callable[[Message], None]) -> None:
        self._reader = reader
        self._take = take

    def turn(self) -> None:
        """One round."""
        for message in self._reader.poll(POLL_S):
            self._take(message)


def run(settings: Settings) -> int:
    """Run until the stop signal; the exit code."""
    process = make_process("api", settings)
    state = ApiState()
    desk = ControlDesk(process.clock)
    control = control_routes(desk, settings.http_token)
    server = start_http(process, visit_routes(state), alert_routes(state), schema_routes(), page_routes(), control)
    log = open_topics(process)
    desk.open(log.producer())
    loops = {topic: FeedLoop(log.reader(topic), state.take_record).turn for topic in RECORDS}
    loops[topics.ALERTS] = FeedLoop(log.reader(topics.ALERTS, start="latest"), state.take_alert).turn
    process.health.set_ready(True)
    code = run_loops(process, loops)
    server.stop()
    return code
