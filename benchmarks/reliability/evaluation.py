"""What a model does on skies it has not seen: figures, their report and the card beside the model."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.false_positives import CAUSES
from benchmarks.quality.reliability import BOGUS, CLASSES, MIN_SNR, THRESHOLD, count, summarize_reliability
from benchmarks.reliability.examples import Examples
from benchmarks.reliability.sets import SimulatedSet
from benchmarks.reliability.training import ALLOWED_BOGUS, ALLOWED_LOSS, N_TREES, PARAMETERS
from core.contracts.tree_model import TreeModel

Float64 = NDArray[np.float64]

MAX_FALSE_PER_DETECTOR: Final = 1.5
_CARD_PARAMETERS: Final = ("learning_rate", "num_leaves", "min_data_in_leaf", "lambda_l2", "seed")


def figures(examples: Examples, probability: Float64) -> dict[str, Any]:
    """Recall by class, bogus passing, and false positives by cause, of sources over six sigma."""
    counts = []
    # visits of a worse pipeline have none that count
    for visit in np.unique(examples.visit[examples.is_kept]):
        rows = (examples.visit == visit) & examples.is_kept
        counts.append(count(examples.label[rows], examples.snr[rows], probability[rows]))
    is_bogus = (examples.label == BOGUS) & (np.abs(examples.snr) > MIN_SNR) & examples.is_kept
    passes = is_bogus & (probability >= THRESHOLD)
    causes = {
        name: {"n": int((is_bogus & (examples.cause == i)).sum()), "pass": int((passes & (examples.cause == i)).sum())}
        for i, name in enumerate(CAUSES)
    }
    return {**summarize_reliability(counts), "detector_visits": len(counts), "causes": causes}


def missed(found: dict[str, Any]) -> list[str]:
    """What was asked for and is not there."""
    low = [
        f"recall of {name} {value:.3f} < {1 - ALLOWED_LOSS:g}"
        for name, value in found["recall"].items()
        if value is not None and value < 1 - ALLOWED_LOSS
    ]
    if found["bogus_pass"] is not None and found["bogus_pass"] > ALLOWED_BOGUS:
        low.append(f"bogus passing {found['bogus_pass']:.3f} > {ALLOWED_BOGUS:g}")
    if found["false_positives_snr6"] > MAX_FALSE_PER_DETECTOR:
        low.append(f"false positives left {found['false_positives_snr6']:.2f} > {MAX_FALSE_PER_DETECTOR:g}")
    return low


def importance(model: TreeModel) -> list[tuple[str, int]]:
    """Features by how many nodes ask for them."""
    used = np.bincount(model.feature[model.feature >= 0], minlength=len(model.feature_names))
    order = np.argsort(-used, kind="stable")
    return [(model.feature_names[i], int(used[i])) for i in order]


def card(
    model: TreeModel, path: Path, sets: Sequence[SimulatedSet], held_out: dict[str, Any], test: dict[str, Any]
) -> str:
    """The text beside the model."""
    seeds = [", ".join(str(s.seed) for s in sets if s.is_test is is_test) for is_test in (False, True)]
    parameters = ", ".join(f"{name} {PARAMETERS[name]}" for name in _CARD_PARAMETERS)
    lines = [
        f"# Reliability model {model.version}",
        "",
        f"file      {path.name}, {path.stat().st_size} bytes",
        f"sha256    {hashlib.sha256(path.read_bytes()).hexdigest()}",
        "license   as this repository; made by `make train-reliability` from simulations alone",
        f"trees     {N_TREES}, LightGBM, {parameters}",
        f"training  seeds {seeds[0]}: von Karman PSFs, cosmic-ray tracks, a crowded sky",
        f"test      seeds {seeds[1]}: Moffat PSFs, muons with Landau deposits, the density of the bench of quality",
        "",
        f"DIASources over {MIN_SNR:g} sigma after the flag cuts, at {THRESHOLD:g}:",
        "",
        "| figure | asked | training skies, held out | test skies |",
        "|---|---|---|---|",
        *_rows(held_out, test),
        "",
        "| cause of bogus | training n | pass | test n | pass |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {held_out['causes'][name]['n']} | {held_out['causes'][name]['pass']} "
            f"| {test['causes'][name]['n']} | {test['causes'][name]['pass']} |"
            for name in CAUSES
        ),
        "",
        "Features, by the nodes that ask for them:",
        "",
        *(f"    {name:22s}{number:6d}" for name, number in importance(model)),
    ]
    return "\n".join(lines) + "\n"


def _rows(held_out: dict[str, Any], test: dict[str, Any]) -> list[str]:
    def cell(found: dict[str, Any], value: float | None, name: str) -> str:
        return "-" if value is None else f"{value:.3f} of {found['n'][name]}"

    rows = [
        f"| recall, {name} | >= {1 - ALLOWED_LOSS:g} | {cell(held_out, held_out['recall'][name], name)} "
        f"| {cell(test, test['recall'][name], name)} |"
        for name in CLASSES
    ]
    passing = [cell(found, found["bogus_pass"], "bogus") for found in (held_out, test)]
    rows.append(f"| bogus passing | <= {ALLOWED_BOGUS:g} | {passing[0]} | {passing[1]} |")
    left = [
        f"{found['false_positives_snr6']:.2f} in {found['detector_visits']} detector-visits"
        for found in (held_out, test)
    ]
    rows.append(f"| false positives left | <= {MAX_FALSE_PER_DETECTOR:g} | {left[0]} | {left[1]} |")
    return rows
