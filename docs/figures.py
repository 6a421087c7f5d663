"""Puts measured figures into the README: the table between its markers, and the picture ``docs/effect.svg``.

    python docs/figures.py runs/seed-0 runs/seed-1 runs/seed-2

Each argument is the folder of a finished ``cort run``; nothing that is written here comes from anywhere else.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import fmean
from typing import Any
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"

Record = dict[str, Any]
Cells = dict[tuple[str, str], list[Record]]
"""System and test set: the record of each run."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs, one a seed")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "effect.svg")
    arguments = parser.parse_args()
    cells = read(arguments.runs)
    readme = arguments.readme.read_text(encoding="utf-8")
    if BEGIN not in readme or END not in readme:
        sys.exit(f"error: {arguments.readme} has no lines {BEGIN} and {END}")
    head, rest = readme.split(BEGIN, 1)
    tail = rest.split(END, 1)[1]
    block = "\n".join([BEGIN, *table(cells), "", describe(arguments.runs), END])
    arguments.readme.write_text(head + block + tail, encoding="utf-8")
    arguments.picture.write_text(picture(cells), encoding="utf-8")


# --- reading ----------------------------------------------------------------------------------------------------
def read(runs: list[Path]) -> Cells:
    """The records of all runs. Ends the program where a run lacks one that another has."""
    cells: Cells = {}
    for run in runs:
        try:
            records = json.loads((run / "results.json").read_text(encoding="utf-8"))
        except OSError as error:
            sys.exit(f"error: {error}")
        for record in records:
            cells.setdefault((record["name"], record["test_set"]), []).append(record)
    for (name, test_set), records in cells.items():
        if len(records) != len(runs):
            sys.exit(f"error: {name} on {test_set} is in {len(records)} of {len(runs)} runs")
    return cells


def spread(records: list[Record], key: str) -> tuple[float, float, float]:
    """Mean, lowest and highest over the runs; of one run, the bounds of its own interval where it has one."""
    values = [r[key] for r in records if r[key] is not None]
    if not values:
        return float("nan"), float("nan"), float("nan")
    low, high = (
        records[0].get(f"{key}_ci", values * 2)[:2] if len(records) == 1 else (min(values), max(values))
    )
    return fmean(values), low, high


# --- the table --------------------------------------------------------------------------------------------------
def table(cells: Cells) -> list[str]:
    several = len(next(iter(cells.values()))) > 1
    lines = [
        "| system | test set | accuracy % | tokens | tokens per correct | calls | with code % | calculation % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (name, test_set), records in cells.items():
        mean, low, high = (100 * value for value in spread(records, "accuracy"))
        figures = [f"**{mean:.1f}** ({low:.1f} to {high:.1f})"]
        figures += [show(records, key, scale, digits) for key, scale, digits in COLUMNS]
        lines.append(f"| {name} | {test_set} | " + " | ".join(figures) + " |")
    meaning = "mean, lowest and highest of the runs" if several else "with its 95 % interval"
    lines += ["", f"Accuracy: {meaning}; tokens: mean of a response, the interpreter's output included."]
    return lines


COLUMNS = (
    ("tokens", 1, 0),
    ("tokens_per_correct", 1, 0),
    ("tool_calls", 1, 2),
    ("code_share", 100, 0),
    ("calculation_share", 100, 0),
)


def show(records: list[Record], key: str, scale: float, digits: int) -> str:
    mean = spread(records, key)[0]
    return "–" if mean != mean else f"{scale * mean:.{digits}f}"


def describe(runs: list[Path]) -> str:
    """Seeds, sizes and time, as the run folders tell."""
    environments = [json.loads((run / "environment.json").read_text(encoding="utf-8")) for run in runs]
    seeds = ", ".join(str(e["seed"]) for e in environments)
    minutes = [sum(stage_seconds(run)) / 60 for run in runs]
    time = f"{min(minutes):.1f}" + (f" to {max(minutes):.1f}" if len(runs) > 1 else "")
    sizes = {
        r["test_set"]: f"{r['tasks']} {r['test_set']}"
        for r in json.loads((runs[0] / "results.json").read_text())
    }
    packages = environments[0]["packages"]
    versions = ", ".join(
        f"{name} {packages[name]}" for name in ("torch", "transformers", "trl") if name in packages
    )
    return (
        f"{'Seeds' if len(runs) > 1 else 'Seed'} {seeds}; {' and '.join(sizes.values())} tasks; "
        f"{time} minutes a run; Python {environments[0]['python']}, {versions}."
    )


def stage_seconds(run: Path) -> list[float]:
    names = [s["name"] for s in json.loads((run / "plan.json").read_text(encoding="utf-8"))["stages"]]
    return [json.loads((run / name / "stage.json").read_text(encoding="utf-8"))["seconds"] for name in names]


# --- the picture ------------------------------------------------------------------------------------------------
ROW, GAP, LEFT, WIDTH, PANEL = 22, 12, 116, 760, 250
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.small { font-size: 11px } .dim { fill: #59636e } .title { font-weight: 600 }
.line { stroke: #59636e; stroke-width: 1.2 } .axis { stroke: #d1d9e0 }
.accuracy { fill: #2f81f7 } .tokens { fill: #d29922 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .dim { fill: #9198a1 } .axis { stroke: #3d444d } }
"""


def picture(cells: Cells) -> str:
    """Bars: accuracy on the left, tokens on the right, a row a system, a block a test set."""
    sets = list(dict.fromkeys(test_set for _, test_set in cells))
    most = max(spread(records, "tokens")[2] for records in cells.values())
    right = LEFT + PANEL + 60
    body, y = [], 24
    for test_set in sets:
        rows = [(name, records) for (name, where), records in cells.items() if where == test_set]
        body.append(text(0, y, test_set, "title"))
        body.append(text(LEFT, y, "right answers", "small dim"))
        body.append(text(right, y, "tokens a response", "small dim"))
        y += GAP
        for name, records in rows:
            body.append(text(LEFT - 8, y + 15, name, "", "end"))
            body += bar(LEFT, y, spread(records, "accuracy"), 1.0, "accuracy", lambda v: f"{100 * v:.0f} %")
            body += bar(right, y, spread(records, "tokens"), most, "tokens", lambda v: f"{v:.0f}")
            y += ROW
        y += 2 * GAP + 8
    size = f'width="{WIDTH}" height="{y - GAP}" viewBox="0 0 {WIDTH} {y - GAP}"'
    what = "Accuracy and tokens of each system, measured"
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">', f"<title>{what}</title>"]
    return "\n".join([*lines, f"<style>{STYLE}</style>", *body, "</svg>", ""])


def bar(x: int, y: int, values: tuple[float, float, float], full: float, kind: str, label: Any) -> list[str]:
    mean, low, high = values
    length, start, end = (PANEL * value / full for value in (mean, low, high))
    middle = y + ROW / 2 - 1
    parts = [
        f'<line class="axis" x1="{x}" y1="{y}" x2="{x}" y2="{y + ROW - 2}"/>',
        f'<rect class="{kind}" x="{x}" y="{y + 2}" width="{length:.1f}" height="{ROW - 6}" rx="2"/>',
        text(x + max(length, end) + 6, y + 15, label(mean), "small"),
    ]
    if end > start:
        ends = f'x1="{x + start:.1f}" y1="{middle}" x2="{x + end:.1f}" y2="{middle}"'
        parts.insert(2, f'<line class="line" {ends}/>')
    return parts


def text(x: float, y: float, words: str, style: str, anchor: str = "start") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(words)}</text>'


if __name__ == "__main__":
    main()
