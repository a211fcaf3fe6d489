"""A long night with random faults: 1,000 detector-visits on one site, one account in the end, memory watched.

::

    python -m tests.faults.soak --detector-visits 1000 --seed 7 --report build/soak.json
"""

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
import redis
from rich.console import Console
from rich.progress import Progress

from benchmarks.environment import environment
from tests.faults.crashes import owner
from tests.faults.servers import freeze, thaw
from tests.faults.site import Site
from tests.faults.trial import Trial
from tests.support.kafka.broker import fetch_jars
from tests.support.service.datasets import make_testcam

CADENCE_S: Final = 1.2
"""Between visits of two detectors: about as fast as two cores compute them."""
VISITS_A_FAULT: Final = 12
MAX_WAITING: Final = 24
"""Detector-visits without outcome, above which the observatory waits: a backlog is not what is watched here."""
WARM_SAMPLES: Final = 25
LEAST_SAMPLES: Final = 30
MAX_GROWTH: Final = 0.02
MAX_MORE_HANDLES: Final = 12
MAX_LASTING_KEYS: Final = 200
"""Keys of the cache without a time to live: tails of a few sky cells, the sentinel."""
TIMEOUT_S: Final = 180.0
LOG_MEMORY_MB: Final = 2048
ALERTS_KEEP_MB: Final = 256
"""Behind the file sink: a night is larger than any log of a test."""


@dataclass(slots=True)
class Life:
    """One process from its start to its end, sampled after each visit."""

    role: str
    rss: list[int] = field(default_factory=list)
    handles: list[int] = field(default_factory=list)

    @property
    def growth(self) -> float | None:
        """Relative growth of its memory, once it was warm; None for a life too short to say."""
        warm = self.rss[WARM_SAMPLES:]
        if len(warm) < LEAST_SAMPLES:
            return None
        tenth = max(3, len(warm) // 10)
        first, last = statistics.median(warm[:tenth]), statistics.median(warm[-tenth:])
        return (last - first) / first

    @property
    def more_handles(self) -> int:
        """Open descriptors gained since it was warm."""
        warm = self.handles[WARM_SAMPLES:]
        return 0 if len(warm) < LEAST_SAMPLES else round(statistics.median(warm[-5:]) - statistics.median(warm[:5]))


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
    """The night; its report."""
    soak, trial = Soak(site, seed), Trial(site)
    started = time.monotonic()
    with Progress(console=console) as bar:
        task = bar.add_task("detector-visits", total=detector_visits)
        n_visits = 0
        while len(trial.expected) < detector_visits:
            visit = trial.send(lead_s=CADENCE_S / 2)[0]
            n_visits += 1
            bar.update(task, advance=len(visit.keys))
            if soak.rng.random() < 1 / VISITS_A_FAULT:
                bar.console.print(f"{len(trial.expected):5d}  {soak.strike()}")
            time.sleep(CADENCE_S / 2)
            soak.sample()
            site.wait_for(lambda: _waiting(trial) < MAX_WAITING, TIMEOUT_S, "the backlog shrinks")
    row = trial.settle("nothing lost, nothing twice", TIMEOUT_S, recovery_limit_s=60.0)
    lasting = _lasting_keys(site)
    growths = {
        f"{life.role} {pid}": round(life.growth, 4) for pid, life in soak.lives.items() if life.growth is not None
    }
    more_handles = {f"{life.role} {pid}": life.more_handles for pid, life in soak.lives.items()}
    problems = row.problems
    problems += [f"memory of {name} grew by {100 * g:.1f} %" for name, g in growths.items() if g > MAX_GROWTH]
    problems += [f"{name} has {n} descriptors more" for name, n in more_handles.items() if n > MAX_MORE_HANDLES]
    if lasting > MAX_LASTING_KEYS:
        problems.append(f"{lasting} keys of the cache have no time to live")
    figures = {
        "detector_visits": len(trial.expected),
        "wall_s": time.monotonic() - started,
        "faults": dict(soak.done),
        "growth_max": max(growths.values(), default=None),
        "growth": growths,
        "handles_max": max(more_handles.values(), default=0),
        "lasting_keys": lasting,
    }
    return asdict(row) | figures | {"passed": row.passed}


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
    """Run a long night with random faults; exit 1 if anything was lost, sent twice, or grew."""
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
