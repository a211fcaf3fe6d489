"""The report's ``peers`` section from costs and figures, and its tables."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.peers.bench import Outcome
from benchmarks.peers.catalog import AFTER_DIFFERENCE, BEFORE_DIFFERENCE, COSMIC_RAYS, DIFFERENCES, PEERS
from benchmarks.peers.cost import Cost, of_sum, ratio
from benchmarks.peers.ours import Ours
from benchmarks.quality.summary import without_nan

BAR: Final = 10.0
"""Our CPU to the DIASource catalog is at most this part of the chain's with astroscrappy."""
WITHOUT_DIFFERENCE: Final = "chain_with_astroscrappy_without_difference"
"""The lower bound of the chain that rests on no extrapolation."""
DIFFERENCE_STAGES: Final = ("subtract", "detect", "measure")
CHAINS: Final = ("chain", "chain_with_astroscrappy", WITHOUT_DIFFERENCE)


def peer_rows(outcomes: Mapping[str, Outcome], ours: Ours, our_figures: Mapping[str, Any]) -> dict[str, Any]:
    """``peers`` of the report: ours, every peer that ran, and the sums of the chain."""
    total = ours.cost()
    rows = {"ours": _row(total, total, ours.dia_stages, our_figures)}
    for name, outcome in outcomes.items():
        stages = PEERS[name].our_stages
        rows[name] = _row(outcome.cost, ours.cost(stages), stages, outcome.figures) | outcome.more
    costs = {name: outcome.cost for name, outcome in outcomes.items()}
    extrapolated = {name for name, outcome in outcomes.items() if "extrapolated_by_area" in outcome.more}
    for name in CHAINS:
        members, missing = chain_members(name, costs)
        if members:
            row = _row(of_sum(costs[member] for member in members), total, ours.dia_stages, {})
            row |= {"members": members, "missing": missing}
            if name == WITHOUT_DIFFERENCE:
                same = [stage for stage in ours.dia_stages if stage not in DIFFERENCE_STAGES]
                row["cpu_ratio_like_for_like"] = ratio(
                    of_sum(costs[member] for member in members), ours.cost(tuple(same))
                )
            row["extrapolated"] = [member for member in members if member in extrapolated]
            rows[name] = row | {"quality": _chain_figures(name, outcomes)}
    return {name: without_nan(row) for name, row in rows.items()}


def chain_members(chain: str, ran: Iterable[str]) -> tuple[list[str], list[str]]:
    """Peers that a chain is the sum of, and those it lacks here."""
    there = set(ran)
    difference = next((name for name in DIFFERENCES if name in there), " or ".join(DIFFERENCES))
    wanted = [*BEFORE_DIFFERENCE, difference, AFTER_DIFFERENCE]
    if chain == WITHOUT_DIFFERENCE:
        wanted = [*BEFORE_DIFFERENCE]
    if chain != "chain":
        wanted = [COSMIC_RAYS, *wanted]
    return [name for name in wanted if name in there], [name for name in wanted if name not in there]


def _chain_figures(chain: str, outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """Injections found and false detections of the chain's last step, with or without astroscrappy's mask."""
    last = outcomes.get(AFTER_DIFFERENCE)
    if last is None or chain == WITHOUT_DIFFERENCE:
        return {}
    figures = last.figures
    if chain == "chain":
        return {name: value for name, value in figures.items() if not name.endswith("_without_cr")}
    if "found_without_cr" not in figures:
        return {}
    return {
        "injected": figures["injected"],
        "found": figures["found_without_cr"],
        "false": figures["false_without_cr"],
    }


def _row(cost: Cost, ours: Cost, stages: Sequence[str], figures: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "cpu_s": cost.cpu_s,
        "wall_s": cost.wall_s,
        "x_r": cost.x_r,
        "cpu_ratio_to_ours": ratio(cost, ours),
        "our_cpu_s": ours.cpu_s,
        "our_stages": list(stages),
        "n_runs": cost.n_runs,
        "quality": dict(figures),
    }


def show(report: Mapping[str, Any], console: Console) -> None:
    """Print the tables of a report of this kind."""
    rows = report["peers"]
    console.print(_costs(rows))
    console.print(_qualities(rows))
    for title, names in (("not installed", "peers_missing"), ("failed", "peers_failed")):
        for name, reason in report.get(names, {}).items():
            console.print(f"{title}: {name}: {reason}", markup=False)
    console.print(verdict(rows), markup=False)


def verdict(rows: Mapping[str, Any]) -> str:
    """One line: whether our CPU is at most a tenth of the chain's, and what the answer rests on."""
    row = rows.get("chain_with_astroscrappy")
    if row is None or not row["cpu_ratio_to_ours"]:
        return "the chain with astroscrappy was not measured"
    found = row["cpu_ratio_to_ours"]
    text = f"our CPU to the DIASource catalog is 1/{found:.1f} of the chain's with astroscrappy"
    if row["missing"]:
        return f"{text}, which lacks {', '.join(row['missing'])}: no verdict on the bar of 1/{BAR:.0f}"
    if not row["extrapolated"]:
        return f"{text} (bar: 1/{BAR:.0f}, {'met' if found >= BAR else 'NOT met'})"
    bound = rows[WITHOUT_DIFFERENCE]
    is_met = "met" if bound["cpu_ratio_to_ours"] >= BAR else "met only by extrapolation" if found >= BAR else "NOT met"
    return (
        f"{text} (bar: 1/{BAR:.0f}, {is_met}); {' and '.join(row['extrapolated'])} extrapolated by area from one tile. "
        f"Measured alone: all of ours is 1/{bound['cpu_ratio_to_ours']:.1f} of the chain without a difference, "
        f"ours without one 1/{bound['cpu_ratio_like_for_like']:.1f}"
    )


def _costs(rows: Mapping[str, Any]) -> Table:
    table = Table(title="CPU beside ours (ratio: peer over ours, each in its R)", title_justify="left")
    for column in ("peer", "CPU s", "wall s", "x R", "ours CPU s", "ratio", "runs", "our stages"):
        table.add_column(column, justify="left" if column in {"peer", "our stages"} else "right")
    for name, row in rows.items():
        ratio_text = "" if row["cpu_ratio_to_ours"] is None else f"{row['cpu_ratio_to_ours']:.1f}"
        stages = ", ".join(row["our_stages"]) if name in PEERS else "raw to DIASource catalog"
        notes = ["extrapolated"] if row.get("extrapolated_by_area") or row.get("extrapolated") else []
        notes += ["incomplete"] if row.get("missing") else []
        table.add_row(
            name + (f" ({', '.join(notes)})" if notes else ""), f"{row['cpu_s']:.3f}", f"{row['wall_s']:.3f}",
            f"{row['x_r']:.1f}", f"{row['our_cpu_s']:.3f}", ratio_text, str(row["n_runs"]), stages,
        )  # fmt: skip
    return table


_FIGURES: Final[tuple[tuple[str, tuple[str, ...], Callable[[Mapping[str, Any]], str]], ...]] = (
    ("injections found, SNR_true > 6", ("found", "injected"), lambda f: f"{f['found']:.0f}/{f['injected']:.0f}"),
    ("false detections there", ("false",), lambda f: f"{f['false']:.0f}"),
    ("astrometry per axis", ("astrometry_mas",), lambda f: f"{f['astrometry_mas']:.1f} mas"),
    ("PSF error, rms of peak", ("psf_rms_of_peak",), lambda f: f"{100 * f['psf_rms_of_peak']:.2f} %"),
    ("cosmic-ray pixels, complete", ("cr_complete",), lambda f: f"{100 * f['cr_complete']:.1f} %"),
    ("cosmic-ray pixels, pure", ("cr_pure",), lambda f: f"{100 * f['cr_pure']:.1f} %"),
    ("sky left where nothing is, mean", ("sky_left_e",), lambda f: f"{f['sky_left_e']:+.2f} e-"),
    ("… rms over 128 pixel blocks", ("sky_left_rms_e",), lambda f: f"{f['sky_left_rms_e']:.2f} e-"),
    ("sources of the science frame", ("sources",), lambda f: f"{f['sources']:.0f}"),
)


def _qualities(rows: Mapping[str, Any]) -> Table:
    table = Table(title="quality against the simulation's truth", title_justify="left", show_header=False)
    for label, needed, form in _FIGURES:
        known = {
            name: form(row["quality"])
            for name, row in rows.items()
            if all(row["quality"].get(key) is not None for key in needed) and name != AFTER_DIFFERENCE
        }
        if known:
            table.add_row(label, "   ".join(f"{name} {value}" for name, value in known.items()))
    return table
