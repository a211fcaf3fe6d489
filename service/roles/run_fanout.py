"""The fan-out process: one loop per input topic."""

from typing import Final

from service import topics
from service.failpoints import Failpoint, reach
from service.log import Log, Record
from service.roles.fanout import FanOut
from service.roles.runner import Process, make_process, open_topics, run_loops, start_http
from service.settings import Settings, allowed_roots, switched_off
from service.storage.datastore import Datastore

NAME: Final = "fanout"
POLL_S: Final = 0.5


class InputLoop:
    """Reads one input topic, appends work, then stores how far it came.

    What was read is kept until the log has its work: a reader does not give the same messages twice.
    """

    def __init__(self, log: Log, topic: str, fan_out: FanOut, poll_s: float = POLL_S) -> None:
        self._reader = log.reader(topic, name=NAME)
        self._producer = log.producer()
        self._fan_out = fan_out
        self._poll_s = poll_s
        self._waiting: list[Record] | None = None
        """Work of what was read last and may not be in the log yet."""

    def turn(self) -> None:
        """One round; a crash or a lost reply of append repeats records, which the worker recognizes."""
        if self._waiting is None:
            messages = self._reader.poll(self._poll_s)
            if not messages:
                return
            reach(Failpoint.FANOUT_POLLED)
            self._waiting = [record for message in messages for record in self._fan_out.records(message)]
        self._producer.append(self._waiting)
        self._waiting = None
        reach(Failpoint.FANOUT_APPENDED)
        self._reader.commit()
        reach(Failpoint.FANOUT_COMMITTED)


def run(settings: Settings) -> int:
    """Run until the stop signal; the exit code."""
    process = make_process("fanout", settings)
    server = start_http(process)
    log = open_topics(process)
    fan_out = _make_fan_out(process)
    loops = {topic: InputLoop(log, topic, fan_out).turn for topic in topics.INPUTS}
    process.health.set_ready(True)
    code = run_loops(process, loops)
    server.stop()
    return code


def _make_fan_out(process: Process) -> FanOut:
    settings = process.settings
    camera = Datastore(settings.dataset).camera
    off = switched_off(settings)
    roots = allowed_roots(settings)
    return FanOut(camera, settings.partitions, roots, process.clock, process.metrics, switched_off=off)
