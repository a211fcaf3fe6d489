"""``sub60 bench-effects``: what each effect of the simulated sky costs in quality, switched off one after the other."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.choice_figures import N_RESAMPLES, figures, resampled
from benchmarks.display import bar, table_console
from benchmarks.environment import environment
from benchmarks.quality.evaluate import DetectorQuality
from benchmarks.quality.rerun import evaluate_events
from benchmarks.quality.summary import without_nan
from benchmarks.replay import read_events, readouts
from benchmarks.report import Report
from benchmarks.simulator.config import SimulationConfig, preset
from benchmarks.simulator.dataset import is_complete, n_steps, simulate

ALL: Final = "everything on"
FIGURES: Final = {
    "completeness_snr6": "completeness_snr6",
    "snr50": "snr50",
    "false_positives": "false_positives.total",
    "false_positives_snr6": "false_positives.snr6",
    "astrometry_ratio": "astrometry.ratio_to_crlb",
    "astrometry_floor_mas": "astrometry.floor_mas",
    "flux_excess_mag": "flux.excess_scatter_mag",
    "pull_mean": "pull.mean",
    "pull_sd": "pull.sd",
    "masked_fraction": "masked_fraction",
}
"""Name in the report and place in its ``quality`` section."""
_COUNTED: Final = ("false_positives", "false_positives_snr6")
"""Means of counts per detector-visit: their errors are Poisson's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """One effect and how it is switched off: a switch of the simulator, or fields of its configuration."""

    name: str
    meaning: str
    changes: dict[str, Any] = field(default_factory=dict)
    """Empty: the switch of that name."""

    def without(self, config: SimulationConfig) -> SimulationConfig:
        """The same sky without it."""
        if self.name == ALL:
            return config
        if self.changes:
            return replace(config, **self.changes)
        return replace(config, effects=replace(config.effects, **{self.name: False}))


EFFECTS: Final = (
    Effect(name=ALL, meaning="the sky as it is"),
    Effect(name="turbulence", meaning="displacements of 5 mas, correlated over 1-3 arcmin"),
    Effect(name="dcr", meaning="differential chromatic refraction"),
    Effect(name="chromatic_psf", meaning="blue stars are wider"),
    Effect(name="brighter_fatter", meaning="charge pushes charge away"),
    Effect(name="psf_variation", meaning="PSF over the detector, with structure below a polynomial's"),
    Effect(name="aureole", meaning="wide wings of the PSF"),
    Effect(name="proper_motion", meaning="stars moved since the template"),
    Effect(name="pointing_error", meaning="pointing off by arcseconds"),
    Effect(name="sky_gradient", meaning="sky not flat"),
    Effect(name="cosmic_rays", meaning="50 tracks"),
    Effect(name="saturation", meaning="full wells"),
    Effect(name="bleeds", meaning="charge running along columns"),
    Effect(name="ghosts", meaning="reflections of bright stars"),
    Effect(name="defects", meaning="bad pixels and columns"),
    Effect(name="crosstalk", meaning="amplifiers see each other"),
    Effect(name="nonlinearity", meaning="gain falls with charge"),
    Effect(name="dome_error", meaning="flats unlike the sky's"),
    Effect(name="calibration_noise", meaning="calibrations from 20 noisy frames"),
    Effect(name="reference_errors", meaning="errors of the reference catalog"),
    Effect(
        name="template_noise", meaning="noise of the template: 20 inputs instead of 5", changes={"template_inputs": 20}
    ),
)


def chosen(names: str) -> list[Effect]:
    """The full sky and the named effects, all for none."""
    wanted = [name for name in names.split(",") if name]
    if unknown := sorted(set(wanted) - {effect.name for effect in EFFECTS}):
        known = ", ".join(effect.name for effect in EFFECTS[1:])
        raise click.BadParameter(f"no such effect: {', '.join(unknown)}; there are {known}", param_hint="--effects")
    return [effect for effect in EFFECTS if not wanted or effect.name in wanted or effect.name == ALL]


def base_config(name: str, visits: int, seed: int) -> SimulationConfig:
    """The full sky of a preset, without streaks: one of them decides more than any effect."""
    changes: dict[str, object] = {"visits": visits, "seed": seed, "streak_fraction": 0.0}
    return preset(name, **changes) if name == "test" else preset(name, detectors=(94,), **changes)


def row(parts: Sequence[DetectorQuality], n_resamples: int = N_RESAMPLES) -> dict[str, dict[str, float | None]]:
    """Value and error of every figure: bootstrap over the injections, Poisson for counts."""
    values, redrawn = figures(parts, FIGURES), resampled(parts, n_resamples, paths=FIGURES)
    found: dict[str, dict[str, float | None]] = {}
    for name, value in values.items():
        known = [one for sample in redrawn if (one := sample[name]) is not None]
        error = float(np.std(known, ddof=1)) if len(known) > n_resamples // 2 else None
        if name in _COUNTED and value is not None:
            error = math.sqrt(max(value, 1 / len(parts)) / len(parts))
        found[name] = {"value": value, "error": error}
    return found


def costs(
    full: dict[str, dict[str, float | None]], without: dict[str, dict[str, float | None]]
) -> dict[str, dict[str, float | None]]:
    """Full sky minus the sky without an effect: what it costs. Errors add in quadrature: an upper bound, as both
    skies have the same sources."""
    found: dict[str, dict[str, float | None]] = {}
    for name in FIGURES:
        a, b = full[name]["value"], without[name]["value"]
        da, db = full[name]["error"], without[name]["error"]
        found[name] = {
            "value": None if a is None or b is None else a - b,
            "error": None if da is None or db is None else math.hypot(da, db),
        }
    return found


@click.command(
    "bench-effects",
    epilog="""\b
Examples:
  sub60 bench-effects --effects turbulence,dcr --report effects.json    two effects, about ten minutes
  sub60 bench-effects                                                   all, about two hours the first time
  sub60 bench-effects --preset test --visits 2                          the small test camera, to see that it works""",
)
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), default=Path("var/effects"), show_default=True
)
@click.option("--effects", "names", default="", help="Comma-separated; default: all.")
@click.option("--preset", "preset_name", type=click.Choice(["quality", "test"]), default="quality", show_default=True)
@click.option(
    "--visits", type=click.IntRange(1), default=3, show_default=True, help="Visits of each sky, bands in turn."
)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--report", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the report here.")
def command(folder: Path, names: str, preset_name: str, visits: int, seed: int, path: Path | None) -> None:
    """Simulate the same seeds without one effect at a time; print what each costs in quality."""
    console, effects = Console(stderr=True), chosen(names)
    base = base_config(preset_name, visits, seed)
    configs = {effect.name: effect.without(base) for effect in effects}
    rows: dict[str, dict[str, dict[str, float | None]]] = {}
    outcomes: dict[str, list[str]] = {}
    with bar("effects", console) as progress:
        task = progress.add_task("", total=sum(n_steps(config) + visits for config in configs.values()))

        def tell(line: str) -> None:
            progress.update(task, advance=1, description=line)

        for name, config in configs.items():
            dataset = folder / f"{preset_name}-{config.digest()}"
            _simulate(dataset, config, name, tell)
            reruns = evaluate_events(dataset.resolve(), readouts(read_events(dataset)))
            progress.update(task, advance=visits, description=f"{name}: compared")
            parts = [rerun.quality for rerun in reruns if rerun.quality is not None]
            outcomes[name] = [rerun.outcome for rerun in reruns]
            rows[name] = row(parts)
    described = section(effects, rows, outcomes)
    show(described, table_console(200))
    if path is not None:
        _report(described, base, outcomes).write(path)
        console.print(f"report: {path}")


def _simulate(dataset: Path, config: SimulationConfig, name: str, tell: Callable[[str], None]) -> None:
    if is_complete(dataset, config):
        for _ in range(n_steps(config)):
            tell(f"{name}: is there")
        return
    simulate(dataset, config, 1, lambda line: tell(f"{name} off: {line}"))


def section(
    effects: Sequence[Effect],
    rows: dict[str, dict[str, dict[str, float | None]]],
    outcomes: dict[str, list[str]],
) -> dict[str, Any]:
    """The report's ``effects``: figures without each, and what it costs."""
    described: dict[str, Any] = {}
    for effect in effects:
        entry: dict[str, Any] = {
            "meaning": effect.meaning,
            "detector_visits": len(outcomes[effect.name]),
            "without_difference": [outcome for outcome in outcomes[effect.name] if outcome != "alerts"],
            "figures": rows[effect.name],
        }
        if effect.name != ALL:
            entry["cost"] = costs(rows[ALL], rows[effect.name])
        described[effect.name] = without_nan(entry)
    return described


def _report(described: dict[str, Any], base: SimulationConfig, outcomes: dict[str, list[str]]) -> Report:
    return Report.model_validate(
        {
            "schema": 1,
            "environment": environment(),
            "command": "bench-effects",
            "seeds": [base.seed],
            "visits": base.visits,
            "detector_visits": sum(len(found) for found in outcomes.values()),
            "effects": described,
            "not_simulated": base.not_simulated(),
        }
    )


_COLUMNS: Final = {
    "completeness_snr6": ("complete 6-100 [%]", 100.0, 2),
    "snr50": ("snr50", 1.0, 3),
    "false_positives": ("false", 1.0, 1),
    "false_positives_snr6": ("false > 6", 1.0, 1),
    "astrometry_ratio": ("mas / bound", 1.0, 3),
    "astrometry_floor_mas": ("floor [mas]", 1.0, 2),
    "flux_excess_mag": ("flux excess [mmag]", 1000.0, 2),
    "pull_mean": ("pull mean", 1.0, 3),
    "pull_sd": ("pull sd", 1.0, 3),
    "masked_fraction": ("masked [%]", 100.0, 2),
}


def show(described: dict[str, Any], console: Console) -> None:
    """Print the full sky's figures and, below, what each effect adds to them."""
    table = Table(title="what each effect costs: full sky minus the sky without it", title_justify="left")
    table.add_column("effect")
    for heading, _, _ in _COLUMNS.values():
        table.add_column(heading, justify="right")
    for name, entry in described.items():
        shown = entry.get("cost", entry["figures"])
        sign = "+" if "cost" in entry else ""
        table.add_row(name, *(_text(shown[key], factor, digits, sign) for key, (_, factor, digits) in _COLUMNS.items()))
    console.print(table)
    for name, entry in described.items():
        lost = f"; without a difference: {', '.join(gone)}" if (gone := entry["without_difference"]) else ""
        console.print(f"{name}: {entry['meaning']}{lost}", markup=False, highlight=False)


def _text(figure: dict[str, float | None], factor: float, digits: int, sign: str) -> str:
    value, error = figure["value"], figure["error"]
    if value is None:
        return ""
    text = f"{factor * value:{sign}.{digits}f}"
    return text if error is None else f"{text} ± {factor * error:.{digits}f}"
