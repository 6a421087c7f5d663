"""Line charts as SVG, from ``results.json`` alone: pass@k, and accuracy within a budget of tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import log2
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from cort_framework.store import write_text

Points = Sequence[tuple[int, float]]
"""Where a curve stands (a positive number) and how high, from 0 to 1; in order."""

CURVES = {
    "pass_at_k": ("pass-at-k.svg", "At least one of k samples is right", "k"),
    "accuracy_within": ("accuracy-within.svg", "Right within a budget of tokens", "tokens of a response"),
}
"""By the records' key: file, title and what stands along the axis."""


def write_curves(folder: Path, results: Iterable[Mapping[str, Any]]) -> list[Path]:
    """The charts for which the records have at least two points, written to ``folder``."""
    records, written = list(results), []
    for key, (file, title, along) in CURVES.items():
        curves = {
            f"{record['name']}, {record['test_set']}": [(int(x), y) for x, y in record[key].items()]
            for record in records
            if len(record.get(key) or ()) > 1
        }
        if curves:
            write_text(folder / file, chart(title, along, curves))
            written.append(folder / file)
    return written


LEFT, TOP, WIDTH, HEIGHT, LINE = 44, 34, 420, 250, 16
COLOURS = ("#2f81f7", "#d29922", "#3fb950", "#db61a2", "#a371f7", "#f0883e", "#39c5cf", "#8b949e")
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328 } .dim { fill: #59636e } .title { font-size: 13px; font-weight: 600 }
.grid { stroke: #d1d9e0 } polyline { fill: none; stroke-width: 1.8 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .dim { fill: #9198a1 } .grid { stroke: #3d444d } }
"""


def chart(title: str, along: str, curves: Mapping[str, Points]) -> str:
    """Shares of one over a logarithmic axis, each curve with its name and last value beside."""
    places = sorted({x for points in curves.values() for x, _ in points})
    low, span = log2(places[0]), (log2(places[-1]) - log2(places[0])) or 1.0

    def across(x: int) -> float:
        return LEFT + WIDTH * (log2(x) - low) / span

    def up(y: float) -> float:
        return TOP + HEIGHT * (1 - y)

    body = [_text(0, 14, title, "title")]
    for share in (0, 0.25, 0.5, 0.75, 1):
        body.append(
            f'<line class="grid" x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{up(share):.1f}" y2="{up(share):.1f}"/>'
        )
        body.append(_text(LEFT - 6, up(share) + 4, f"{share:.0%}", "dim", "end"))
    body += [_text(across(x), TOP + HEIGHT + 18, str(x), "dim", "middle") for x in places]
    body.append(_text(LEFT + WIDTH / 2, TOP + HEIGHT + 36, along, "dim", "middle"))

    # Names stand at their curves' ends, moved apart where two would touch.
    ends = sorted((up(points[-1][1]), name) for name, points in curves.items())
    free, rows = float(TOP), {}
    for y, name in ends:
        rows[name] = free = max(y, free)
        free += LINE
    for number, (name, points) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        line = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)
        body.append(f'<polyline points="{line}" stroke="{colour}"/>')
        body += [
            f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="2.5" fill="{colour}"/>' for x, y in points
        ]
        label = f"{name}: {points[-1][1]:.1%}"
        body.append(
            f'<circle cx="{LEFT + WIDTH + 14}" cy="{rows[name]:.1f}" r="4" fill="{colour}"/>'
            + _text(LEFT + WIDTH + 24, rows[name] + 4, label)
        )
    height = max(TOP + HEIGHT + 44, free)
    width = LEFT + WIDTH + 40 + 7 * max(map(len, curves)) + 50
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title><style>{STYLE}</style>", *body, "</svg>", ""])


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'
