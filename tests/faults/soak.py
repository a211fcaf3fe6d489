"""Nights with random faults: 1,000 detector-visits on one site, each night accounted for, memory watched.

After each night its history is forgotten, in the APDB, the log and the cache: what is left to grow should not.

::

    python -m tests.faults.soak --detector-visits 1000 --seed 7 --report build/soak.json
"""

import contextlib
import json
import os
import random
import signal
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import click
import psutil
import psycopg2
import redis
from rich.console import Console
from rich.progress import Progress

from benchmarks.environment import environment
from service import topics
from service.log import open_log
from service.roles.archive import APDB, HISTORY, lag
from tests.faults.crashes import owner
from tests.faults.servers import freeze, thaw
from tests.faults.site import WORKERS, Site
from tests.faults.trial import Row, Trial
from tests.support.kafka.broker import fetch_jars
from tests.support.service.datasets import make_testcam

CADENCE_S: Final = 1.2
"""Between visits of two detectors: about as fast as two cores compute them."""
VISITS_A_FAULT: Final = 12
MAX_WAITING: Final = 24
"""Detector-visits without outcome, above which the observatory waits: a backlog is not what is watched here."""
VISITS_A_NIGHT: Final = 40
MAX_GROWTH: Final = 0.02
MAX_MORE_HANDLES: Final = 12
MAX_LASTING_KEYS: Final = 200
"""Keys of the cache without a time to live: tails of a few sky cells, the sentinel."""
TIMEOUT_S: Final = 180.0
LOG_MEMORY_MB: Final = 2048
ALERTS_KEEP_MB: Final = 256
"""Behind the file sink: a night is larger than any log of a test."""
CACHE_MB: Final = 32
"""Little, so that it is full in the second night: what it holds of each visit is no leak."""


@dataclass(slots=True)
class Life:
    """One process from its start to its end, sampled after each visit."""

    role: str
    rss: list[int] = field(default_factory=list)
    handles: list[int] = field(default_factory=list)

    @property
    def growth(self) -> float | None:
        """Relative growth of its memory from its third night to its last; None for a life too short to say."""
        if len(self.rss) < 4 * VISITS_A_NIGHT:
            return None
        first = statistics.median(self.rss[2 * VISITS_A_NIGHT : 3 * VISITS_A_NIGHT])
        return (statistics.median(self.rss[-VISITS_A_NIGHT:]) - first) / first

    @property
    def more_handles(self) -> int:
        """Open descriptors gained since its third night."""
        if len(self.handles) < 4 * VISITS_A_NIGHT:
            return 0
        first = statistics.median(self.handles[2 * VISITS_A_NIGHT : 3 * VISITS_A_NIGHT])
        return round(statistics.median(self.handles[-VISITS_A_NIGHT:]) - first)


class Soak:
    """Random faults, one every dozen visits or so, by a seeded generator."""

    def __init__(self, site: Site, seed: int) -> None:
        self.site = site
        self.rng = random.Random(seed)
        self.lives: dict[int, Life] = {}
        self.done: dict[str, int] = defaultdict(int)
        self._menu: dict[str, Callable[[], None]] = {
            "kill a child": self._kill_child,
            "kill a role": lambda: self._signal(signal.SIGKILL),
            "end a role": lambda: self._signal(signal.SIGTERM),
            "freeze a worker 8 s": self._freeze,
            "flush the cache": lambda: redis.Redis.from_url(site.cache.url).flushall() and None,
            "restart the cache": self._restart_cache,
            "cut the log's connections": site.log_server.proxy.cut,
            "slow log 3 s": self._slow,
            "restart the log": self._restart_log,
            "restart PostgreSQL": self._restart_postgres,
        }

    def strike(self) -> str:
        """One fault; its name."""
        name = self.rng.choice(sorted(self._menu))
        self._menu[name]()
        self.done[name] += 1
        return name

    def sample(self) -> None:
        """Memory and descriptors of every process."""
        for role, pid in self.site.pids.items():
            try:
                process = psutil.Process(pid)
                for each, name in [(process, role), *((child, f"{role} child") for child in process.children())]:
                    life = self.lives.setdefault(each.pid, Life(name))
                    life.rss.append(each.memory_info().rss)
                    life.handles.append(each.num_fds())
            except psutil.NoSuchProcess:
                continue

    def _kill_child(self) -> None:
        try:
            os.kill(self.site.child_pid(owner(self.site)), signal.SIGKILL)
        except (ValueError, KeyError, psutil.NoSuchProcess, ProcessLookupError):
            return  # it is being replaced already

    def _signal(self, number: int) -> None:
        roles = sorted(self.site.pids)
        if roles:
            try:
                os.kill(self.site.pids[self.rng.choice(roles)], number)
            except (KeyError, ProcessLookupError):
                return

    def _freeze(self) -> None:
        pid = self.site.pids.get(owner(self.site))
        if pid is not None:
            freeze(pid)
            time.sleep(8)
            thaw(pid)

    def _slow(self) -> None:
        self.site.log_server.proxy.delay_s = 0.1
        time.sleep(3)
        self.site.log_server.proxy.delay_s = 0.0

    def _restart_cache(self) -> None:
        self.site.cache.kill()
        time.sleep(1)
        self.site.cache.start()

    def _restart_log(self) -> None:
        self.site.log_server.kill()
        time.sleep(self.rng.uniform(0.5, 6))
        self.site.log_server.start()

    def _restart_postgres(self) -> None:
        self.site.postgres.kill()
        time.sleep(self.rng.uniform(1, 6))
        self.site.postgres.start()


def run(site: Site, detector_visits: int, seed: int, console: Console) -> dict[str, Any]:
    """All nights; their report."""
    soak, rows = Soak(site, seed), []
    started = time.monotonic()
    with Progress(console=console) as bar:
        task = bar.add_task("detector-visits", total=detector_visits)
        while (n_done := sum(row.events for row in rows)) < detector_visits:
            trial = Trial(site)
            for _ in range(VISITS_A_NIGHT):
                visit = trial.send(lead_s=CADENCE_S / 2)[0]
                bar.update(task, advance=len(visit.keys))
                if soak.rng.random() < 1 / VISITS_A_FAULT:
                    bar.console.print(f"{n_done + len(trial.expected):5d}  {soak.strike()}")
                time.sleep(CADENCE_S / 2)
                soak.sample()
                site.wait_for(lambda trial=trial: _waiting(trial) < MAX_WAITING, TIMEOUT_S, "the backlog shrinks")  # type: ignore[misc]
            rows.append(trial.settle("nothing lost, nothing twice", TIMEOUT_S, recovery_limit_s=60.0))
            lasting = _lasting_keys(site)
            forget(site)
    return _figures(soak, rows, lasting) | {"wall_s": time.monotonic() - started}


def forget(site: Site) -> None:
    """The history of the night, once both sinks have all of it."""
    with open_log(site.log_server.direct_url) as log:
        readers = [log.reader(topics.RESULTS, name=name) for name in (HISTORY, APDB)]
        site.wait_for(lambda: sum(map(lag, readers)) == 0, TIMEOUT_S, "both sinks have every result")
        for reader in readers:
            reader.close()
        log.trim(topics.RESULTS, 0, (HISTORY, APDB))
    with contextlib.closing(psycopg2.connect(site.postgres.plain_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE tablename LIKE 'Dia%'")
        names = ", ".join(f'"{name}"' for (name,) in cursor.fetchall())
        cursor.execute(f"TRUNCATE {names}")
        connection.commit()
    redis.Redis.from_url(site.cache.url).flushall()


def _figures(soak: Soak, rows: list[Row], lasting: int) -> dict[str, Any]:
    """The account of all nights and what grew."""
    lives = soak.lives.items()
    growths = {f"{life.role} {pid}": round(life.growth, 4) for pid, life in lives if life.growth is not None}
    more_handles = {f"{life.role} {pid}": life.more_handles for pid, life in lives}
    problems = [problem for row in rows for problem in row.problems]
    problems += [f"memory of {name} grew by {100 * g:.1f} %" for name, g in growths.items() if g > MAX_GROWTH]
    problems += [f"{name} has {n} descriptors more" for name, n in more_handles.items() if n > MAX_MORE_HANDLES]
    if lasting > MAX_LASTING_KEYS:
        problems.append(f"{lasting} keys of the cache have no time to live")
    recoveries = [row.recovery_s for row in rows if row.recovery_s is not None]
    whole = Row(
        promise=rows[0].promise,
        events=sum(row.events for row in rows),
        alerts=sum(row.alerts for row in rows),
        lost=sum(row.lost for row in rows),
        duplicates=sum(row.duplicates for row in rows),
        recovery_s=max(recoveries, default=None),
        problems=problems,
    )
    return asdict(whole) | {
        "passed": whole.passed,
        "detector_visits": whole.events,
        "faults": dict(soak.done),
        "growth_max": max(growths.values(), default=None),
        "growth": growths,
        "rss_mb": {f"{life.role} {pid}": [round(v / 2**20) for v in life.rss[::VISITS_A_NIGHT]] for pid, life in lives},
        "handles_max": max(more_handles.values(), default=0),
        "lasting_keys": lasting,
    }


def _waiting(trial: Trial) -> int:
    return sum(trial.site.ledger.outcome(key) is None for visit in trial.visits[-60:] for key in visit.keys)


def _lasting_keys(site: Site) -> int:
    client: Any = redis.Redis.from_url(site.cache.url)
    return sum(client.ttl(key) == -1 for key in client.scan_iter(count=1000))


@click.command(
    epilog="""\b
Example:
  python -m tests.faults.soak --detector-visits 100 --seed 3 --transport kafka"""
)
@click.option("--detector-visits", type=click.IntRange(2), default=1000, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--transport", type=click.Choice(["redis", "kafka"]), default="redis", show_default=True)
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Write JSON here.")
def main(detector_visits: int, seed: int, transport: str, report: Path | None) -> None:
    """Run nights with random faults; exit 1 if anything was lost, sent twice, or grew."""
    console = Console(stderr=True)
    jars = None
    if transport == "kafka":
        jars = Path("var/kafka/jars").resolve()
        fetch_jars(jars)
    with tempfile.TemporaryDirectory(prefix="sub60-soak-") as name:
        folder = Path(name)
        with console.status("making the site"):
            dataset = make_testcam(Path("var/testcam"))
            site = Site(
                folder / "site",
                dataset,
                jars,
                log_memory_mb=LOG_MEMORY_MB,
                has_small_disks=False,
                alerts_keep_mb=ALERTS_KEEP_MB,
                cache_mb=CACHE_MB,
                partitions=WORKERS,
            )
        try:
            result = run(site, detector_visits, seed, console)
        finally:
            site.close()
    command = f"make soak N={detector_visits} SEED={seed} ON={transport}"
    text = json.dumps({"schema": 1, "environment": environment(), "command": command, "soak": result}, indent=1)
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(text + "\n")
    click.echo(text)
    raise SystemExit(0 if result["passed"] else 1)


if __name__ == "__main__":
    main()
