"""What a machine sustains: loads of more and fewer detectors, until the most is found that stays inside a latency."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from benchmarks.load.run import Load
from benchmarks.replay import TimedEvent
from benchmarks.report import nearest_rank
from service import topics

FIRST: Final = 4
GROWTH: Final = 1.6


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadStep:
    """One load: ``detectors`` a visit, a visit each ``cadence_s``."""

    detectors: int
    cadence_s: float
    detector_visits: int
    p50_s: float
    p95_s: float
    p99_s: float
    """Of the latency, readout end to commit."""
    cpu_p50_s: float
    """Of the compute child, a detector-visit."""
    busy: float
    """detectors x cpu_p50_s / (cores x cadence)."""
    lost: int
    """Readouts without a manifest."""
    lag_s: float

    def keeps(self, limit_s: float) -> bool:
        """Whether everything came, inside the limit."""
        return self.lost == 0 and self.p99_s <= limit_s


def step_of(load: Load, detectors: int, cadence_s: float, cores: int) -> LoadStep:
    """What a load showed. A readout without a committed record has no latency and counts as lost."""
    latency = [c.latency_s for key in load.keys if (c := load.progress.committed.get(key)) is not None]
    cpu = [m.cpu_s for key in load.keys if (m := load.progress.manifests.get(key)) is not None and m.timings]
    cpu_s = nearest_rank(cpu, 50) if cpu else 0.0
    p50, p95, p99 = (nearest_rank(latency, percent) if latency else float("inf") for percent in (50, 95, 99))
    return LoadStep(
        detectors=detectors,
        cadence_s=cadence_s,
        detector_visits=len(load.keys),
        p50_s=p50,
        p95_s=p95,
        p99_s=p99,
        cpu_p50_s=cpu_s,
        busy=detectors * cpu_s / (cores * cadence_s),
        lost=len(load.keys) - len(latency),
        lag_s=load.lag_s,
    )


def find_limit(
    run: Callable[[int], LoadStep], available: int, limit_s: float, first: int = FIRST
) -> tuple[int, list[LoadStep]]:
    """The most detectors (0: not even one) whose p99 stays within ``limit_s``, and all steps in their order.

    Grows from ``first`` by 1.6 until one fails or all ``available`` are in, then halves what is open.
    """
    steps: list[LoadStep] = []
    good, bad = 0, available + 1
    n = min(first, available)
    while good + 1 < bad:
        steps.append(run(n))
        if steps[-1].keeps(limit_s):
            good = n
        else:
            bad = n
        n = min(available, max(good + 1, int(good * GROWTH))) if bad > available else (good + bad) // 2
    return good, steps


def only(events: Sequence[TimedEvent], detectors: Sequence[int]) -> list[TimedEvent]:
    """The events of some of the detectors; next-visit events name no other."""
    wanted = set(detectors)
    kept = []
    for item in events:
        if item.topic == topics.NEXT_VISIT:
            event = item.event | {"detectors": [d for d in detectors if d in item.event.get("detectors", detectors)]}
            kept.append(TimedEvent(topic=item.topic, at_s=item.at_s, event=event))
        elif item.event["detector"] in wanted:
            kept.append(item)
    return kept


def scale_section(steps: Sequence[LoadStep], sustained: int) -> dict[str, Any]:
    """The report's ``scale``: the limit, its step, and all steps."""
    best = next((step for step in reversed(steps) if step.detectors == sustained), None)
    section: dict[str, Any] = {"sustained_detectors": sustained, "steps": [asdict(step) for step in steps]}
    if best is not None:
        section |= {"cadence_s": best.cadence_s, "p99_s": best.p99_s, "busy": best.busy}
    return section
