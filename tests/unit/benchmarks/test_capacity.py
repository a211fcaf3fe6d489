"""The capacity model against arithmetic, and against a twin that steps through time."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.capacity.model import NICE_WEIGHT, Plan, Work, simulate
from benchmarks.capacity.sizing import Survey, answer, least_cores, works
from benchmarks.scale.profile import DetectorTimes, Profile, RoleUsage

WORK = Work(
    compute_s=2.0, parallel=1.0, after_s=0.0, ahead_s=0.0, behind_s=0.0, beside_s=0.0, commit_s=0.0, n_alerts=10
)
PLAN = Plan(cores=2, workers=2, partitions=4, cadence_s=39.0, lead_s=20.0, detectors=(0, 1, 2, 3), visits=3)


def test_detectors_of_a_worker_follow_each_other() -> None:
    night = simulate(PLAN, [WORK])
    np.testing.assert_allclose(np.sort(night.latency_s), np.repeat([2.0, 4.0], 6), atol=1e-6)
    assert night.compute_busy == pytest.approx(3 * 4 * 2.0 / (2 * night.wall_s))
    assert night.wall_s == pytest.approx(20 + 2 * 39 + 4)


def test_jobs_share_what_there_is() -> None:
    night = simulate(replace(PLAN, cores=1), [WORK])
    np.testing.assert_allclose(np.sort(night.latency_s), np.repeat([4.0, 8.0], 6), atol=1e-6)


def test_a_job_alone_takes_no_more_than_it_can_use() -> None:
    plan = replace(PLAN, detectors=(0,), cores=8)
    assert simulate(plan, [replace(WORK, parallel=1.6)]).latency_s == pytest.approx(np.full(3, 1.25))


def test_prefetch_gives_way_by_its_weight_and_the_commit_adds_its_time() -> None:
    plan = replace(PLAN, detectors=(0,), cores=1, visits=1, lead_s=0.0)
    night = simulate(plan, [replace(WORK, ahead_s=100.0, commit_s=0.5)])
    share = 1 / (1 + NICE_WEIGHT[5])
    assert night.latency_s[0] == pytest.approx(2.0 / share + 0.5)


def test_work_behind_the_answer_delays_the_next_detector_and_not_this_one() -> None:
    plan = replace(PLAN, detectors=(0, 4), cores=8, visits=1)
    night = simulate(plan, [replace(WORK, after_s=0.7)])
    np.testing.assert_allclose(night.latency_s, [2.0, 4.7])


def test_overload_grows_and_alerts_are_late() -> None:
    night = simulate(replace(PLAN, cadence_s=3.0, visits=40, cores=2), [WORK])
    by_visit = night.latency_s.reshape(40, 4).max(axis=1)
    np.testing.assert_allclose(np.diff(by_visit), 1.0, atol=1e-6)  # 4 s of work each 3 s
    assert night.inside(20.0) == pytest.approx((night.latency_s <= 20.0).mean())


def test_as_a_twin_that_steps_through_time() -> None:
    rng = np.random.default_rng(3)
    made = [
        replace(WORK, compute_s=float(c), parallel=1.4, after_s=0.3, behind_s=0.4, beside_s=0.1, commit_s=0.2)
        for c in rng.uniform(1, 4, 8)
    ]
    plan = replace(PLAN, workers=3, partitions=7, detectors=tuple(range(9)), visits=2, cadence_s=12.0)
    night = simulate(plan, made)
    choice = np.random.default_rng(plan.seed).integers(0, len(made), 18)
    np.testing.assert_allclose(night.latency_s, stepped(plan, [made[i] for i in choice]), atol=0.03)


def stepped(plan: Plan, jobs: list[Work], step_s: float = 0.001) -> np.ndarray:
    """Every millisecond: who runs, what each gets; no events, no heaps. No prefetch."""
    n = len(jobs)
    t0 = plan.lead_s + plan.cadence_s * np.repeat(np.arange(plan.visits), len(plan.detectors))
    worker = np.tile([d % plan.partitions % plan.workers for d in plan.detectors], plan.visits)
    left = {  # phases of each job, CPU seconds
        "compute": np.array([j.compute_s for j in jobs]), "after": np.array([j.after_s for j in jobs]),
        "beside": np.array([j.beside_s for j in jobs]), "behind": np.array([j.behind_s for j in jobs]),
    }  # fmt: skip
    answered, committed, latency = np.full(n, np.inf), np.full(n, np.inf), np.full(n, np.nan)
    now = 0.0
    while np.isnan(latency).any():
        running: list[tuple[str, int, float, float]] = []
        for w in range(plan.workers):
            mine = [i for i in range(n) if worker[i] == w and t0[i] <= now and left["after"][i] > 0]
            if mine:
                i = mine[0]
                kind = "compute" if left["compute"][i] > 0 else "after"
                most = jobs[i].parallel if kind == "compute" else 1.0
                running.append((kind, i, most, most))
        for i in range(n):
            if answered[i] <= now and left["beside"][i] > 0:
                running.append(("beside", i, 1.0, 1.0))
            if committed[i] <= now and left["behind"][i] > 0:
                running.append(("behind", i, 1.0, NICE_WEIGHT[10]))
        for (kind, i, _, _), rate in zip(running, filled(plan.cores, running), strict=True):
            left[kind][i] -= rate * step_s
            if left[kind][i] <= 0 and kind == "compute":
                answered[i] = now
            if left[kind][i] <= 0 and kind == "beside":
                committed[i] = now + jobs[i].commit_s - jobs[i].beside_s
        for i in np.flatnonzero((committed <= now) & np.isnan(latency)):
            latency[i] = now - t0[i]
        now += step_s
    return latency


def filled(cores: float, running: list[tuple[str, int, float, float]]) -> np.ndarray:
    """The level at which all that is there is used, by bisection."""
    most, weight = (np.array([r[k] for r in running]) for k in (2, 3))
    low, high = 0.0, 1e6
    for _ in range(60):
        level = (low + high) / 2
        low, high = (level, high) if np.minimum(most, level * weight).sum() < cores else (low, level)
    return np.minimum(most, high * weight)


def profile() -> Profile:
    times = DetectorTimes(
        stages=(("read", 0.2, 0.2), ("measure", 1.5, 2.0), ("package", 0.2, 0.2)),
        wall_s=2.0, cpu_s=2.4, n_alerts=50, alert_bytes=50 * 80_000, commit_s=0.1,
        bundle={"calibrations": 100_000_000, "template": 100_000_000},
    )  # fmt: skip
    roles = {
        "worker": RoleUsage(n=2, cpu_s=0.2, rss_mb=100), "child": RoleUsage(n=2, cpu_s=2.9, rss_mb=2000),
        "prefetch": RoleUsage(n=1, cpu_s=0.1, rss_mb=400),
    }  # fmt: skip
    return Profile(detector_visits=(times,), roles=roles)


def test_a_work_is_what_was_measured() -> None:
    (work,) = works(profile())
    assert (work.compute_s, work.after_s, work.ahead_s) == (2.4, pytest.approx(0.5), 0.1)
    (work,) = works(profile(), alerts_a_detector=100)
    assert work.compute_s == pytest.approx(2.6)  # the part behind the DIASources twice
    assert work.n_alerts == 100
    (work,) = works(profile(), alerts_a_detector=25)
    assert work.compute_s == pytest.approx(2.3)
    assert work.after_s == pytest.approx(0.5)


def test_least_cores_is_enough_and_one_less_is_not() -> None:
    survey = Survey(visits=20, alerts=189 * 50, jitter_s=0.0)
    cores = least_cores(survey, profile())
    assert answer(survey, profile(), cores).inside >= survey.fraction
    assert answer(survey, profile(), cores - 1).inside < survey.fraction
    # no machine does it with less than the work there is
    assert cores >= 189 * (2.9 + 0.2) / 99
    found = answer(survey, profile(), cores)
    assert found.redis_gb == pytest.approx(1.25 * 2 * 189 * 0.2)
    assert found.log_gb_a_night == pytest.approx(20 * 189 * 50 * 80_000 / 1e9)
