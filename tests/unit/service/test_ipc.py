"""The channel between worker and child."""

import socket
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from core.errors import Outcome
from service.answers import Answer, decode_answer, encode_answer
from service.ipc import Channel, ChannelClosedError


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    a, b = (Channel(sock) for sock in socket.socketpair())
    yield a, b
    a.close()
    b.close()


def test_message_and_blobs_arrive(ends: tuple[Channel, Channel]) -> None:
    a, b = ends
    big = np.arange(1 << 20, dtype=np.int32)
    a.send({"op": "x", "n": [1, 2]}, (big.tobytes(), b"", b"abc"))
    message, blobs = b.receive()
    assert message == {"op": "x", "n": [1, 2]}
    assert [bytes(blob) for blob in blobs] == [big.tobytes(), b"", b"abc"]


def test_messages_keep_their_order_and_size(ends: tuple[Channel, Channel]) -> None:
    a, b = ends
    thread = threading.Thread(target=lambda: [a.send({"i": i, "pad": b"x" * (i * 5000)}) for i in range(100)])
    thread.start()
    assert [b.receive()[0]["i"] for _ in range(100)] == list(range(100))
    thread.join()


def test_the_end_is_noticed(ends: tuple[Channel, Channel]) -> None:
    a, b = ends
    a.close()
    with pytest.raises(ChannelClosedError):
        b.receive()
    with pytest.raises(ChannelClosedError):
        b.send({"op": "x"})


def test_garbage_ends_the_conversation() -> None:
    raw, sock = socket.socketpair()
    channel = Channel(sock)
    raw.sendall(b"\xff" * 64)
    with pytest.raises(ChannelClosedError):
        channel.receive()
    raw.close()
    channel.close()


def test_answer_crosses_the_channel(ends: tuple[Channel, Channel]) -> None:
    a, b = ends
    ids = np.array([5, 7], np.int64)
    answer = Answer(
        outcome=Outcome.ALERTS,
        counts={"n_sent": np.int64(2)},  # type: ignore[dict-item]
        summary={"zp": np.float32(1.5)},  # type: ignore[dict-item]
        timings=(("isr", 0.1, 0.2),),
        alert_ids=ids,
        alerts=(b"one", b"three"),
    )
    a.send(*encode_answer(9, answer, 1.0, 0.9))
    delivery = decode_answer(*b.receive())
    assert (delivery.generation, delivery.outcome, delivery.counts) == (9, Outcome.ALERTS, {"n_sent": 2})
    assert delivery.alert_ids.tolist() == [5, 7]
    assert [bytes(alert) for alert in delivery.alerts] == [b"one", b"three"]


def test_an_answer_without_alerts(ends: tuple[Channel, Channel]) -> None:
    a, b = ends
    a.send(*encode_answer(1, Answer(outcome=Outcome.BAD_RAW, code="truncated"), 1.0, 0.9))
    delivery = decode_answer(*b.receive())
    assert (delivery.alerts, bytes(delivery.result), delivery.code) == ((), b"", "truncated")
