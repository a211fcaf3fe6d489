"""Run time against visit order, as an SVG: one panel a step, a line a detector."""

from typing import Any, Final

import numpy as np

COLORS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
"""Told apart by color-blind eyes (Okabe & Ito 2008)."""
PANELS: Final = ("sum", "associate", "claim", "forced", "features", "package", "commit", "load")
BEFORE: Final = ("tail", "load")
"""Done before the pixels, or while they are worked on."""
COLUMNS: Final = 4
WIDTH: Final = 300
HEIGHT: Final = 170
SMOOTH: Final = 9


def runtime_picture(series: list[dict[str, Any]]) -> str:
    """Panels of running medians [ms] by the order of the visit; the sum is of all after the pixels, load is before."""
    visits = sorted({line["visit"] for line in series})
    order = {visit: i for i, visit in enumerate(visits)}
    detectors = sorted({line["detector"] for line in series})
    rows = -(-len(PANELS) // COLUMNS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{COLUMNS * WIDTH}" height="{rows * HEIGHT + 30}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, name in enumerate(PANELS):
        x0, y0 = number % COLUMNS * WIDTH + 45, number // COLUMNS * HEIGHT + 20
        curves = {d: _curve([line for line in series if line["detector"] == d], order, name) for d in detectors}
        parts += _panel(name, curves, len(visits), x0, y0)
    for k, detector in enumerate(detectors):
        x, y = 45 + 110 * k, rows * HEIGHT + 18
        parts.append(f'<text x="{x}" y="{y}" fill="{COLORS[k % len(COLORS)]}">detector {detector}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _curve(lines: list[dict[str, Any]], order: dict[int, int], name: str) -> list[tuple[int, float]]:
    lines = sorted(lines, key=lambda line: order[line["visit"]])
    values = np.array([1000 * _value(line, name) for line in lines])
    half = SMOOTH // 2
    medians = [float(np.median(values[max(0, i - half) : i + half + 1])) for i in range(values.size)]
    return [(order[line["visit"]], value) for line, value in zip(lines, medians, strict=True)]


def _value(line: dict[str, Any], name: str) -> float:
    if name != "sum":
        return float(line.get(name, 0.0))
    return float(sum(line.get(step, 0.0) for step in PANELS if step not in ("sum", *BEFORE)) + line.get("cutouts", 0.0))


def _panel(name: str, curves: dict[int, list[tuple[int, float]]], n: int, x0: int, y0: int) -> list[str]:
    width, height = WIDTH - 60, HEIGHT - 50
    top = max((value for curve in curves.values() for _, value in curve), default=0.0) or 1.0
    parts = [
        f'<text x="{x0}" y="{y0 - 6}" font-weight="bold">{name} [ms]</text>',
        f'<rect x="{x0}" y="{y0}" width="{width}" height="{height}" fill="none" stroke="#999"/>',
        f'<text x="{x0 - 4}" y="{y0 + 10}" text-anchor="end">{top:.3g}</text>',
        f'<text x="{x0 - 4}" y="{y0 + height}" text-anchor="end">0</text>',
        f'<text x="{x0 + width}" y="{y0 + height + 14}" text-anchor="end">visit {n}</text>',
    ]
    for k, curve in enumerate(curves.values()):
        points = " ".join(f"{x0 + width * i / max(n - 1, 1):.1f},{y0 + height * (1 - v / top):.1f}" for i, v in curve)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{COLORS[k % len(COLORS)]}" stroke-width="1.3"/>')
    return parts
