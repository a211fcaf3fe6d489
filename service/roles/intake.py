"""What a worker takes from the log: its own release's records, and work of another release left where it is."""

from collections.abc import Mapping

import structlog

from core.errors import RejectedInputError
from service.log.contract import Message
from service.metrics import Metrics
from service.records import Prepare, Readout, UnknownFormatError, unpack_any

log = structlog.get_logger()


class Intake:
    """Opens messages. A readout of a format that this release does not read stops its partition here.

    Nothing behind it is taken, so no checkpoint passes it: a worker of the release that reads it goes on from there, as
    soon as it owns the partition. Other partitions go on meanwhile.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._stopped: dict[int, int] = {}
        """Partition → epoch of the tenure in which it was stopped."""

    def open(self, message: Message) -> Prepare | Readout | None:
        """What is to be done for a message; None for nothing, or nothing by this release."""
        try:
            record = unpack_any(message.value)
        except UnknownFormatError as error:
            if error.context["record"] != Prepare.__name__:  # a hint may be lost
                self._stop(message, error)
            return None
        except RejectedInputError as error:
            # Only fan-out writes this topic, so this is no work.
            log.error("unreadable_work", partition=message.partition, offset=message.offset, code=error.code)
            self._metrics.failures.labels(error.code).inc()
            return None
        if isinstance(record, Readout) and self._stopped.get(message.partition) == message.epoch:
            return None
        return record if isinstance(record, Prepare | Readout) else None

    def keep(self, assignment: Mapping[int, int]) -> None:
        """Forget partitions, or tenures, that are no longer ours."""
        self._stopped = {p: epoch for p, epoch in self._stopped.items() if assignment.get(p) == epoch}
        self._metrics.partitions_stopped.set(len(self._stopped))

    def _stop(self, message: Message, error: UnknownFormatError) -> None:
        if self._stopped.get(message.partition) == message.epoch:
            return
        self._stopped[message.partition] = message.epoch
        self._metrics.failures.labels(error.code).inc()
        self._metrics.partitions_stopped.set(len(self._stopped))
        log.error("partition_stopped", partition=message.partition, offset=message.offset, reason=str(error))
