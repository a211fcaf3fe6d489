"""What each choice of the pipeline costs and gives: single fields of its configuration changed, one after the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from benchmarks.choice_figures import N_RESAMPLES, Run, differences, figures, references, resampled, speeds
from benchmarks.choices_table import show
from benchmarks.display import bar, table_console
from benchmarks.environment import environment
from benchmarks.harness import make_dataset, reference_cpu_s, to_dia_sources
from benchmarks.quality.rerun import Opened, compare, open_dataset, simulation
from benchmarks.quality.summary import without_nan
from benchmarks.replay import read_events, readouts
from benchmarks.report import Report
from benchmarks.simulator.config import preset
from benchmarks.simulator.dataset import keep_freed_memory
from core.errors import UnusableDataError
from core.overrides import with_changes

DEFAULT: Final = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Another way to run the pipeline: dotted fields of its configuration, as ``SUB60_PIPELINE`` takes them."""

    name: str
    meaning: str
    stage: str = ""
    """The stage it changes, as the stopwatch names it."""
    changes: dict[str, Any] = field(default_factory=dict)
    needs: str = ""
    """Package that must be installed."""


CHOICES: Final = (
    Choice(name=DEFAULT, meaning="as the survey runs"),
    Choice(name="psf_1_round", meaning="one PSF iteration", stage="psf", changes={"psf.n_rounds": 1}),
    Choice(name="psf_3_rounds", meaning="three PSF iterations", stage="psf", changes={"psf.n_rounds": 3}),
    Choice(
        name="psf_piff",
        meaning="Piff, PixelGrid of 25 pixels",
        stage="psf",
        changes={"psf.determiner": "piff"},
        needs="piff",
    ),
    Choice(
        name="psf_piff_moffat",
        meaning="Piff, a Moffat",
        stage="psf",
        changes={"psf.determiner": "piff", "psf.piff.model": "Moffat"},
        needs="piff",
    ),
    Choice(
        name="kernel_13",
        meaning="matching kernel of half width 13",
        stage="subtract",
        changes={"subtract.kernel.half_width_pix": 13},
    ),
    Choice(
        name="kernel_21",
        meaning="matching kernel of half width 21, widest Gaussian of 8, stamps of 22",
        stage="subtract",
        changes={
            "subtract.kernel.half_width_pix": 21,
            "subtract.kernel.half_stamp_pix": 22,
            "subtract.kernel.sigmas_pix": (0.7, 1.5, 3.0, 8.0),
        },
    ),
    Choice(
        name="kernel_order_1",
        meaning="kernel varies linearly",
        stage="subtract",
        changes={"subtract.kernel.spatial_order": 1},
    ),
    Choice(
        name="kernel_order_3",
        meaning="kernel varies cubically",
        stage="subtract",
        changes={"subtract.kernel.spatial_order": 3},
    ),
    Choice(
        name="decorrelate_off",
        meaning="the difference is never whitened",
        stage="subtract",
        changes={"subtract.whitening.mode": "off"},
    ),
    Choice(
        name="decorrelate_on",
        meaning="the difference is always whitened",
        stage="subtract",
        changes={"subtract.whitening.mode": "on"},
    ),
    Choice(
        name="convolve_template",
        meaning="the template is convolved, always",
        stage="subtract",
        changes={"subtract.convolve": "template"},
    ),
    Choice(
        name="convolve_science",
        meaning="the science image is convolved, always",
        stage="subtract",
        changes={"subtract.convolve": "science"},
    ),
    Choice(
        name="sinc_4",
        meaning="template warped by a sinc under Kaiser's window of 8 pixels instead of 6",
        stage="template",
        changes={"template.sinc_order": 4},
    ),
    Choice(
        name="lanczos_3",
        meaning="template warped by Lanczos3",
        stage="template",
        changes={"template.sinc_window": "lanczos"},
    ),
    Choice(
        name="lanczos_4",
        meaning="template warped by Lanczos4",
        stage="template",
        changes={"template.sinc_window": "lanczos", "template.sinc_order": 4},
    ),
    Choice(
        name="wcs_maps_off",
        meaning="the WCS is a polynomial, turbulence or not",
        stage="astrometry",
        changes={"astrometry.is_mapped": False},
    ),
    Choice(
        name="psf_maps_off",
        meaning="the PSF is a polynomial over the detector",
        stage="psf",
        changes={"psf.structure.is_mapped": False},
    ),
    Choice(
        name="kernel_maps_off",
        meaning="the kernel is a polynomial over the detector",
        stage="subtract",
        changes={"subtract.kernel.local.is_mapped": False},
    ),
    Choice(
        name="illumination_off",
        meaning="one zero point for the whole detector",
        stage="photometry",
        changes={"photometry.min_stars_for_illumination": 10**9},
    ),
)


def available(names: Sequence[str], console: Console) -> list[Choice]:
    """The default and the choices named, all for none; without those whose package is missing."""
    wanted = set(names) or {choice.name for choice in CHOICES}
    found = []
    for choice in CHOICES:
        if choice.name not in wanted | {DEFAULT}:
            continue
        if choice.needs and find_spec(choice.needs) is None:
            console.print(f'{choice.name} is left out: pip install "sub60[{choice.needs}]"', markup=False)
            continue
        found.append(choice)
    return found


def run_choices(
    opened: Opened,
    events: Sequence[dict[str, Any]],
    choices: Sequence[Choice],
    tell: Callable[[str], None],
    n_repeats: int = 1,
) -> dict[str, list[Run]]:
    """Every choice on every event, interleaved, in another order each time; the runs of each in the events' order.

    Of ``n_repeats`` the least CPU counts, of work and of R: what other processes do to the clock only ever adds.
    """
    keep_freed_memory()
    usual = opened.pipeline.config
    configs = {choice.name: with_changes(usual, choice.changes) for choice in choices}
    runs: dict[str, list[Run]] = {choice.name: [] for choice in choices}
    is_warm = False
    for number, event in enumerate(events):
        raw, bundle = opened.load(event)
        turn = number * 7 % len(choices)
        for choice in (*choices[turn:], *choices[:turn]):
            if not is_warm:  # compiles, touches every buffer
                opened.pipeline.config = usual
                _run(opened, event, raw, bundle)
                is_warm = True
            tell(f"{event['visit']} {event['detector']} {choice.name}")
            opened.pipeline.config = configs[choice.name]
            runs[choice.name].append(_run(opened, event, raw, bundle, n_repeats))
    opened.pipeline.config = usual
    return runs


def _run(opened: Opened, event: dict[str, Any], raw: Any, bundle: Any, n_repeats: int = 1) -> Run:
    """One detector-visit with the pipeline as it is, timed, and SEP's background on its image beside it."""
    visit, detector = event["visit"], event["detector"]
    timed: list[tuple[float, dict[str, float], float]] = []
    try:
        for _ in range(n_repeats):
            first = opened.measure(raw, bundle)
            stages = {timing.name: timing.cpu_s for timing in first.stopwatch.timings}
            timed.append((to_dia_sources(stages), stages, reference_cpu_s(first.exposure.frame.image)))
    except UnusableDataError as error:
        return Run(
            visit=visit, detector=detector, outcome=error.outcome.value, quality=None, dia_cpu_s=0.0, stage_cpu_s={},
            reference_cpu_s=None,
        )  # fmt: skip
    dia_cpu_s, stages, _ = min(timed, key=lambda item: item[0])
    rerun = compare(opened.dataset, first, visit, detector)
    return Run(
        visit=visit,
        detector=detector,
        outcome=rerun.outcome,
        quality=rerun.quality,
        dia_cpu_s=dia_cpu_s,
        stage_cpu_s=stages,
        reference_cpu_s=min(reference for _, _, reference in timed),
    )


def section(
    choices: Sequence[Choice],
    runs: dict[str, list[Run]],
    tell: Callable[[str], None],
    n_resamples: int = N_RESAMPLES,
) -> dict[str, Any]:
    """The report's ``choices``: settings, speeds and figures of each, with the differences to the default."""
    default = runs[DEFAULT]
    r_cpu_s = references(list(runs.values()))
    usual_redrawn: dict[tuple[int, ...], Any] = {}
    described: dict[str, Any] = {}
    for choice in choices:
        tell(choice.name)
        own = runs[choice.name]
        qualities = [(run.quality, usual.quality) for run, usual in zip(own, default, strict=True)]
        both = tuple(i for i, pair in enumerate(qualities) if None not in pair)
        parts, usual_parts = ([q for i in both if (q := qualities[i][side]) is not None] for side in (0, 1))
        entry: dict[str, Any] = {
            "meaning": choice.meaning,
            "setting": choice.changes,
            "stage": choice.stage,
            "detector_visits": len(parts),
            "without_difference": [run.outcome for run in own if run.quality is None],
            **speeds(own, default, r_cpu_s, choice.stage),
            **figures(parts),
        }
        if choice.name != DEFAULT:
            if both not in usual_redrawn:
                usual_redrawn[both] = resampled(usual_parts, n_resamples)
            found = differences(parts, usual_parts, resampled(parts, n_resamples), usual_redrawn[both])
            entry["difference"] = {name: {"value": d.value, "error": d.error} for name, d in found.items()}
        described[choice.name] = without_nan(entry)
    return described


@click.command(
    "bench-choices",
    epilog="""\b
Examples:
  sub60 bench-choices --report choices.json            every choice on three simulated detector-visits
  sub60 bench-choices --dataset var/quality --detector-visits 6 --choices psf_piff,lanczos_4""",
)
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), default=Path("var/choices"), show_default=True
)
@click.option("--dataset", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Use this one as it is.")
@click.option("--choices", "names", default="", help="Comma-separated; default: all. The default runs always.")
@click.option("--detector-visits", "n", type=click.IntRange(1), help="The first so many; default: all.")
@click.option(
    "--repeats", type=click.IntRange(1), default=1, show_default=True, help="Runs of each; the fastest counts."
)
@click.option("--report", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the report here.")
def command(folder: Path, dataset: Path | None, names: str, n: int | None, repeats: int, path: Path | None) -> None:
    """Run the pipeline with one choice changed at a time; print cost and quality of each beside the default."""
    console = Console(stderr=True)
    wanted = [name for name in names.split(",") if name]
    if unknown := sorted(set(wanted) - {choice.name for choice in CHOICES}):
        known = ", ".join(choice.name for choice in CHOICES)
        raise click.BadParameter(f"no such choice: {', '.join(unknown)}; there are {known}", param_hint="--choices")
    choices = available(wanted, console)
    dataset = (
        dataset or make_dataset(folder / "dataset", preset("quality", visits=3, detectors=(94,)), console)
    ).resolve()
    events = readouts(read_events(dataset))[:n]
    opened = open_dataset(dataset)
    with bar("running choices", console) as progress:
        task = progress.add_task("", total=len(events) * len(choices))
        runs = run_choices(
            opened, events, choices, lambda line: progress.update(task, advance=1, description=line), repeats
        )
    with bar("comparing", console) as progress:
        task = progress.add_task("", total=len(choices))
        described = section(choices, runs, lambda line: progress.update(task, advance=1, description=line))
    show(described, table_console(200))
    if path is not None:
        _report(dataset, events, runs, described).write(path)
        console.print(f"report: {path}")


def _report(
    dataset: Path, events: Sequence[dict[str, Any]], runs: dict[str, list[Run]], described: dict[str, Any]
) -> Report:
    made = simulation(dataset)
    r_cpu_s = references(list(runs.values()))
    return Report.model_validate(
        {
            "schema": 1,
            "environment": environment(),
            "command": "bench-choices",
            "seeds": [made["seed"]] if "seed" in made else [],
            "visits": len({event["visit"] for event in events}),
            "detector_visits": len(events),
            "reference_cpu_s": sorted(r_cpu_s)[len(r_cpu_s) // 2],
            "choices": described,
            "not_simulated": made.get("not_simulated", []),
        }
    )
