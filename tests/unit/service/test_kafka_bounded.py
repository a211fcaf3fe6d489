"""A call into librdkafka ends in time, and those after it go on."""

import threading

import pytest
from confluent_kafka import KafkaError, KafkaException

from service.log.kafka_bounded import BoundedCalls
from service.log.kafka_wire import error_of


def test_a_call_gives_what_the_function_gives() -> None:
    calls = BoundedCalls()
    assert calls.call(5.0, pow, 2, 5) == 32
    with pytest.raises(ZeroDivisionError):
        calls.call(5.0, lambda: 1 // 0)
    threads = {calls.call(5.0, threading.get_ident) for _ in range(3)}
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    calls.close()


def test_a_call_that_does_not_end_is_a_time_out_and_the_next_one_is_made() -> None:
    calls, release, ended = BoundedCalls(), threading.Event(), threading.Event()

    def hang() -> None:
        release.wait(10.0)
        ended.set()

    with pytest.raises(KafkaException) as caught:
        calls.call(0.05, hang)
    assert error_of(caught.value).code() == KafkaError._TIMED_OUT
    assert calls.call(5.0, pow, 2, 3) == 8
    assert not ended.is_set()
    release.set()
    assert ended.wait(5.0)
    calls.close()
