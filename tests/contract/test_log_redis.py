"""What the Redis Streams log promises beyond the contract: trimming, refusal when full, late commands, restarts."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.errors import ConfigurationError
from service.embedded import EmbeddedValkey, embedded_servers, log_settings
from service.log import Checkpoint, CommitUnknown, Log, LogUnavailable, Record, open_log
from service.log.redis_scripts import COMMIT
from service.log.redis_streams import RedisLog
from tests.support.log_harness import PARTITIONS, Harness, expected, poll_until, read_until, wait_until
from tests.support.log_proxy import LossyProxy
from tests.support.log_worker import GROUP, after, outputs


@pytest.fixture
def redis_harness(log_server: EmbeddedValkey, short_folder: Path) -> Harness:
    return Harness(log_server.url, short_folder)


def records(topic: str, count: int, size: int = 1000) -> list[Record]:
    return [Record(topic, key=b"", value=bytes(size), partition=i % 2) for i in range(count)]


def test_trim_drops_the_oldest_above_a_size_but_nothing_a_sink_has_not_committed(redis_harness: Harness) -> None:
    log, out = redis_harness.log, redis_harness.out
    log.producer().append(records(out, 100))
    assert log.size_bytes(out) == 100_000
    assert log.trim(out, 40_000, ["files"]) == 0  # the sink has committed nothing yet
    sink = log.reader(out, name="files")
    read_until(sink, 100)
    sink.commit({0: 50, 1: 10})
    assert log.trim(out, 40_000, ["files"]) == 40_000  # 30 of partition 0; of partition 1 only the 10 committed
    assert log.size_bytes(out) == 60_000
    assert sink.bounds() == {0: (30, 50), 1: (10, 50)}
    assert log.trim(out, 60_000, ["files"]) == 0
    sink.commit({1: 50})
    assert log.trim(out, 0, ["files", "other"]) == 0  # "other" has committed nothing
    assert log.trim(out, 0, ["files"]) == 60_000
    log.producer().append(records(out, 2))
    reader = log.reader(out)
    assert [(m.partition, m.offset) for m in sorted(read_until(reader, 2), key=lambda m: m.partition)] == [
        (0, 50),
        (1, 50),
    ]


def test_commit_that_arrives_after_its_outcome_was_decided_changes_nothing(redis_harness: Harness) -> None:
    redis_harness.append_jobs(1)
    server = Path(redis_harness.url.removeprefix("unix://"))
    with LossyProxy(redis_harness.folder / "late.sock", server) as proxy:
        worker: Any = open_log(proxy.url).join(GROUP, redis_harness.work, 0)
        message = next(m for m in poll_until(worker, PARTITIONS) if m.partition == 0)
        commit = (0, after(worker, message), outputs(redis_harness.out, message, 0))
        proxy.arm("delay_request", worker._scripts[COMMIT].sha.encode())
        with pytest.raises(LogUnavailable):
            worker.commit(*commit)
        proxy.release()  # now the lost command reaches the server
        reader = redis_harness.log.reader(redis_harness.out)
        assert reader.poll(0.2) == []
        worker.commit(*commit)
        assert len(read_until(reader, 3)) == 3
        worker.close()


def test_commit_whose_outcome_cannot_be_asked_gives_the_partition_up_and_takes_it_again(
    redis_harness: Harness,
) -> None:
    redis_harness.append_jobs(1)
    server = Path(redis_harness.url.removeprefix("unix://"))
    with LossyProxy(redis_harness.folder / "down.sock", server) as proxy:
        worker: Any = RedisLog(proxy.url, timeout_s=1.0).join(GROUP, redis_harness.work, 0)
        message = next(m for m in poll_until(worker, PARTITIONS) if m.partition == 0)
        proxy.is_down = True
        proxy.arm("lose_reply", worker._scripts[COMMIT].sha.encode())
        with pytest.raises(CommitUnknown):
            worker.commit(0, after(worker, message), outputs(redis_harness.out, message, 0))
        assert 0 not in worker.assignment()
        proxy.is_down = False
        wait_until(lambda: _poll_quietly(worker) and 0 in worker.assignment())
        assert worker.assignment()[0] > message.epoch
        assert worker.checkpoint(0).offset == 1  # it had been committed
        worker.close()


def _appends(log: Log, batch: list[Record]) -> bool:
    try:
        log.producer().append(batch)
    except LogUnavailable:
        return False
    return True


def _poll_quietly(worker: Any) -> bool:
    try:
        worker.poll(0.1)
    except LogUnavailable:
        return False
    return True


def test_full_log_refuses_a_commit_whole(short_folder: Path) -> None:
    with EmbeddedValkey(short_folder / "full", log_settings(16)) as server:
        log = open_log(server.url)
        log.ensure_topics({"work": 1, "out": 2})
        log.producer().append([Record("work", key=b"", value=b"job")])
        worker = log.join(GROUP, "work", 0)
        (message,) = poll_until(worker, 1)
        wait_until(lambda: not _appends(log, records("out", 2, size=1 << 20)))
        sink = log.reader("out", name="files")
        before = sink.bounds()
        with pytest.raises(LogUnavailable):
            worker.commit(0, after(worker, message), records("out", 2, size=1 << 20))
        assert sink.bounds() == before
        assert worker.checkpoint(0) is None
        time.sleep(1.2)  # leases are renewed all the same, and sinks can make room
        sink.commit({partition: end for partition, (_, end) in before.items()})
        assert log.trim("out", 0, ["files"]) > 8 << 20
        worker.poll(0)
        worker.commit(0, after(worker, message), records("out", 2, size=1 << 20))
        worker.close()


def test_killed_server_loses_nothing_and_the_worker_goes_on_when_it_is_back(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path / ("a-long-folder-name" * 6) / "log", log_settings(64)).start()
    harness = Harness(server.url, tmp_path)
    harness.append_jobs(5)
    worker = harness.join()
    reader = harness.log.reader(harness.out)
    for message in poll_until(worker, 5 * PARTITIONS):
        worker.commit(message.partition, after(worker, message), outputs(harness.out, message, 0))
    before = worker.assignment()
    server.kill()
    with pytest.raises(LogUnavailable):
        worker.poll(0.1)
    with pytest.raises(LogUnavailable):
        harness.append_jobs(1, start=5)
    server.start()
    harness.append_jobs(5, start=5)
    for message in poll_until(worker, 5 * PARTITIONS):
        worker.commit(message.partition, after(worker, message), outputs(harness.out, message, 0))
    assert worker.assignment() == before
    assert sorted(m.value for m in read_until(reader, len(expected(10)))) == expected(10)
    worker.close()
    server.stop()


def test_worker_that_stops_polling_loses_its_partitions(
    redis_harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.log.redis_worker.MAX_SILENCE_S", 0.1)
    log = RedisLog(redis_harness.url, lease_s=1.0)
    stuck = log.join(GROUP, redis_harness.work, 0)
    stuck.poll(0)
    other = log.join(GROUP, redis_harness.work, 1)
    assert wait_until(lambda: other.poll(0.05) == [] and len(other.assignment()) == PARTITIONS) < 5
    stuck.close()
    other.close()


def test_embedded_servers_have_their_settings_and_die_with_their_process(short_folder: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from service.embedded import embedded_servers\n"
        "with embedded_servers(Path(sys.argv[1])) as s: print(s.log.pid, s.cache.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", program, str(short_folder / "pair")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        servers = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
        assert all("valkey-server" in server.name() for server in servers)
        process.kill()
    assert wait_until(lambda: not any(server.is_running() for server in servers)) < 10
    with embedded_servers(short_folder / "pair", cache_memory_mb=64) as pair:
        import redis

        settings = {
            name: redis.Redis.from_url(server.url).config_get("appendonly", "maxmemory-policy", "appendfsync", "save")
            for name, server in (("log", pair.log), ("cache", pair.cache))
        }
        assert settings["log"] == {
            "appendonly": "yes",
            "maxmemory-policy": "noeviction",
            "appendfsync": "everysec",
            "save": "",
        }
        assert settings["cache"]["appendonly"] == "no"
        assert settings["cache"]["maxmemory-policy"] == "volatile-ttl"
        with pytest.raises(ConfigurationError):
            EmbeddedValkey(short_folder / "pair" / "log", {}, timeout_s=0.2).start()


def test_storm_of_alerts_is_one_commit(redis_harness: Harness) -> None:
    worker = redis_harness.join()
    wait_until(lambda: worker.poll(0.05) == [] and len(worker.assignment()) == PARTITIONS)
    storm = records(redis_harness.out, 5000, size=20_000)
    started_s = time.monotonic()
    worker.commit(0, Checkpoint(offset=1), storm)
    assert time.monotonic() - started_s < 20
    assert redis_harness.log.size_bytes(redis_harness.out) == 100_000_000
    redis_harness.log.trim(redis_harness.out, 0, [])
    worker.close()
