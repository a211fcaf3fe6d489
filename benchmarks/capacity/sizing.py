"""From a profile to the work of a detector-visit, and from a survey to the machines it needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.capacity.model import Night, Plan, Work, simulate
from benchmarks.load.usage import CHILD, SERVER
from benchmarks.report import DIA_STAGES_END, nearest_rank
from benchmarks.scale.profile import DetectorTimes, Profile, RoleUsage

CORES_A_WORKER: Final = 2
SEARCH_VISITS: Final = 40
"""A queue that grows shows within these."""
NIGHT_VISITS: Final = 120
"""Visits follow each other at one cadence: the latencies of so many are those of a whole night."""
IN_FLIGHT: Final = 2
"""Visits whose bundles are in Redis at a time."""
REDIS_OVERHEAD: Final = 1.25
"""Keys, and memory that the allocator holds (docs/capacity.md)."""
_NOTHING: Final = RoleUsage(n=0, cpu_s=0.0, rss_mb=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What is asked for."""

    detectors: int = 189
    cadence_s: float = 39.0
    lead_s: float = 20.0
    visits: int = 1000
    alerts: int = 10_000
    """A visit."""
    limit_s: float = 60.0
    fraction: float = 0.98
    """Of the alerts, within the limit."""
    jitter_s: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What it takes."""

    cores: int
    workers: int
    memory_gb: float
    """All processes and Redis."""
    redis_gb: float
    log_gb_a_night: float
    """Alerts on Kafka, one replica, as they are sent."""
    log_mb_s: float
    """In the mean; a visit's alerts leave within the seconds of its commits."""
    inside: float
    p50_s: float
    p95_s: float
    p99_s: float
    busy: float


def works(profile: Profile, alerts_a_detector: float | None = None) -> list[Work]:
    """One :class:`Work` a measured detector-visit.

    With ``alerts_a_detector`` the CPU behind the DIASources is scaled by the number of alerts; what follows the answer
    is scaled up but never down: how much of it each visit takes anyway is not known.
    """
    mean = sum(times.n_alerts for times in profile.detector_visits) / len(profile.detector_visits)
    factor = 1.0 if alerts_a_detector is None else alerts_a_detector / mean
    more = max(1.0, factor)
    roles = profile.roles
    mean_cpu_s = sum(times.cpu_s for times in profile.detector_visits) / len(profile.detector_visits)
    after_s = max(0.0, roles.get(CHILD, _NOTHING).cpu_s - mean_cpu_s) * more
    beside_s = (roles.get("worker", _NOTHING).cpu_s + roles.get(SERVER, _NOTHING).cpu_s) * more
    behind_s = (roles.get("archive", _NOTHING).cpu_s + roles.get("api", _NOTHING).cpu_s) * more
    parallel = max(1.0, nearest_rank([times.cpu_s / times.wall_s for times in profile.detector_visits], 95))
    commit_s = nearest_rank([times.commit_s for times in profile.detector_visits], 50)
    return [
        Work(
            compute_s=_compute_s(times, factor),
            parallel=parallel,
            after_s=after_s,
            ahead_s=roles.get("prefetch", _NOTHING).cpu_s,
            behind_s=behind_s,
            beside_s=beside_s,
            commit_s=commit_s * more,
            n_alerts=round(times.n_alerts * factor),
        )
        for times in profile.detector_visits
    ]


def _compute_s(times: DetectorTimes, factor: float) -> float:
    names = [name for name, _, _ in times.stages]
    end = names.index(DIA_STAGES_END) + 1
    behind = sum(cpu for _, _, cpu in times.stages[end:])
    return times.cpu_s + (factor - 1.0) * behind


def run_night(survey: Survey, profile: Profile, cores: int, visits: int = NIGHT_VISITS) -> Night:
    """Some visits of the survey's night on so many cores, a worker for each two."""
    plan = Plan(
        cores=cores,
        workers=max(1, cores // CORES_A_WORKER),
        partitions=survey.detectors,
        cadence_s=survey.cadence_s,
        lead_s=survey.lead_s,
        detectors=tuple(range(survey.detectors)),
        visits=min(survey.visits, visits),
        jitter_s=survey.jitter_s,
    )
    return simulate(plan, works(profile, survey.alerts / survey.detectors))


def least_cores(survey: Survey, profile: Profile) -> int:
    """The fewest cores with which the survey's fraction of alerts is inside its limit, by halving."""
    high = CORES_A_WORKER

    def is_enough(cores: int) -> bool:
        night = run_night(survey, profile, cores, SEARCH_VISITS)
        return night.inside(survey.limit_s) >= survey.fraction

    while not is_enough(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def answer(survey: Survey, profile: Profile, cores: int | None = None) -> Answer:
    """What the survey takes; with ``cores``, how it fares on them."""
    cores = least_cores(survey, profile) if cores is None else cores
    night = run_night(survey, profile, cores)
    workers = max(1, cores // CORES_A_WORKER)
    redis_gb = redis_bytes(survey, profile.detector_visits) / 1e9
    mean_bytes = sum(t.alert_bytes for t in profile.detector_visits) / sum(t.n_alerts for t in profile.detector_visits)
    night_gb = mean_bytes * survey.alerts * survey.visits / 1e9
    return Answer(
        cores=cores,
        workers=workers,
        memory_gb=_processes_gb(profile, workers) + redis_gb,
        redis_gb=redis_gb,
        log_gb_a_night=night_gb,
        log_mb_s=1e3 * night_gb / (survey.visits * survey.cadence_s),
        inside=night.inside(survey.limit_s),
        p50_s=night.quantile(50),
        p95_s=night.quantile(95),
        p99_s=night.quantile(99),
        busy=night.busy,
    )


def redis_bytes(survey: Survey, measured: Sequence[DetectorTimes]) -> float:
    """The cache with the bundles of the visits in flight, calibrations of two bands among them."""
    a_detector = sum(sum(times.bundle.values()) for times in measured) / len(measured)
    return REDIS_OVERHEAD * IN_FLIGHT * survey.detectors * a_detector


def _processes_gb(profile: Profile, workers: int) -> float:
    roles = profile.roles
    a_worker = roles.get("worker", _NOTHING).rss_mb + roles.get(CHILD, _NOTHING).rss_mb
    others = sum(role.rss_mb * role.n for name, role in roles.items() if name not in ("worker", CHILD, SERVER))
    return (workers * a_worker + others) / 1e3
