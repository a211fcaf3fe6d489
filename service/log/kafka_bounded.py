"""Calls of librdkafka that end in time, whatever it does.

``send_offsets_to_transaction`` was seen to wait for ever, far beyond the time-out it was given, when the broker died
just as it was called (librdkafka 2.16). The call is then left to its thread, and its producer with it.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from confluent_kafka import KafkaError, KafkaException

_Job = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...]]


class BoundedCalls:
    """Makes calls one at a time in a thread of its own; a thread whose call does not end is replaced."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] | None = None

    def call(self, limit_s: float, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function returns; raises what it raises, or a KafkaException of a time-out after ``limit_s``."""
        if self._jobs is None:
            self._jobs = queue.SimpleQueue()
            threading.Thread(target=_serve, args=(self._jobs,), name="librdkafka", daemon=True).start()
        answer: Future[Any] = Future()
        self._jobs.put((answer, function, arguments))
        try:
            return answer.result(limit_s)
        except FutureTimeoutError:
            self.close()
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"no answer in {limit_s:g} s")) from None

    def close(self) -> None:
        """Let the thread end, when its last call does."""
        if self._jobs is not None:
            self._jobs.put(None)
            self._jobs = None


def _serve(jobs: "queue.SimpleQueue[_Job | None]") -> None:
    while (job := jobs.get()) is not None:
        answer, function, arguments = job
        try:
            answer.set_result(function(*arguments))
        except BaseException as error:  # for whoever waits
            answer.set_exception(error)
        del job, answer, function, arguments  # a producer that was given up goes with them
