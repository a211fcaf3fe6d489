"""``sub60 train-reliability``: simulate, measure, train, judge, and put the model where the pipeline finds it."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

import core
from benchmarks.display import bar
from benchmarks.environment import environment
from benchmarks.reliability import training
from benchmarks.reliability.evaluation import card, figures, missed
from benchmarks.reliability.examples import LOOSER, WORSE, Examples, read_examples
from benchmarks.reliability.sets import SETS, SimulatedSet
from benchmarks.report import Report
from benchmarks.simulator.dataset import n_steps, simulate
from core.contracts.tree_model import TreeModel
from core.reliability_model import PREFIX

DATA: Final = Path(core.__file__).parent / "data"


@click.command(
    "train-reliability",
    epilog="""\b
Examples:
  sub60 train-reliability                                 everything: an hour once, later only what has changed
  sub60 train-reliability --out /tmp/model --report r.json   without touching the model that is shipped""",
)
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), default=Path("var/reliability"), show_default=True,
    help="Simulated skies and the features measured on them; kept.",
)  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=DATA, help="Default: core/data.")
@click.option("--report", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the report here.")
def command(folder: Path, out: Path, path: Path | None) -> None:
    """Train the model of the alerts' reliability on simulated skies and judge it on skies of another make."""
    training.lightgbm()
    console = Console(stderr=True)
    train, sky, test = _examples(folder.resolve(), console)
    with console.status("training"):
        held_out = training.held_out_logits(train, sky)
        model = training.fit(train)
        model = replace(model, bias=training.best_bias(train, held_out))
        model = replace(model, version=training.version_of(model))
    on_train = figures(train, _probability(held_out + model.bias))
    on_test = figures(test, _probability(training.logits(model, test)))
    text = _ship(model, out, on_train, on_test)
    click.echo(text)
    for line in missed(on_test):
        console.print(f"not reached: {line}", markup=False)
    if path is not None:
        _report(on_train, on_test, model.version).write(path)
        console.print(f"report: {path}")


def _examples(folder: Path, console: Console) -> tuple[Examples, NDArray[np.int64], Examples]:
    """Training examples, the number of each one's sky, and the test's examples."""
    parts: dict[bool, list[Examples]] = {False: [], True: []}
    skies: list[int] = []
    for chosen in SETS:
        dataset = folder / chosen.name / "dataset"
        _simulate(chosen, dataset, console)
        with bar(f"measuring {chosen.name}", console, transient=True) as progress:
            pipelines = (LOOSER,) if chosen.is_test else (LOOSER, WORSE)
            task = progress.add_task("", total=len(pipelines) * chosen.config().visits)
            for changes in pipelines:
                for examples in read_examples(dataset, folder / chosen.name / "features", changes):
                    parts[chosen.is_test].append(examples)
                    if not chosen.is_test:
                        skies += [chosen.seed] * examples.label.size
                    progress.advance(task)
    return Examples.join(parts[False]), np.array(skies, np.int64), Examples.join(parts[True])


def _simulate(chosen: SimulatedSet, dataset: Path, console: Console) -> None:
    config = chosen.config()
    with bar(f"simulating {chosen.name}", console, transient=True) as progress:
        task = progress.add_task("", total=n_steps(config))
        simulate(dataset, config, 1, lambda line: progress.update(task, advance=1, description=line))


def _probability(logit: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-np.clip(logit, -30, 30))))


def _ship(model: TreeModel, out: Path, on_train: dict[str, Any], on_test: dict[str, Any]) -> str:
    """Write the model and its card in the place of the one before; gives the card."""
    out.mkdir(parents=True, exist_ok=True)
    for older in (*out.glob(f"{PREFIX}*.npz"), *out.glob(f"{PREFIX}*.md")):
        older.unlink()
    file = out / f"{PREFIX}{model.version}.npz"
    np.savez_compressed(file, allow_pickle=False, **training.arrays(model))
    text = card(model, file, SETS, on_train, on_test)
    file.with_suffix(".md").write_text(text, encoding="utf-8")
    return text


def _report(on_train: dict[str, Any], on_test: dict[str, Any], version: str) -> Report:
    return Report.model_validate(
        {
            "schema": 1,
            "environment": environment(),
            "command": "train-reliability",
            "seeds": [chosen.seed for chosen in SETS],
            "detector_visits": on_train["detector_visits"] + on_test["detector_visits"],
            "reliability_training": {"version": version, "held_out": on_train, "test": on_test},
        }
    )
