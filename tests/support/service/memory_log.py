"""A log of one partition a topic in the test's memory: appended to, trimmed, read, with offsets under names."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from service.log.contract import LogUnavailable, Message, Record


class MemoryLog:
    """``time_ms`` is the server's clock: stamped on what is appended."""

    def __init__(self, time_ms: int = 0) -> None:
        self.time_ms = time_ms
        self.is_away = False
        self.topics: dict[str, list[Message]] = {}
        self.begins: dict[str, int] = {}
        self.offsets: dict[tuple[str, str], dict[int, int]] = {}

    def append(self, records: Sequence[Record]) -> None:
        """As a producer."""
        for record in records:
            held = self.topics.setdefault(record.topic, [])
            held.append(Message(record.topic, 0, len(held), record.key, record.value, record.headers, self.time_ms))

    def drop(self, topic: str, index: int) -> None:
        """Take one record out, as if it had never been there."""
        del self.topics[topic][index]

    def cut(self, topic: str, n: int) -> None:
        """Trim the oldest ``n`` records."""
        self.begins[topic] = n

    def producer(self) -> "MemoryLog":
        """This."""
        return self

    def reader(
        self, topic: str, *, name: str | None = None, start: Literal["earliest", "latest"] = "earliest"
    ) -> "MemoryReader":
        """A reader."""
        return MemoryReader(self, topic, name, start)

    def trim(self, topic: str, max_bytes: int, sinks: Iterable[str]) -> int:
        """Nothing."""
        return 0

    def close(self) -> None:
        """Nothing to close."""


class MemoryReader:
    """As a log's reader."""

    def __init__(self, log: MemoryLog, topic: str, name: str | None, start: str) -> None:
        self._log, self._topic, self._name = log, topic, name
        first, end = self.bounds()[0]
        self._position = self.committed().get(0, end if start == "latest" else first)

    def poll(self, timeout_s: float, max_messages: int = 500) -> list[Message]:
        """What there is from the position on."""
        if self._log.is_away:
            raise LogUnavailable("away")
        held = self._log.topics.get(self._topic, [])
        start = max(self._position, self._log.begins.get(self._topic, 0))
        found = [m for m in held if m.offset >= start][:max_messages]
        if found:
            self._position = found[-1].offset + 1
        return found

    def commit(self, offsets: Mapping[int, int] | None = None) -> None:
        """Store."""
        assert self._name is not None
        self._log.offsets[self._name, self._topic] = dict(offsets or {0: self._position})

    def committed(self) -> dict[int, int]:
        """Stored."""
        return self._log.offsets.get((self._name or "", self._topic), {})

    def seek(self, offsets: Mapping[int, int]) -> None:
        """Go on there."""
        self._position = offsets.get(0, self._position)

    def bounds(self) -> dict[int, tuple[int, int]]:
        """Oldest held, next."""
        held = self._log.topics.get(self._topic, [])
        return {0: (self._log.begins.get(self._topic, 0), held[-1].offset + 1 if held else 0)}

    def offsets_at(self, timestamp_ms: int) -> dict[int, int]:
        """First at or after a time, else next."""
        if self._log.is_away:
            raise LogUnavailable("away")
        first, end = self.bounds()[0]
        held = self._log.topics.get(self._topic, [])
        return {0: next((m.offset for m in held if m.offset >= first and m.timestamp_ms >= timestamp_ms), end)}

    def close(self) -> None:
        """Nothing to close."""
