"""One load: events published at their times, manifests, latencies and alerts collected by readers of their own."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.alert_reader import AlertSpool, AlertTally, open_source, read_spool
from benchmarks.replay import TimedEvent, publish, readouts
from benchmarks.report import service_section
from benchmarks.scale.profile import Profile, RoleUsage
from benchmarks.watch import Follower, Key, Progress
from service import topics
from service.access import log_access
from service.log import Log
from service.settings import read_settings

OUTCOME_TIMEOUT_S: Final = 90.0
"""After the last readout; the clock is 60 s."""
COMMITTED_TIMEOUT_S: Final = 10.0
TURN_S: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What came of the events of a load."""

    keys: tuple[Key, ...]
    """(visit, detector) of each readout."""
    progress: Progress
    spool: Path
    """Every alert that was published meanwhile."""
    n_alerts: int
    lag_s: float
    """How late the latest event left: above a few milliseconds the load itself was not what was asked for."""
    roles: dict[str, RoleUsage] = field(default_factory=dict)
    """What the service's processes took meanwhile, where they can be seen."""

    @property
    def unfinished(self) -> list[Key]:
        """Readouts without a manifest."""
        return sorted(set(self.keys) - set(self.progress.manifests))

    def section(self) -> dict[str, Any]:
        """The report's part about outcomes, latencies and stages."""
        mine = set(self.keys)
        manifests = [m for key, m in self.progress.manifests.items() if key in mine]
        section = service_section(manifests, [c for key, c in self.progress.committed.items() if key in mine])
        visits = len({visit for visit, _ in self.keys})
        return section | {"visits": visits, "detector_visits": len(mine), "publish_lag_s": self.lag_s}

    def profile(self) -> Profile:
        """The stages' times, for models and for runs on measured times."""
        mine = set(self.keys)
        manifests = [m for key, m in self.progress.manifests.items() if key in mine]
        return Profile.of(manifests, self.progress.committed, self.roles)

    def tally(self, on_alert: Callable[[], None] = lambda: None) -> AlertTally:
        """Decode, check and count every alert: 2 ms each, so not while anybody is timed."""
        tally = AlertTally()
        for value in read_spool(self.spool):
            tally.add(value)
            on_alert()
        return tally

    def alerts(self, tally: AlertTally) -> dict[str, Any]:
        """The report's part about alerts: promised by the manifests against seen by the reader."""
        mine = set(self.keys)
        return tally.counts([m for key, m in self.progress.manifests.items() if key in mine], len(mine))


def run_load(
    log: Log,
    log_url: str,
    events: Sequence[TimedEvent],
    spool: Path,
    *,
    jitter_s: float = 0.0,
    seed: int = 1,
    timeout_s: float = OUTCOME_TIMEOUT_S,
    on_turn: Callable[[Progress], None] = lambda _: None,
) -> Load:
    """Publish in a thread whatever the service does; back when each readout has an outcome or its time is long over.

    ``on_turn`` is called ten times a second with what is known; what it raises ends the load.
    """
    follower = Follower(log)
    alerts = AlertSpool(open_source(log_url, log_access(read_settings(), log_url)), spool)
    keys = tuple((event["visit"], event["detector"]) for event in readouts(events))
    producer = log.producer()
    sender = _Sender(producer, events, follower.progress, jitter_s, seed)
    try:
        sender.start()
        _follow(follower, sender, set(keys), timeout_s, on_turn)
    finally:
        sender.join()
        producer.close()
        alerts.close()
        follower.close()
    return Load(
        keys=keys,
        progress=follower.progress,
        spool=alerts.path,
        n_alerts=alerts.n_alerts,
        lag_s=sender.lag_s,
    )


def _follow(
    follower: Follower,
    sender: "_Sender",
    keys: set[Key],
    timeout_s: float,
    on_turn: Callable[[Progress], None],
) -> None:
    progress = follower.progress
    give_up_s = float("inf")
    while keys - set(progress.manifests) and time.monotonic() < give_up_s:
        follower.turn(TURN_S)
        on_turn(progress)
        if not sender.is_alive() and give_up_s == float("inf"):
            sender.check()
            give_up_s = time.monotonic() + timeout_s
    follower.wait_for(keys & set(progress.manifests), COMMITTED_TIMEOUT_S)
    on_turn(progress)


class _Sender(threading.Thread):
    """Publishes; what goes wrong there is raised where :meth:`check` is called."""

    def __init__(
        self, producer: Any, events: Sequence[TimedEvent], progress: Progress, jitter_s: float, seed: int
    ) -> None:
        super().__init__(name="replay", daemon=True)
        self._producer, self._events, self._progress = producer, events, progress
        self._jitter_s, self._seed = jitter_s, seed
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        self.lag_s = 0.0

    def run(self) -> None:
        """Send each event at its time."""
        try:
            sent = publish(
                self._producer,
                self._events,
                jitter_s=self._jitter_s,
                seed=self._seed,
                on_event=self._tell,
                sleep=self._sleep,
            )
            self.lag_s = sent.max_lag_s
        except _StoppedError:
            pass
        except BaseException as error:  # carried over to the thread that waits
            self._error = error

    def join(self, timeout: float | None = None) -> None:
        """Stop publishing, and wait for the end."""
        self._stopping.set()
        super().join(timeout)

    def check(self) -> None:
        """Raise what ended the thread."""
        if self._error is not None:
            raise self._error

    def _sleep(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise _StoppedError

    def _tell(self, item: TimedEvent) -> None:
        if item.topic == topics.READOUT:
            self._progress.read_out[item.event["visit"], item.event["detector"]] = time.monotonic()
        else:
            self._progress.announced.add(item.event["groupId"])


class _StoppedError(Exception):
    """Nobody waits for the load any more."""
