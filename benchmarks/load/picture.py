"""Latency against load, as an SVG."""

from collections.abc import Sequence
from typing import Final

from benchmarks.load.limit import LoadStep
from benchmarks.year.picture import COLORS

WIDTH: Final = 640
HEIGHT: Final = 360
LEFT: Final = 60
BOTTOM: Final = 50
TOP: Final = 30
QUANTILES: Final = (("p50_s", "p50"), ("p95_s", "p95"), ("p99_s", "p99"))


def load_picture(steps: Sequence[LoadStep], limits_s: Sequence[float]) -> str:
    """Quantiles of the latency by number of detectors, with the limits asked for as dashed lines.

    A step in which readouts were lost is drawn as a cross on the upper edge.
    """
    points = sorted(steps, key=lambda step: step.detectors)
    finite = [step for step in points if step.lost == 0]
    most = max((step.detectors for step in points), default=1)
    high = 1.1 * max([step.p99_s for step in finite] + list(limits_s), default=1.0)
    width, height = WIDTH - LEFT - 90, HEIGHT - BOTTOM - TOP

    def place(detectors: float, seconds: float) -> str:
        return f"{LEFT + width * detectors / most:.1f},{TOP + height * (1 - seconds / high):.1f}"

    cadence = points[0].cadence_s if points else 0.0
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="18" font-weight="bold">alert latency against load, a visit each {cadence:g} s</text>',
        f'<rect x="{LEFT}" y="{TOP}" width="{width}" height="{height}" fill="none" stroke="#999"/>',
        f'<text x="{LEFT + width / 2}" y="{HEIGHT - 14}" text-anchor="middle">detectors a visit</text>',
        f'<text x="{LEFT - 6}" y="{TOP + 10}" text-anchor="end">{high:.0f} s</text>',
        f'<text x="{LEFT - 6}" y="{TOP + height}" text-anchor="end">0</text>',
    ]
    for limit in limits_s:
        start, end = place(0, limit), place(most, limit)
        (x1, y1), (x2, y2) = start.split(","), end.split(",")
        parts.append(f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#777" stroke-dasharray="5 4"/>')
        parts.append(f'<text x="{float(x2) + 6:.1f}" y="{float(y2) + 4:.1f}" fill="#777">{limit:g} s</text>')
    for step in points:
        middle = LEFT + width * step.detectors / most
        label = f"{step.detectors}" if step.lost == 0 else f"{step.detectors} ✕"
        parts.append(f'<text x="{middle:.1f}" y="{TOP + height + 16}" text-anchor="middle">{label}</text>')
    for number, (name, label) in enumerate(QUANTILES):
        color = COLORS[number]
        line = " ".join(place(step.detectors, getattr(step, name)) for step in finite)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="1.6"/>')
        for step in finite:
            x, y = place(step.detectors, getattr(step, name)).split(",")
            parts.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{color}"/>')
        parts.append(f'<text x="{LEFT + width + 6}" y="{TOP + 14 + 16 * number}" fill="{color}">{label}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
