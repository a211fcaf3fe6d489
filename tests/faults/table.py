"""Writes the table of docs/reliability.md from reports of ``make faults`` and ``make soak``.

::

    python -m tests.faults.table build/faults.json [build/soak.json …] --write docs/reliability.md
"""

import json
from pathlib import Path
from typing import Any, Final

import click

BEGIN: Final = "<!-- begin: written from the reports, do not edit -->"
END: Final = "<!-- end -->"


def rows(faults: dict[str, dict[str, Any]]) -> list[str]:
    """A line a fault, both transports beside each other."""
    names = list(dict.fromkeys(name.rpartition(" [")[0] for name in faults))
    lines = [
        "| fault | promise | Redis: in → out, lost, twice, recovery | Kafka: in → out, lost, twice, recovery |",
        "|---|---|---|---|",
    ]
    for name in names:
        cells = [_cell(faults.get(f"{name} [{transport}]")) for transport in ("redis", "kafka")]
        promise = next(f["promise"] for full, f in faults.items() if full.startswith(f"{name} ["))
        lines.append(f"| {name} | {promise} | {cells[0]} | {cells[1]} |")
    return lines


def _cell(found: dict[str, Any] | None) -> str:
    if found is None:
        return "-"
    recovery = "" if found["recovery_s"] is None else f", {found['recovery_s']:.1f} s"
    mark = "" if found["passed"] else " **not kept**"
    return f"{found['events']} → {found['alerts']}, {found['lost']}, {found['duplicates']}{recovery}{mark}"


def summary(report: dict[str, Any]) -> str:
    """What all of them amount to."""
    faults = report["faults"].values()
    kept, n = sum(f["passed"] for f in faults), len(faults)
    where = report["environment"]
    return (
        f"`{report['command']}` at {where['commit'][:12]} on {where['cores']} cores ({where['cpu']}): "
        f"{kept} of {n} kept; "
        f"{sum(f['events'] for f in faults)} readouts in, {sum(f['alerts'] for f in faults)} alerts out, "
        f"{sum(f['lost'] for f in faults)} lost, {sum(f['duplicates'] for f in faults)} twice."
    )


def soak_line(report: dict[str, Any]) -> str:
    """One soak."""
    soak = report["soak"]
    growth = "-" if soak["growth_max"] is None else f"{100 * soak['growth_max']:.1f} %"
    return (
        f"`{report['command']}` at {report['environment']['commit'][:12]}: {soak['detector_visits']} detector-visits, "
        f"{sum(soak['faults'].values())} random faults, {soak['alerts']} alerts, {soak['lost']} lost, "
        f"{soak['duplicates']} twice; memory of any process at most {growth} more, "
        f"descriptors {soak['handles_max']:+d}, "
        f"{soak['lasting_keys']} keys without a time to live; {soak['wall_s'] / 60:.0f} min."
    )


@click.command(
    epilog="""\b
Example:
  python -m tests.faults.table build/faults.json build/soak.json --write docs/reliability.md"""
)
@click.argument("reports", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--write", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Page to rewrite.")
def main(reports: tuple[Path, ...], write: Path | None) -> None:
    """Make the table of REPORTS; with --write, between the marks of a page."""
    lines: list[str] = []
    faults: dict[str, dict[str, Any]] = {}
    for report in (json.loads(path.read_text()) for path in reports):
        lines += [summary(report) if "faults" in report else soak_line(report), ""]
        faults |= report.get("faults", {})  # of a fault tried twice the last one counts
    if faults:
        lines += [*rows(faults), ""]
    text = "\n".join([BEGIN, "", *lines, END])
    if write is None:
        click.echo(text)
        return
    page = write.read_text()
    before, _, rest = page.partition(BEGIN)
    write.write_text(before + text + rest.partition(END)[2])


if __name__ == "__main__":
    main()
