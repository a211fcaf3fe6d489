"""A night as a discrete-event simulation: readouts queue for workers, workers share cores.

A detector-visit is a job of its worker (partition = detector mod P, worker = partition mod W, in the order of t0).
Its CPU is that of a measured one. Jobs that run share the cores: each takes as much as it can use alone (its CPU over
its wall time where nothing else ran), all of them together no more than there are cores, and less important work gives
way by its weight, as the kernel's scheduler does with niceness. The commit follows in the worker's parent while the
next job computes. (The fluid limit of processor sharing: Kleinrock, Queueing Systems vol. 2, 1976, section 4.4.)
"""

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

NICE_WEIGHT: Final = {0: 1.0, 5: 335 / 1024, 10: 110 / 1024}
"""Of the kernel's scheduler (sched_prio_to_weight)."""
_NEVER: Final = float("inf")
_DONE: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """CPU that one detector-visit takes, and where."""

    compute_s: float
    """Of the child, until the answer."""
    parallel: float
    """Cores that the child can use at a time."""
    after_s: float
    """Of the child, behind the answer: light-curve features, the next bundle's decoding."""
    ahead_s: float
    """Before the readout: prefetch."""
    behind_s: float
    """After the commit: the archive."""
    beside_s: float
    """Of the worker's parent, the log and the cache server, while the alerts are committed."""
    commit_s: float
    """Wall time of the commit on an idle machine."""
    n_alerts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A machine, or several taken as one, and what is asked of it."""

    cores: float
    workers: int
    partitions: int
    cadence_s: float
    lead_s: float
    detectors: tuple[int, ...]
    visits: int
    jitter_s: float = 0.0
    seed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """What the simulation gave."""

    latency_s: Float64
    """(visits x detectors,) readout end to commit."""
    n_alerts: NDArray[np.int64]
    busy: float
    """Mean fraction of the cores in use, from the first event to the last commit."""
    compute_busy: float
    """The part of it that the compute children's jobs took up to their answers."""
    wall_s: float

    def quantile(self, percent: float) -> float:
        """Nearest rank of the latency [s]."""
        ordered = np.sort(self.latency_s)
        return float(ordered[max(int(np.ceil(percent / 100 * ordered.size)), 1) - 1])

    def inside(self, limit_s: float) -> float:
        """Fraction of the alerts committed within the limit."""
        return float(self.n_alerts[self.latency_s <= limit_s].sum() / max(self.n_alerts.sum(), 1))

    @property
    def throughput(self) -> float:
        """Detector-visits a second."""
        return self.latency_s.size / self.wall_s


class _Cores:
    """Jobs that share the cores; work of each in CPU seconds."""

    def __init__(self, cores: float) -> None:
        self._cores = cores
        self._left: dict[int, float] = {}
        self._most: dict[int, float] = {}
        self._weight: dict[int, float] = {}
        self._rates: dict[int, float] = {}
        self.used_s = 0.0

    def add(self, job: int, cpu_s: float, most: float, weight: float) -> None:
        self._left[job], self._most[job], self._weight[job] = max(cpu_s, _DONE), most, weight
        self._share()

    def next_s(self) -> float:
        """From now until a job is done."""
        return min((self._left[job] / rate for job, rate in self._rates.items()), default=_NEVER)

    def advance(self, seconds: float) -> list[int]:
        """Jobs done when this time has passed."""
        for job, rate in self._rates.items():
            self._left[job] -= rate * seconds
            self.used_s += rate * seconds
        done = [job for job, left in self._left.items() if left <= _DONE]
        for job in done:
            del self._left[job], self._most[job], self._weight[job]
        if done:
            self._share()
        return done

    def _share(self) -> None:
        """Water-filling: by weight, nobody more than it can use."""
        free, open_jobs = self._cores, dict(self._weight)
        rates: dict[int, float] = {}
        while open_jobs:
            unit = free / sum(open_jobs.values())
            full = [job for job, weight in open_jobs.items() if self._most[job] <= unit * weight]
            if not full:
                rates |= {job: unit * weight for job, weight in open_jobs.items()}
                break
            for job in full:
                rates[job] = self._most[job]
                free -= self._most[job]
                del open_jobs[job]
        self._rates = {job: max(rate, 1e-12) for job, rate in rates.items()}


AHEAD, COMPUTE, AFTER, BESIDE, BEHIND = range(5)


def simulate(plan: Plan, works: Sequence[Work]) -> Night:
    """Run a night; each detector-visit is one of ``works``, drawn by ``plan.seed``."""
    return _Simulation(plan, works).run()


class _Simulation:
    def __init__(self, plan: Plan, works: Sequence[Work]) -> None:
        self.plan, self.works = plan, works
        rng = np.random.default_rng(plan.seed)
        n = plan.visits * len(plan.detectors)
        self.choice = rng.integers(0, len(works), n)
        t0 = plan.lead_s + plan.cadence_s * np.repeat(np.arange(plan.visits), len(plan.detectors))
        self.t0: list[float] = [float(t) for t in t0]
        arrival = t0 + (rng.uniform(0, plan.jitter_s, n) if plan.jitter_s else 0.0)
        worker = [d % plan.partitions % plan.workers for d in plan.detectors]
        self.worker = worker * plan.visits
        self.latency = np.full(n, np.nan)
        self.cores = _Cores(plan.cores)
        self.queues: list[list[tuple[float, int]]] = [[] for _ in range(plan.workers)]
        self.is_busy = [False] * plan.workers
        self.prefetch: deque[int] = deque()
        self.is_fetching = False
        self.compute_s = 0.0
        self.arrivals = sorted(zip((float(a) for a in arrival), range(n), strict=True))
        self.announced = [(index * plan.cadence_s, index) for index in range(plan.visits)]

    def work(self, job: int) -> Work:
        return self.works[int(self.choice[job])]

    def run(self) -> Night:
        now, end = 0.0, 0.0
        arrivals, announced = deque(self.arrivals), deque(self.announced)
        commits: list[tuple[float, int]] = []
        n_open = len(self.arrivals)
        while n_open or commits:
            step = self.cores.next_s()
            for queue in (arrivals, announced, commits):
                if queue:
                    step = min(step, queue[0][0] - now)
            if step == _NEVER:
                raise RuntimeError("jobs wait and nothing runs")
            now += max(step, 0.0)
            for code in self.cores.advance(max(step, 0.0)):
                job, kind = divmod(code, 5)
                self._finished(job, kind, now, commits)
            while announced and announced[0][0] <= now:
                _, visit = announced.popleft()
                n = len(self.plan.detectors)
                self.prefetch.extend(range(visit * n, visit * n + n))
                self._fetch_next()
            while arrivals and arrivals[0][0] <= now:
                _, job = arrivals.popleft()
                heapq.heappush(self.queues[self.worker[job]], (self.t0[job], job))
                self._start_next(self.worker[job])
            while commits and commits[0][0] <= now:
                _, job = heapq.heappop(commits)
                self.latency[job] = now - self.t0[job]
                n_open -= 1
                end = now
                self._add(job, BEHIND, self.work(job).behind_s, 1.0, 10)
        return Night(
            latency_s=self.latency,
            n_alerts=np.array([self.works[i].n_alerts for i in self.choice], np.int64),
            busy=self.cores.used_s / (self.plan.cores * end),
            compute_busy=self.compute_s / (self.plan.cores * end),
            wall_s=end,
        )

    def _finished(self, job: int, kind: int, now: float, commits: list[tuple[float, int]]) -> None:
        work = self.work(job)
        if kind == AHEAD:
            self.is_fetching = False
            self._fetch_next()
        elif kind == COMPUTE:
            self.compute_s += work.compute_s
            self._add(job, AFTER, work.after_s, 1.0, 0)
            self._add(job, BESIDE, work.beside_s, 1.0, 0)
        elif kind == AFTER:
            self.is_busy[self.worker[job]] = False
            self._start_next(self.worker[job])
        elif kind == BESIDE:
            heapq.heappush(commits, (now + max(work.commit_s - work.beside_s, 0.0), job))

    def _start_next(self, worker: int) -> None:
        if self.queues[worker] and not self.is_busy[worker]:
            self.is_busy[worker] = True
            _, job = heapq.heappop(self.queues[worker])
            self._add(job, COMPUTE, self.work(job).compute_s, self.work(job).parallel, 0)

    def _fetch_next(self) -> None:
        if self.prefetch and not self.is_fetching:
            self.is_fetching = True
            job = self.prefetch.popleft()
            self._add(job, AHEAD, self.work(job).ahead_s, 1.0, 5)

    def _add(self, job: int, kind: int, cpu_s: float, most: float, nice: int) -> None:
        self.cores.add(job * 5 + kind, cpu_s, most, NICE_WEIGHT[nice] * most)
