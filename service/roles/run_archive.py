"""The archive process: a loop a sink."""

from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from service import topics
from service.access import cache_access
from service.bundle_loader import CACHE_TIMEOUT_S, apdb_config, open_apdb
from service.log import Log
from service.roles.archive import APDB, FILES, HISTORY, ApdbSink, FileSink, HistorySink, Trimmer
from service.roles.runner import Process, make_process, open_topics, run_loops, start_http
from service.settings import Settings
from service.storage.cache import connect
from service.storage.datastore import Datastore
from service.storage.history import HistoryStore

TRIM_TURN_S: Final = 0.5
RESULTS_KEEP_BYTES: Final = 256 << 20
FEATURES_KEEP_BYTES: Final = 64 << 20
SIGNS_KEEP_BYTES: Final = 16 << 20

log = structlog.get_logger()


def run(settings: Settings) -> int:
    """Run until the stop signal, write what is collected; the exit code."""
    process = make_process("archive", settings)
    server = start_http(process)
    opened = open_topics(process)
    files = FileSink(opened, settings.state_dir / "alerts", settings.alert_files_s, process.clock, process.metrics)
    loops: dict[str, Callable[[], None]] = {FILES: files.turn}
    if settings.cache_url:
        loops[HISTORY] = _history_sink(process, opened).turn
    has_apdb = _add_apdb(process, opened, loops)
    sinks = (HISTORY, APDB) if has_apdb else (HISTORY,)
    limits = {
        topics.ALERTS: (settings.alerts_keep_mb << 20, (FILES,)),
        topics.RESULTS: (RESULTS_KEEP_BYTES, sinks),
        topics.FEATURES: (FEATURES_KEEP_BYTES, ()),
        topics.STATUS: (SIGNS_KEEP_BYTES, ()),
        topics.HEARTBEAT: (SIGNS_KEEP_BYTES, ()),
    }
    trimmer = Trimmer(opened, limits, process.clock)
    loops["trim"] = partial(_trim, process, trimmer)
    process.health.set_ready(True)
    code = run_loops(process, loops)
    files.flush()
    server.stop()
    return code


class ApdbLoop:
    """The APDB's sink, once the APDB can be opened: the other sinks do not wait for it."""

    def __init__(self, process: Process, opened: Log, config: str) -> None:
        self._process, self._log, self._config = process, opened, config
        self._sink: ApdbSink | None = None

    def turn(self) -> None:
        """One round; raises ``TransientError`` while the APDB is away."""
        if self._sink is None:
            self._sink = ApdbSink(self._log, open_apdb(self._config), self._process.metrics)
        self._sink.turn()


def _history_sink(process: Process, opened: Log) -> HistorySink:
    settings = process.settings
    camera = Datastore(settings.dataset).camera
    client = connect(settings.cache_url, CACHE_TIMEOUT_S, cache_access(settings))
    history = HistoryStore(client, None, camera, process.clock.tai_s, prune_after_s=settings.history_prune_s)
    has_apdb = apdb_config(settings) is not None
    return HistorySink(opened, history, process.clock, process.metrics, has_apdb=has_apdb)


def _add_apdb(process: Process, opened: Log, loops: dict[str, Callable[[], None]]) -> bool:
    config = apdb_config(process.settings)
    if config is None:
        log.warning("no_apdb", dataset=str(process.settings.dataset))
        return False
    loops[APDB] = ApdbLoop(process, opened, config).turn
    return True


def _trim(process: Process, trimmer: Trimmer) -> None:
    trimmer.turn()
    process.stopping.wait(TRIM_TURN_S)
