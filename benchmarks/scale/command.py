"""``sub60 bench-scale``: what this machine sustains, the whole focal plane, and whether the model agrees."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from benchmarks.capacity.model import Plan, simulate
from benchmarks.capacity.sizing import works
from benchmarks.demo import LEAD_S, DemoPlan, make_dataset
from benchmarks.display import table_console
from benchmarks.environment import environment
from benchmarks.load.limit import LoadStep, find_limit, only, scale_section, step_of
from benchmarks.load.picture import load_picture
from benchmarks.load.run import Load
from benchmarks.load.site import ReplayPlan, Site, detectors_of, open_site, planned
from benchmarks.load.table import steps_table
from benchmarks.replay import partitions_for
from benchmarks.report import Report
from benchmarks.scale.plane import VISITS, WORKERS, run_plane
from benchmarks.scale.profile import Profile
from service.settings import CHILD_BASE_MB

CADENCE_S: Final = 39.0
DETECTORS: Final = tuple(range(4, 148, 9))
"""The middle of sixteen rafts, of both makers."""
DATASET: Final = {
    "detectors": DETECTORS, "visits": 2, "bands": ("r",), "template_inputs": 3, "cadence_s": CADENCE_S
}  # fmt: skip
WORKERS_FULL: Final = 2
ROUNDS: Final = 2
BUNDLE_MB: Final = 340
"""Packed, of one detector."""
LIMITS_S: Final = (45.0, 20.0)
FIRST: Final = 12
PARTS: Final = ("full", "plane")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCheck:
    """The model's night beside the load that fed it."""

    detectors: int
    throughput: tuple[float, float]
    """Detector-visits a second: loaded, simulated."""
    p95_s: tuple[float, float]

    @property
    def worst(self) -> float:
        """Larger of the two relative differences."""
        return max(abs(model / load - 1) for load, model in (self.throughput, self.p95_s))


@click.command(
    "bench-scale",
    epilog="""\b
Examples:
  sub60 bench-scale --report build/scale.json --picture build/load.svg    45 minutes
  sub60 bench-scale --parts plane --visits 3 --profile build/profile      the focal plane alone, three visits""",
)
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), default=Path("var/scale"), show_default=True
)
@click.option(
    "--parts", default=",".join(PARTS), show_default=True, help="full: frames at full size; plane: all detectors."
)
@click.option("--visits", type=click.IntRange(1), default=VISITS, show_default=True, help="Of the focal plane.")
@click.option("--workers", type=click.IntRange(1), default=WORKERS, show_default=True, help="Of the focal plane.")
@click.option("--profile", type=click.Path(file_okay=False, path_type=Path), help="Times of stages; default: FOLDER.")
@click.option("--report", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the report here.")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="Draw latency against load (SVG).")
def command(
    folder: Path, parts: str, visits: int, workers: int, profile: Path | None, path: Path | None, picture: Path | None
) -> None:
    """Find what this machine sustains at full size, run the focal plane on times measured there, check the model."""
    console = Console(stderr=True)
    wanted = parts.split(",")
    if unknown := set(wanted) - set(PARTS):
        raise click.UsageError(f"unknown parts {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    times = profile or folder
    sections: dict[str, Any] = {}
    wrong: list[str] = []
    if "full" in wanted:
        steps, sustained, check = run_full(folder, times, console)
        scale = scale_section(steps, sustained[LIMITS_S[0]])
        scale |= {"sustained_by_limit_s": {f"{limit:g}": n for limit, n in sustained.items()}}
        sections["scale"] = scale | {"model": asdict(check) | {"worst": check.worst}}
        table_console(140).print(steps_table(steps))
        _show_check(check)
        for limit, n in sustained.items():
            click.echo(f"p99 within {limit:g} s: {n} of {len(DETECTORS)} detectors")
        if picture is not None:
            picture.write_text(load_picture(steps, LIMITS_S), encoding="utf-8")
    if "plane" in wanted:
        run = run_plane(folder / "plane", Profile.read(times), console, visits=visits, workers=workers)
        plane = run.section | {"load": asdict(run.step), "audit": run.audit.to_json(), "sinks_s": run.sinks_s}
        sections["focal_plane"] = plane | {"workers": workers}
        wrong += run.wrong
        table_console(140).print(steps_table([run.step]))
        alerts = run.section["alerts"]
        click.echo(
            f"focal plane: {run.step.detector_visits} readouts, {alerts['unique']:,} alerts, {alerts['lost']} lost, "
            f"{alerts['duplicates']} twice; the sinks were done {run.sinks_s:.0f} s after the last; audit "
            + ("clean" if run.audit.is_clean else "NOT CLEAN")
        )
    document = {"schema": 1, "environment": environment(), "command": "sub60 bench-scale", "seeds": [1]}
    if path is not None:
        Report.model_validate(document | sections).write(path)
        console.print(f"report: {path}")
    if wrong:
        raise click.ClickException("; ".join(wrong))


def run_full(folder: Path, times: Path, console: Console) -> tuple[list[LoadStep], dict[float, int], ModelCheck]:
    """Loads of full-size detectors: all steps, the limit at each latency, the model against the largest load kept."""
    make_dataset(DemoPlan(folder=folder, changes=DATASET), console)
    plan = ReplayPlan(dataset=folder / "dataset", repeat=ROUNDS, cadence_s=CADENCE_S)
    events = planned(plan)
    numbers = detectors_of(events)
    loads: dict[int, Load] = {}
    cache_mb = int(1.05 * BUNDLE_MB * -(-len(numbers) // WORKERS_FULL))
    settings: dict[str, Any] = {
        "cache_memory_mb": int(1.25 * BUNDLE_MB * len(numbers)),
        "cache_mb": cache_mb,
        "child_memory_mb": CHILD_BASE_MB + 400 + cache_mb,
    }
    with open_site(plan, events, folder / "run", console, workers=WORKERS_FULL, **settings) as site:
        warm_up(site, plan, events)

        def run(n: int) -> LoadStep:
            if n not in loads:
                loads[n] = site.run(plan, only(events, numbers[:n]), f"{n} detectors")
            return step_of(loads[n], n, CADENCE_S, site.cores)

        sustained = {limit: find_limit(run, len(numbers), limit, FIRST)[0] for limit in LIMITS_S}
        steps = [run(n) for n in sorted(loads)]
        best = sustained[LIMITS_S[0]] or min(loads)
        measured = loads[best].profile()
        measured.write(times)
        check = check_model(loads[best], numbers[:best], partitions_for(numbers, WORKERS_FULL), measured, site.cores)
    return steps, sustained, check


def warm_up(site: Site, plan: ReplayPlan, events: Sequence[Any]) -> None:
    """One visit that nobody counts: every calibration and template is in Redis and in its worker."""
    first = min(item.event["visit"] for item in events if "visit" in item.event)
    group = next(item.event["group"] for item in events if item.event.get("visit") == first and "group" in item.event)
    one = [item for item in events if group in (item.event.get("group"), item.event.get("groupId"))]
    site.run(ReplayPlan(dataset=plan.dataset), one, "first visit, not counted")


def check_model(load: Load, detectors: Sequence[int], partitions: int, profile: Profile, cores: int) -> ModelCheck:
    """Simulate the load from its own times."""
    step = step_of(load, len(detectors), CADENCE_S, cores)
    last = max(record.committed_tai_s for record in load.progress.committed.values())
    first = min(record.committed_tai_s - record.latency_s for record in load.progress.committed.values())
    night = simulate(
        Plan(
            cores=cores,
            workers=WORKERS_FULL,
            partitions=partitions,
            cadence_s=CADENCE_S,
            lead_s=LEAD_S,
            detectors=tuple(detectors),
            visits=len({visit for visit, _ in load.keys}),
        ),
        works(profile),
    )
    return ModelCheck(
        detectors=len(detectors),
        throughput=(len(load.keys) / (last - first), len(load.keys) / (night.wall_s - LEAD_S)),
        p95_s=(step.p95_s, night.quantile(95)),
    )


def _show_check(check: ModelCheck) -> None:
    table = Table("", "loaded", "simulated", "difference", title=f"the model, {check.detectors} detectors")
    for name, (load, model) in (("detector-visits/s", check.throughput), ("p95 s", check.p95_s)):
        table.add_row(name, f"{load:.3f}", f"{model:.3f}", f"{100 * (model / load - 1):+.1f} %")
    table_console(140).print(table)
