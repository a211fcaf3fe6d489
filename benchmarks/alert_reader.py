"""An independent reader of the alerts topic: its own connections, its own decoding, its own counts.

It shares nothing with the service but the names under which the log keeps a topic.
"""

import io
import struct
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import fastavro
import numpy as np
import redis
from fastavro.schema import load_schema

from alerts.check import check_alert
from alerts.schema import NAMESPACE, SCHEMA_ID, schema_folder
from core.errors import RejectedInputError
from service.access import NOBODY, Access
from service.log.kafka_security import security_settings
from service.records import Manifest
from service.redis_access import client_options
from service.roles.commit_records import id_digest

_LENGTH: Final = struct.Struct("<I")
_FITS_BLOCK: Final = 2880
_CUTOUTS: Final = ("cutoutDifference", "cutoutScience", "cutoutTemplate")
_STREAM: Final = "sub60:log:stream:alerts:0"
MANY_NON_NULL: Final = 0.95


class Source(Protocol):
    """Raw values of the alerts topic from the moment of its making on."""

    def read(self, timeout_s: float) -> list[bytes]:
        """Next values; empty after the timeout."""

    def close(self) -> None:
        """Release connections."""


class RedisSource:
    """The alerts stream of the embedded log, by plain XREAD."""

    def __init__(self, url: str, access: Access) -> None:
        make: Any = redis.Redis.from_url
        self._client: Any = make(url, protocol=2, **client_options(url, access))
        last = self._client.xrevrange(_STREAM, count=1)
        self._last: bytes = last[0][0] if last else b"0-0"

    def read(self, timeout_s: float) -> list[bytes]:
        """Next values of the stream."""
        answer = self._client.xread({_STREAM: self._last}, count=200, block=max(1, int(timeout_s * 1000)))
        entries = answer[0][1] if answer else []
        if entries:
            self._last = entries[-1][0]
        return [fields[b"v"] for _, fields in entries]

    def close(self) -> None:
        """Release the connection."""
        self._client.close()


class KafkaSource:
    """The alerts topic on Kafka, committed transactions only."""

    def __init__(self, bootstrap: str, security: Mapping[str, Any], topic: str = "alerts") -> None:
        from confluent_kafka import Consumer, TopicPartition

        self._consumer = Consumer(
            {
                **security,
                "bootstrap.servers": bootstrap,
                "group.id": "sub60-independent-reader",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
            }
        )
        partitions = self._consumer.list_topics(topic, timeout=10).topics[topic].partitions
        ends = []
        for number in partitions:
            _, end = self._consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10)
            ends.append(TopicPartition(topic, number, end))
        self._consumer.assign(ends)

    def read(self, timeout_s: float) -> list[bytes]:
        """Next values of all partitions."""
        messages = self._consumer.consume(200, timeout_s)
        return [value for message in messages if not message.error() and (value := message.value()) is not None]

    def close(self) -> None:
        """Leave."""
        self._consumer.close()


def open_source(log_url: str, access: Access = NOBODY) -> Source:
    """The alerts of a log at ``redis://…``, ``unix://…`` or ``kafka://…``."""
    if log_url.startswith("kafka://"):
        bootstrap = urlsplit(log_url).netloc
        return KafkaSource(bootstrap, security_settings(bootstrap, access, {}))
    return RedisSource(log_url, access)


class AlertSpool:
    """Takes alerts in a thread as they come and keeps them in a file: decoding waits until nobody is timed."""

    def __init__(self, source: Source, path: Path) -> None:
        self._source = source
        self.path = path
        self.n_alerts = 0
        self.n_bytes = 0
        self.error: BaseException | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alert-spool", daemon=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with self.path.open("wb") as file:
                while True:
                    is_last = self._stopping.is_set()
                    values = self._source.read(0.2)
                    for value in values:
                        file.write(_LENGTH.pack(len(value)))
                        file.write(value)
                        self.n_alerts += 1
                        self.n_bytes += len(value)
                    if is_last and not values:
                        return
        except BaseException as error:  # carried over to the thread that asks
            self.error = error

    def close(self) -> None:
        """Read what is still there, then stop; raises what went wrong in the thread."""
        self._stopping.set()
        self._thread.join()
        with suppress(Exception):
            self._source.close()
        if self.error is not None:
            raise self.error


def read_spool(path: Path) -> Iterator[bytes]:
    """The alerts of a spool file."""
    with path.open("rb") as file:
        while head := file.read(_LENGTH.size):
            yield file.read(_LENGTH.unpack(head)[0])


@dataclass(slots=True)
class AlertTally:
    """What the alerts of a run amount to."""

    n_consumed: int = 0
    n_bytes: int = 0
    n_invalid: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    ids: Counter[int] = field(default_factory=Counter)
    by_detector: dict[tuple[int, int], set[int]] = field(default_factory=lambda: defaultdict(set))
    non_null: Counter[str] = field(default_factory=Counter)
    n_previous: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Alerts with at least one previous source, by (visit, detector)."""
    n_with_year: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Alerts with 40 previous sources and 60 forced sources or more."""

    def add(self, value: bytes) -> None:
        """Decode, check and count one alert."""
        self.n_consumed += 1
        self.n_bytes += len(value)
        try:
            record = decode(value)
            check_alert(record)
            _check_cutouts(record)
        except (RejectedInputError, ValueError, EOFError, IndexError, struct.error) as error:
            self.n_invalid += 1
            self.problems[str(error)[:160]] += 1
            return
        source = record["diaSource"]
        key = (source["visit"], source["detector"])
        self.ids[record["diaSourceId"]] += 1
        self.by_detector[key].add(record["diaSourceId"])
        self.non_null.update(name for name, item in source.items() if item is not None)
        previous, forced = record.get("prvDiaSources") or (), record.get("prvDiaForcedSources") or ()
        self.n_previous[key] += bool(previous)
        self.n_with_year[key] += len(previous) >= 40 and len(forced) >= 60

    def counts(self, manifests: Iterable[Manifest], n_readouts: int) -> dict[str, Any]:
        """The report's ``alerts`` section: what manifests promise against what was seen.

        ``n_readouts`` distinct readouts were announced; one without a manifest is lost.
        """
        promised = {(m.visit, m.detector): m for m in manifests if m.outcome.value != "duplicate"}
        lost = max(0, n_readouts - len(promised))
        mismatches = 0
        for key, manifest in promised.items():
            seen = self.by_detector.get(key, set())
            lost += max(0, manifest.n_alerts - len(seen))
            mismatches += bool(manifest.n_alerts) and manifest.id_digest != _digest(seen)
        n_valid = self.n_consumed - self.n_invalid
        n_years = [self.n_with_year[key] for key in promised]
        return {
            "published": sum(manifest.n_alerts for manifest in promised.values()),
            "consumed": self.n_consumed,
            "unique": len(self.ids),
            "duplicates": n_valid - len(self.ids),
            "lost": lost,
            "invalid": self.n_invalid,
            "bytes_mean": self.n_bytes / self.n_consumed if self.n_consumed else 0.0,
            "unannounced": len(set(self.by_detector) - set(promised)),
            "id_digest_mismatches": mismatches,
            "with_previous_sources": sum(self.n_previous.values()),
            "with_year_of_history_min": min(n_years, default=0),
            "problems": dict(self.problems.most_common(5)),
        }

    def columns(self) -> dict[str, Any]:
        """diaSource's columns that are not null in at least 95 % of the valid alerts."""
        n_valid = self.n_consumed - self.n_invalid
        often = sorted(name for name, n in self.non_null.items() if n_valid and n >= MANY_NON_NULL * n_valid)
        total = len(_record_fields("diaSource"))
        return {"non_null_95": len(often), "of": total, "names": often}


def decode(value: bytes) -> dict[str, Any]:
    """One framed alert by fastavro and the published schema; every byte must be used."""
    head = struct.Struct(">bi")
    if len(value) < head.size or head.unpack_from(value) != (0, SCHEMA_ID):
        raise ValueError("not framed with the schema's id")
    body = io.BytesIO(value[head.size :])
    record = fastavro.schemaless_reader(body, _schema(), None)
    if body.read(1):
        raise ValueError("bytes behind the record")
    if not isinstance(record, dict):
        raise ValueError("not a record")
    return record


_SCHEMAS: Final[dict[str, Any]] = {}


def _schema() -> Any:
    if "alert" not in _SCHEMAS:
        _SCHEMAS["alert"] = load_schema(schema_folder() / f"{NAMESPACE}.alert.avsc")
    return _SCHEMAS["alert"]


def _record_fields(name: str) -> list[str]:
    return [item["name"] for item in load_schema(schema_folder() / f"{NAMESPACE}.{name}.avsc")["fields"]]


def _check_cutouts(record: dict[str, Any]) -> None:
    """Cutouts that are there look like FITS: first keyword, whole blocks."""
    for name in _CUTOUTS:
        data = record.get(name)
        if data is not None and (not data.startswith(b"SIMPLE  =") or len(data) % _FITS_BLOCK):
            raise ValueError(f"{name} is no FITS file")


def _digest(ids: set[int]) -> str:
    return id_digest(np.array(sorted(ids), np.int64))
